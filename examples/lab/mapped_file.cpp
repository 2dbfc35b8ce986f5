// SPDX-License-Identifier: Apache-2.0
#include "mapped_file.hpp"

#include "error.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace lab {
namespace {

/// Closes the descriptor; the mapping outlives it.
struct open_file {
    int descriptor;
    ~open_file() {
        if (descriptor >= 0) {
            ::close(descriptor);
        }
    }
};

} // namespace

mapped_file::mapped_file(const std::string& path) {
    // Non-blocking, or opening a FIFO would wait for its writer.
    const open_file file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (file.descriptor < 0) {
        fail("file ", in_quotes(path), " cannot be opened: ", std::strerror(errno));
    }
    struct stat status {};
    if (::fstat(file.descriptor, &status) != 0) {
        fail("file ", in_quotes(path), " cannot be examined: ", std::strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) {
        fail("file ", in_quotes(path), " is not a regular file");
    }
    if (status.st_size <= 0) {
        fail("file ", in_quotes(path), " is empty");
    }
    const auto size = static_cast<std::size_t>(status.st_size);
    const void* memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor, 0);
    if (memory == MAP_FAILED) {
        fail("file ", in_quotes(path), " cannot be mapped: ", std::strerror(errno));
    }
    bytes_ = {static_cast<const std::byte*>(memory), size};
}

mapped_file::~mapped_file() {
    if (!bytes_.empty()) {
        ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
    }
}

} // namespace lab
