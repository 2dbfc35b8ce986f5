// SPDX-License-Identifier: Apache-2.0
/// @file
/// Memory for measurements: on huge pages where the system has them, filled from a seed.
#pragma once

#include <kvcrush/core/random.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>
#include <sys/mman.h>

namespace kvcrush::bench {

/// `size` values of T, zero at first. Page walks are expensive in virtual machines; competitors get the same memory.
template <typename T>
class huge_buffer {
public:
    /// One page more than needed: a huge page starts at a multiple of its size, mmap gives any address.
    explicit huge_buffer(std::size_t size)
        : size_(size), bytes_((size * sizeof(T) / page + 2) * page) {
        mapped_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped_ == MAP_FAILED) {
            throw std::bad_alloc();
        }
        madvise(mapped_, bytes_, MADV_HUGEPAGE);
        std::memset(mapped_, 0, bytes_); // no page is mapped for the first time while we measure
        const std::size_t past = reinterpret_cast<std::uintptr_t>(mapped_) % page;
        data_ = reinterpret_cast<T*>(static_cast<std::byte*>(mapped_) + (page - past) % page);
    }
    huge_buffer(const huge_buffer&) = delete;
    huge_buffer& operator=(const huge_buffer&) = delete;
    ~huge_buffer() { munmap(mapped_, bytes_); }

    [[nodiscard]] std::span<T> span() const noexcept { return {data_, size_}; }
    [[nodiscard]] T* data() const noexcept { return data_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

    /// Bits drawn from a seed, over all bytes.
    void fill_random(std::uint64_t seed) noexcept {
        const std::size_t total = size_ * sizeof(T);
        auto* bytes = reinterpret_cast<std::byte*>(data_);
        for (std::size_t i = 0; i < total; i += 8) {
            const std::uint64_t bits = random_bits(seed, 0, i);
            std::memcpy(bytes + i, &bits, (total - i) < 8 ? total - i : 8);
        }
    }

private:
    static constexpr std::size_t page = std::size_t{2} << 20;
    std::size_t size_;
    std::size_t bytes_;
    void* mapped_ = nullptr;
    T* data_ = nullptr;
};

} // namespace kvcrush::bench
