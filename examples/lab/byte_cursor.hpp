// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reads numbers and strings off the front of untrusted bytes.
#pragma once

#include "error.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace lab {

static_assert(std::endian::native == std::endian::little, "GGUF files are little-endian");

/// Never moves past the end: every read is compared with what is left first.
class byte_cursor {
public:
    /// @param[in] source  how messages name the bytes, e.g. "model x.gguf"; must outlive the cursor
    byte_cursor(std::span<const std::byte> bytes, std::string_view source)
        : bytes_(bytes), source_(source) {}

    [[nodiscard]] std::size_t offset() const noexcept { return offset_; }
    [[nodiscard]] std::size_t left() const noexcept { return bytes_.size() - offset_; }

    /// @throws input_error naming `what` if fewer than `count` bytes are left
    std::span<const std::byte> take(std::uint64_t count, std::string_view what) {
        if (count > left()) {
            fail(source_,
                 ": ",
                 what,
                 " needs ",
                 count,
                 " bytes at offset ",
                 offset_,
                 "; ",
                 left(),
                 " are left in the file");
        }
        const auto taken = bytes_.subspan(offset_, static_cast<std::size_t>(count));
        offset_ += taken.size();
        return taken;
    }

    template <typename T>
        requires std::is_arithmetic_v<T>
    T number(std::string_view what) {
        T value;
        std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
        return value;
    }

    /// A 64-bit length and so many bytes.
    std::string_view string(std::string_view what) {
        const auto length = number<std::uint64_t>(what);
        const auto text = take(length, what);
        return {reinterpret_cast<const char*>(text.data()), text.size()};
    }

private:
    std::span<const std::byte> bytes_;
    std::string_view source_;
    std::size_t offset_ = 0;
};

} // namespace lab
