// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"

#include "error.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace lab {
namespace {

/// No text or list of windows comes near; /dev/zero has to end somewhere [bytes].
constexpr std::size_t largest_file = std::size_t{1} << 28;

} // namespace

std::string read_file(const std::string& path) {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) {
        fail("file ", in_quotes(path), " is a folder");
    }
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        fail("file ", in_quotes(path), " cannot be read: ", std::strerror(errno));
    }
    std::string content;
    for (std::string block(std::size_t{1} << 20, '\0'); file && content.size() <= largest_file;) {
        file.read(block.data(), static_cast<std::streamsize>(block.size()));
        content.append(block, 0, static_cast<std::size_t>(file.gcount()));
    }
    if (content.size() > largest_file) {
        fail("file ",
             in_quotes(path),
             " goes on after ",
             largest_file,
             " bytes; longer ones are not read");
    }
    if (file.bad()) {
        fail("file ", in_quotes(path), " cannot be read to its end");
    }
    return content;
}

output_file::output_file(std::string path) : path_(std::move(path)) {
    std::error_code error;
    if (std::filesystem::is_directory(path_, error)) {
        fail("file ", in_quotes(path_.string()), " is a folder");
    }
    if (std::filesystem::is_symlink(path_, error)) {
        path_ = std::filesystem::weakly_canonical(path_, error);
    }
    const bool replaces =
        !std::filesystem::exists(path_, error) || std::filesystem::is_regular_file(path_, error);
    if (replaces) {
        temporary_ = path_.string() + fmt::format(".part-{}", getpid());
    }
    if (!std::ofstream(replaces ? temporary_ : path_, std::ios::binary | std::ios::app)) {
        fail("file ", in_quotes(path_.string()), " cannot be written: ", std::strerror(errno));
    }
}

output_file::~output_file() {
    std::error_code ignored;
    if (!temporary_.empty()) {
        std::filesystem::remove(temporary_, ignored);
    }
}

void output_file::commit(std::string_view content) {
    const bool replaces = !temporary_.empty();
    std::ofstream file(replaces ? temporary_ : path_, std::ios::binary);
    file.write(content.data(), static_cast<std::streamsize>(content.size()));
    file.close();
    std::error_code error;
    if (file && replaces) {
        std::filesystem::rename(temporary_, path_, error);
    }
    if (!file || error) {
        fail("file ",
             in_quotes(path_.string()),
             " cannot be written: ",
             error ? error.message() : std::string("the disk did not take it"));
    }
}

} // namespace lab
