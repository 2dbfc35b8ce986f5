// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rows of a cache handed to kernels some at a time.
#pragma once

#include <kvcrush/core/row_view.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/convert.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Rows at a time: one dispatch for all of them, and 128 channels of float still fit L1 for a second look.
inline constexpr std::size_t row_batch = 32;

/// Walks the rows 0 to count - 1: `batch(first, pointers)` where the elements of each row lie together, and
/// `single(index, row)` where they do not.
/// @param row_of  gives the row_view of an index
template <typename RowOf, typename Batch, typename Single>
void for_rows(std::size_t count, RowOf row_of, Batch batch, Single single) noexcept {
    using row_type = decltype(row_of(std::size_t{0}));
    using element = std::remove_const_t<typename row_type::element_type>;
    std::array<const element*, row_batch> pointers;
    for (std::size_t first = 0; first < count; first += row_batch) {
        const std::size_t num = (std::min)(row_batch, count - first);
        bool together = true;
        for (std::size_t r = 0; r < num; ++r) {
            const row_type row = row_of(first + r);
            pointers[r] = row.data();
            together = together && row.contiguous();
        }
        if (together) {
            batch(first, std::span<const element* const>(pointers.data(), num));
            continue;
        }
        for (std::size_t r = 0; r < num; ++r) {
            single(first + r, row_of(first + r));
        }
    }
}

/// A row as contiguous floats: where it lies, or copied to `staging`.
/// @pre staging.size() >= row.size()
template <Element T>
[[nodiscard]] const float* as_floats(const row_view<T>& row, std::span<float> staging) noexcept {
    using element = std::remove_const_t<T>;
    if (!row.contiguous()) {
        for (std::size_t c = 0; c < row.size(); ++c) {
            staging[c] = to_float(row[c]);
        }
        return staging.data();
    }
    if constexpr (std::is_same_v<element, float>) {
        return row.data();
    } else {
        simd::to_float(std::span<const element>(row.elements()), staging.first(row.size()));
        return staging.data();
    }
}

/// Copies a row as floats.
template <Element T>
void copy_row(const row_view<T>& row, float* out) noexcept {
    if (row.contiguous()) {
        simd::to_float(std::span<const std::remove_const_t<T>>(row.elements()),
                       std::span<float>(out, row.size()));
    } else {
        for (std::size_t i = 0; i < row.size(); ++i) {
            out[i] = to_float(row[i]);
        }
    }
}

/// Some channels of a row.
template <Element T>
[[nodiscard]] row_view<T>
channels_of(const row_view<T>& row, std::size_t first, std::size_t size) noexcept {
    return {row.data() + first * row.stride(), size, row.stride()};
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
