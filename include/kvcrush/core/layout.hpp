// SPDX-License-Identifier: Apache-2.0
/// @file
/// Where element (head, token, dim) of a contiguous cache lies. Layouts are types, so that a policy compiled for
/// one knows its strides.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/kv_shape.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace kvcrush {
inline namespace v0 {

/// Distances in elements between neighbours along each axis of K or of V.
struct kv_strides {
    std::size_t head = 0;
    std::size_t token = 0;
    std::size_t dim = 1;

    friend constexpr bool operator==(const kv_strides&, const kv_strides&) = default;
};

namespace detail {

/// a * b, or the largest number where that does not fit: a stride that every view refuses.
[[nodiscard]] constexpr std::size_t saturating_multiply(std::size_t a, std::size_t b) noexcept {
    constexpr std::size_t most = (std::numeric_limits<std::size_t>::max)();
    return b != 0 && a > most / b ? most : a * b;
}

} // namespace detail

/// [num_kv_heads, capacity, head_dim]: each head's tokens lie together.
struct hnd {
    /// Tokens for which each head has room [tokens]; 0 means exactly seq_len.
    std::size_t capacity = 0;

    [[nodiscard]] constexpr kv_strides key_strides(const kv_shape& shape) const noexcept {
        return strides(shape, shape.key_dim);
    }
    [[nodiscard]] constexpr kv_strides value_strides(const kv_shape& shape) const noexcept {
        return strides(shape, shape.value_dim);
    }

private:
    [[nodiscard]] constexpr kv_strides strides(const kv_shape& shape,
                                               std::size_t dim) const noexcept {
        return {detail::saturating_multiply(capacity == 0 ? shape.seq_len : capacity, dim), dim, 1};
    }
};

/// [seq_len, num_kv_heads, head_dim]: each token's heads lie together.
struct nhd {
    [[nodiscard]] constexpr kv_strides key_strides(const kv_shape& shape) const noexcept {
        return {shape.key_dim, detail::saturating_multiply(shape.num_kv_heads, shape.key_dim), 1};
    }
    [[nodiscard]] constexpr kv_strides value_strides(const kv_shape& shape) const noexcept {
        return {
            shape.value_dim, detail::saturating_multiply(shape.num_kv_heads, shape.value_dim), 1};
    }
};

/// Any strides, K and V apart: padded rows, K and V interleaved, V transposed to [num_kv_heads, head_dim, capacity].
struct strided {
    kv_strides key;
    kv_strides value;

    [[nodiscard]] constexpr kv_strides key_strides(const kv_shape&) const noexcept { return key; }
    [[nodiscard]] constexpr kv_strides value_strides(const kv_shape&) const noexcept {
        return value;
    }
};

/// A type that knows the strides of K and V for a shape.
template <typename L>
concept KvLayout = std::copyable<L> && requires(const L& layout, const kv_shape& shape) {
    { layout.key_strides(shape) } noexcept -> std::same_as<kv_strides>;
    { layout.value_strides(shape) } noexcept -> std::same_as<kv_strides>;
};

namespace detail {

/// @throws std::invalid_argument naming `what` when a * b does not fit
constexpr std::size_t checked_multiply(std::size_t a, std::size_t b, const char* what) {
    require(b == 0 || a <= (std::numeric_limits<std::size_t>::max)() / b,
            what,
            ": ",
            a,
            " x ",
            b,
            " elements do not fit the address space");
    return a * b;
}

/// Adds `extent` positions along one axis to a running last offset, checking overflow and aliasing.
constexpr std::size_t
advance_offset(std::size_t offset, std::size_t extent, std::size_t stride, const char* what) {
    require(extent < 2 || stride != 0, what, ": a stride of 0 makes rows overlap");
    const std::size_t reach = extent == 0 ? 0 : checked_multiply(extent - 1, stride, what);
    constexpr std::size_t most = (std::numeric_limits<std::size_t>::max)() - 1;
    require(reach <= most && offset < most - reach, what, ": strides do not fit the address space");
    return offset + reach;
}

/// Elements that a tensor with these extents and strides reaches over; 0 when an extent is 0.
constexpr std::size_t required_elements(std::size_t heads,
                                        std::size_t tokens,
                                        std::size_t dim,
                                        const kv_strides& strides,
                                        const char* what) {
    if (heads == 0 || tokens == 0 || dim == 0) {
        return 0;
    }
    std::size_t last = advance_offset(0, heads, strides.head, what);
    last = advance_offset(last, tokens, strides.token, what);
    last = advance_offset(last, dim, strides.dim, what);
    return last + 1;
}

/// How many elements an axis has, and how far apart they lie.
struct axis {
    std::size_t extent;
    std::size_t stride;
};

/// Every axis must step over all that the axes with smaller strides reach, or elements would share memory, and a row that
/// is moved would change another.
/// @pre no extent is 0, and what the axes reach together fits std::size_t
/// @throws std::invalid_argument naming `what`
template <std::size_t Count>
constexpr void require_apart(std::array<axis, Count> axes, const char* what) {
    std::sort(axes.begin(), axes.end(), [](const axis& a, const axis& b) noexcept {
        return a.stride < b.stride;
    });
    std::size_t reach = 0;
    for (const axis& along : axes) {
        if (along.extent > 1) {
            require(along.stride > reach,
                    what,
                    ": a stride of ",
                    along.stride,
                    " makes rows overlap; it must be at least ",
                    reach + 1);
            reach += (along.extent - 1) * along.stride;
        }
    }
}

/// Tokens are indexed by 32 bits; the largest value marks an evicted token in position maps.
constexpr void require_shape(const kv_shape& shape, const char* what) {
    require(shape.seq_len < (std::numeric_limits<std::uint32_t>::max)(),
            what,
            ": seq_len is ",
            shape.seq_len,
            "; at most 4294967294 tokens are supported");
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
