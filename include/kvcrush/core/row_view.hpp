// SPDX-License-Identifier: Apache-2.0
/// @file
/// One token's key or value in the caller's memory.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Non-owning view of `size` elements that lie `stride` elements apart (1 in most caches, the capacity of the
/// cache in a transposed V).
template <Element T>
class row_view {
public:
    using element_type = T;

    constexpr row_view(T* data, std::size_t size, std::size_t stride = 1) noexcept
        : data_(data), size_(size), stride_(stride) {}

    [[nodiscard]] constexpr T* data() const noexcept { return data_; }
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
    [[nodiscard]] constexpr std::size_t stride() const noexcept { return stride_; }
    [[nodiscard]] constexpr bool contiguous() const noexcept { return stride_ == 1 || size_ < 2; }
    [[nodiscard]] constexpr T& operator[](std::size_t i) const noexcept {
        return data_[i * stride_];
    }

    /// @pre contiguous()
    [[nodiscard]] constexpr std::span<T> elements() const noexcept {
        KVCRUSH_ASSERT(contiguous());
        return {data_, size_};
    }

private:
    T* data_;
    std::size_t size_;
    std::size_t stride_;
};

} // namespace v0
} // namespace kvcrush
