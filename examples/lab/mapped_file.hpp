// SPDX-License-Identifier: Apache-2.0
/// @file
/// A file seen as read-only memory.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>

namespace lab {

/// Maps a whole regular file; the mapping ends with the object. Move-only.
class mapped_file {
public:
    /// @throws input_error if the file cannot be opened, is not a regular file or is empty
    explicit mapped_file(const std::string& path);
    ~mapped_file();

    mapped_file(mapped_file&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
    mapped_file& operator=(mapped_file&& other) noexcept {
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    mapped_file(const mapped_file&) = delete;
    mapped_file& operator=(const mapped_file&) = delete;

    [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }

private:
    std::span<const std::byte> bytes_;
};

} // namespace lab
