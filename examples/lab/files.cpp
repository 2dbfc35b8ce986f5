// SPDX-License-Identifier: Apache-2.0
#include "files.hpp"

#include "error.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace lab {

std::string read_file(const std::string& path) {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) {
        fail("file ", in_quotes(path), " is a folder");
    }
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        fail("file ", in_quotes(path), " cannot be read: ", std::strerror(errno));
    }
    std::string content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (file.bad()) {
        fail("file ", in_quotes(path), " cannot be read to its end");
    }
    return content;
}

output_file::output_file(std::string path)
    : path_(std::move(path)), temporary_(path_.string() + fmt::format(".part-{}", getpid())) {
    std::error_code error;
    if (std::filesystem::is_directory(path_, error)) {
        fail("file ", in_quotes(path_.string()), " is a folder");
    }
    if (!std::ofstream(temporary_, std::ios::binary)) {
        fail("file ", in_quotes(path_.string()), " cannot be written: ", std::strerror(errno));
    }
}

output_file::~output_file() {
    std::error_code ignored;
    std::filesystem::remove(temporary_, ignored);
}

void output_file::commit(std::string_view content) {
    std::ofstream file(temporary_, std::ios::binary);
    file.write(content.data(), static_cast<std::streamsize>(content.size()));
    file.close();
    std::error_code error;
    if (file) {
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
