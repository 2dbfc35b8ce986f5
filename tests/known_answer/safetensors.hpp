// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reads safetensors files: eight bytes with the length of a JSON header, the header, then the arrays.
#pragma once

#include <kvcrush/core/types.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace kvcrush::test {

/// Named arrays in memory. Missing names, other types and files cut short throw.
class tensor_file {
public:
    explicit tensor_file(const std::string& path) : path_(path) {
        static_assert(std::endian::native == std::endian::little);
        std::ifstream in(path, std::ios::binary);
        bytes_.assign(std::istreambuf_iterator<char>(in), {});
        std::array<char, 8> length{};
        require(bytes_.size() >= length.size(), "cannot be read");
        std::copy_n(bytes_.begin(), length.size(), length.begin());
        const std::uint64_t header_size = std::bit_cast<std::uint64_t>(length);
        require(header_size <= bytes_.size() - length.size(), "is cut short");
        data_begin_ = length.size() + header_size;
        header_ = nlohmann::json::parse(bytes_.data() + length.size(), bytes_.data() + data_begin_);
    }

    [[nodiscard]] std::vector<std::size_t> shape(const std::string& name) const {
        return header_.at(name).at("shape").get<std::vector<std::size_t>>();
    }

    /// An entry of the text that goes with the arrays.
    [[nodiscard]] std::string metadata(const std::string& name) const {
        return header_.at("__metadata__").at(name).get<std::string>();
    }

    /// Elements in row-major order. T is float, f16, int32_t, int8_t or, for truth values, uint8_t.
    template <typename T>
    [[nodiscard]] std::vector<T> get(const std::string& name) const {
        const nlohmann::json& entry = header_.at(name);
        require(entry.at("dtype") == type_name<T>(), name + " has another type");
        const auto begin = entry.at("data_offsets").at(0).get<std::size_t>();
        const auto end = entry.at("data_offsets").at(1).get<std::size_t>();
        std::size_t count = 1;
        for (const std::size_t extent : shape(name)) {
            count *= extent;
        }
        require(begin <= end && end <= bytes_.size() - data_begin_ &&
                    end - begin == count * sizeof(T),
                name + " is cut short");
        std::vector<T> values(count);
        std::memcpy(values.data(), bytes_.data() + data_begin_ + begin, end - begin);
        return values;
    }

private:
    template <typename T>
    [[nodiscard]] static constexpr const char* type_name() {
        if constexpr (std::is_same_v<T, float>) {
            return "F32";
        } else if constexpr (std::is_same_v<T, f16>) {
            return "F16";
        } else if constexpr (std::is_same_v<T, std::int32_t>) {
            return "I32";
        } else if constexpr (std::is_same_v<T, std::int8_t>) {
            return "I8";
        } else {
            static_assert(std::is_same_v<T, std::uint8_t>);
            return "BOOL";
        }
    }

    void require(bool condition, const std::string& complaint) const {
        if (!condition) {
            throw std::runtime_error(path_ + ": " + complaint);
        }
    }

    std::string path_;
    std::vector<char> bytes_;
    std::size_t data_begin_ = 0;
    nlohmann::json header_;
};

} // namespace kvcrush::test
