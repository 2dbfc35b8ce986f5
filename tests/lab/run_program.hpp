// SPDX-License-Identifier: Apache-2.0
/// @file
/// kvcrush-lab as a user runs it, and a folder for what it reads and writes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <unistd.h>

namespace lab_test {

struct outcome {
    int code = -1; ///< -1 if the program did not exit by itself
    std::string output;
};

/// Runs a line of the shell with both streams together.
inline outcome run_in_shell(const std::string& line) {
    outcome result;
    FILE* pipe = popen(("{ " + line + "; } 2>&1").c_str(), "r");
    if (pipe == nullptr) {
        return result;
    }
    std::array<char, 4096> buffer{};
    while (std::fgets(buffer.data(), static_cast<int>(buffer.size()), pipe) != nullptr) {
        result.output += buffer.data();
    }
    const int status = pclose(pipe);
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return result;
}

/// @param environment  NAME=VALUE, or nothing
inline outcome run_lab(const std::string& arguments, const std::string& environment = "") {
    return run_in_shell(environment + " '" + KVCRUSH_LAB_PROGRAM + "' " + arguments);
}

inline std::string read_whole(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// Empty at first, and gone at the end. Tests that run at the same time have one each.
class scratch_folder {
public:
    scratch_folder()
        : path_(std::filesystem::temp_directory_path() /
                ("kvcrush-lab-test-" + std::to_string(getpid()))) {
        std::filesystem::remove_all(path_);
        std::filesystem::create_directories(path_);
    }
    scratch_folder(const scratch_folder&) = delete;
    scratch_folder& operator=(const scratch_folder&) = delete;
    ~scratch_folder() { std::filesystem::remove_all(path_); }

    [[nodiscard]] std::string path(std::string_view name) const { return (path_ / name).string(); }
    /// The path of a new file with that content.
    [[nodiscard]] std::string file(std::string_view name, const std::string& content) const {
        std::ofstream(path_ / name, std::ios::binary) << content;
        return path(name);
    }
    [[nodiscard]] std::size_t num_files() const {
        return static_cast<std::size_t>(
            std::distance(std::filesystem::directory_iterator(path_), {}));
    }

private:
    std::filesystem::path path_;
};

} // namespace lab_test
