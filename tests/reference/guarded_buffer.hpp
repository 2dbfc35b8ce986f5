// SPDX-License-Identifier: Apache-2.0
/// @file
/// Memory that ends at an unreadable page: a kernel that reads or writes one byte too far crashes
/// the test.
#pragma once

#include <cstddef>
#include <span>
#include <stdexcept>

#if defined(__unix__) || defined(__APPLE__)
#    include <sys/mman.h>
#    include <unistd.h>
#    define KVCRUSH_HAS_GUARD_PAGES 1
#else
#    include <vector>
#    define KVCRUSH_HAS_GUARD_PAGES 0
#endif

namespace kvcrush::reference {

/// `count` values, zero at first; the byte after the last one is not accessible (where the system
/// has mmap).
template <typename T>
class guarded_buffer {
public:
    explicit guarded_buffer(std::size_t count) : count_{count} {
#if KVCRUSH_HAS_GUARD_PAGES
        const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
        const std::size_t data_bytes = (count * sizeof(T) + page - 1) / page * page;
        mapped_bytes_ = data_bytes + page;
        memory_ = mmap(
            nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory_ == MAP_FAILED) {
            throw std::runtime_error("guarded_buffer: mmap failed");
        }
        char* const guard = static_cast<char*>(memory_) + data_bytes;
        if (mprotect(guard, page, PROT_NONE) != 0) {
            throw std::runtime_error("guarded_buffer: mprotect failed");
        }
        first_ = reinterpret_cast<T*>(guard - count * sizeof(T));
#else
        memory_.resize(count);
        first_ = memory_.data();
#endif
    }
    guarded_buffer(const guarded_buffer&) = delete;
    guarded_buffer& operator=(const guarded_buffer&) = delete;
    ~guarded_buffer() {
#if KVCRUSH_HAS_GUARD_PAGES
        munmap(memory_, mapped_bytes_);
#endif
    }

    [[nodiscard]] std::span<T> span() noexcept { return {first_, count_}; }
    [[nodiscard]] std::span<const T> span() const noexcept { return {first_, count_}; }
    [[nodiscard]] T& operator[](std::size_t i) noexcept { return first_[i]; }

private:
    std::size_t count_;
    T* first_ = nullptr;
#if KVCRUSH_HAS_GUARD_PAGES
    void* memory_ = nullptr;
    std::size_t mapped_bytes_ = 0;
#else
    std::vector<T> memory_;
#endif
};

} // namespace kvcrush::reference
