// SPDX-License-Identifier: Apache-2.0
/// @file
/// Memory that hot functions are handed instead of allocating it.
#pragma once

#include <kvcrush/config.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// Hands out pieces of a caller's memory, one after the other. Copy it to give a callee the rest for the time of one
/// call: what the copy takes is free again when it goes out of scope.
class scratch {
public:
    /// Every piece starts on a cache line.
    static constexpr std::size_t alignment = 64;

    constexpr scratch() noexcept = default;
    constexpr explicit scratch(std::span<std::byte> memory) noexcept : free_(memory) {}

    /// Bytes of memory that take<T>(count) may use up. Sums of it are what a policy asks for.
    template <typename T>
    [[nodiscard]] static constexpr std::size_t bytes(std::size_t count) noexcept {
        return count * sizeof(T) + alignment;
    }

    /// `count` uninitialised values.
    /// @pre the memory was sized with bytes<T>(count) for this piece
    template <typename T>
        requires std::is_trivially_copyable_v<T>
    [[nodiscard]] std::span<T> take(std::size_t count) noexcept {
        const auto address = reinterpret_cast<std::uintptr_t>(free_.data());
        const std::size_t skip = (alignment - address % alignment) % alignment;
        KVCRUSH_ASSERT(free_.size() >= skip + count * sizeof(T));
        T* first = reinterpret_cast<T*>(free_.data() + skip);
        free_ = free_.subspan(skip + count * sizeof(T));
        return {first, count};
    }

private:
    std::span<std::byte> free_;
};

} // namespace v0
} // namespace kvcrush
