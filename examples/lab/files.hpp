// SPDX-License-Identifier: Apache-2.0
/// @file
/// Whole files in and out.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace lab {

/// @throws input_error if the file cannot be read
[[nodiscard]] std::string read_file(const std::string& path);

/// A file that appears under its name when it is complete, or not at all, however the program ends. Tried early, so that
/// a path that cannot be written is found out before the work and not after it. A link stays one: what it points to is
/// replaced.
class output_file {
public:
    /// @throws input_error if nothing can be written beside `path`
    explicit output_file(std::string path);

    /// @throws input_error if the disk does not take it
    void commit(std::string_view content);

private:
    std::filesystem::path path_;
    std::filesystem::path temporary_; ///< empty where there is no file to replace: a pipe, a device
};

} // namespace lab
