// SPDX-License-Identifier: Apache-2.0
/// @file
/// Writes small GGUF files, right or wrong ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

namespace lab_test {

/// A file that is deleted with the object.
class temporary_file {
public:
    explicit temporary_file(std::string_view bytes, std::string_view name = "test.gguf") {
        static int number = 0;
        folder_ = std::filesystem::temp_directory_path() /
                  ("kvcrush-lab-" + std::to_string(::getpid()) + "-" + std::to_string(number++));
        std::filesystem::create_directory(folder_);
        path_ = (folder_ / name).string();
        std::ofstream out(path_, std::ios::binary);
        out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        if (!out) {
            throw std::runtime_error("cannot write " + path_);
        }
    }
    ~temporary_file() {
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }
    temporary_file(const temporary_file&) = delete;
    temporary_file& operator=(const temporary_file&) = delete;

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] std::string folder() const { return folder_.string(); }

private:
    std::filesystem::path folder_;
    std::string path_;
};

template <typename T>
void put(std::string& bytes, T value) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    bytes.append(raw, sizeof(T));
}

inline void put_string(std::string& bytes, std::string_view text) {
    put<std::uint64_t>(bytes, text.size());
    bytes += text;
}

/// Metadata first, tensors next; bytes() puts them together. Counts and the version can be overwritten with lies.
class gguf_builder {
public:
    std::string magic = "GGUF";
    std::uint32_t version = 3;
    std::uint64_t alignment =
        32; ///< of the layout; written as metadata only by a test that says so
    std::uint64_t extra_values = 0;
    std::uint64_t extra_tensors = 0;

    /// A value whose bytes the caller lays out.
    gguf_builder& raw(std::string_view key, std::uint32_t type, std::string_view value) {
        put_string(metadata_, key);
        put(metadata_, type);
        metadata_ += value;
        ++num_values_;
        return *this;
    }
    template <typename T>
    gguf_builder& scalar(std::string_view key, std::uint32_t type, T value) {
        std::string bytes;
        put(bytes, value);
        return raw(key, type, bytes);
    }
    gguf_builder& u32(std::string_view key, std::uint32_t value) { return scalar(key, 4, value); }
    gguf_builder& f32(std::string_view key, float value) { return scalar(key, 6, value); }
    gguf_builder& string(std::string_view key, std::string_view value) {
        std::string bytes;
        put_string(bytes, value);
        return raw(key, 8, bytes);
    }
    gguf_builder& strings(std::string_view key, const std::vector<std::string>& values) {
        std::string bytes;
        put<std::uint32_t>(bytes, 8);
        put<std::uint64_t>(bytes, values.size());
        for (const std::string& value : values) {
            put_string(bytes, value);
        }
        return raw(key, 9, bytes);
    }
    template <typename T>
    gguf_builder& numbers(std::string_view key, std::uint32_t type, const std::vector<T>& values) {
        std::string bytes;
        put(bytes, type);
        put<std::uint64_t>(bytes, values.size());
        for (const T value : values) {
            put(bytes, value);
        }
        return raw(key, 9, bytes);
    }

    /// A tensor at a given offset, its data not written.
    gguf_builder& tensor_info(std::string_view name,
                              const std::vector<std::uint64_t>& shape,
                              std::uint32_t type,
                              std::uint64_t offset) {
        put_string(infos_, name);
        put(infos_, static_cast<std::uint32_t>(shape.size()));
        for (const std::uint64_t length : shape) {
            put(infos_, length);
        }
        put(infos_, type);
        put(infos_, offset);
        ++num_tensors_;
        return *this;
    }
    /// A tensor behind the ones before.
    gguf_builder& tensor(std::string_view name,
                         const std::vector<std::uint64_t>& shape,
                         std::uint32_t type,
                         std::string_view data) {
        data_.resize((data_.size() + alignment - 1) / alignment * alignment);
        tensor_info(name, shape, type, data_.size());
        data_ += data;
        return *this;
    }
    gguf_builder& f32_tensor(std::string_view name,
                             const std::vector<std::uint64_t>& shape,
                             const std::vector<float>& values) {
        return tensor(
            name,
            shape,
            0,
            {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
    }

    [[nodiscard]] std::string bytes() const {
        std::string file = magic;
        put(file, version);
        put(file, num_tensors_ + extra_tensors);
        put(file, num_values_ + extra_values);
        file += metadata_ + infos_;
        if (num_tensors_ != 0) {
            file.resize((file.size() + alignment - 1) / alignment * alignment);
        }
        return file + data_;
    }

private:
    std::string metadata_;
    std::string infos_;
    std::string data_;
    std::uint64_t num_values_ = 0;
    std::uint64_t num_tensors_ = 0;
};

/// A little of everything: scalars, arrays, two tensors; not a model.
inline gguf_builder small_model() {
    gguf_builder builder;
    builder.string("general.architecture", "llama").u32("answer", 42);
    builder.strings("words", {"a", "", "ccc"}).numbers<std::int32_t>("numbers", 5, {-1, 0, 7});
    builder.f32_tensor("first", {3}, {1.0F, 2.0F, 3.0F})
        .f32_tensor("second", {2, 2}, {4.0F, 5.0F, 6.0F, 7.0F});
    return builder;
}

} // namespace lab_test
