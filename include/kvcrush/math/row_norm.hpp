// SPDX-License-Identifier: Apache-2.0
/// @file
/// The lengths of keys and values of any element type and stride.
#pragma once

#include <kvcrush/core/row_view.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/math/row_batches.hpp>
#include <kvcrush/simd/norm.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// Sum of the squares of a row, in fp32.
template <Element T>
[[nodiscard]] float squared_norm(const row_view<T>& row) noexcept {
    using element = std::remove_const_t<T>;
    float sum = 0.0F;
    if (row.contiguous()) {
        const element* const first = row.data();
        simd::squared_norms<element>({&first, 1}, row.size(), {&sum, 1});
        return sum;
    }
    std::array<float, 256> buffer;
    for (std::size_t begin = 0; begin < row.size(); begin += buffer.size()) {
        const std::span<float> part(buffer.data(), (std::min)(buffer.size(), row.size() - begin));
        for (std::size_t i = 0; i < part.size(); ++i) {
            part[i] = to_float(row[begin + i]);
        }
        sum += simd::squared_norm(part);
    }
    return sum;
}

/// Sums of the squares of many rows: what to call for more than one.
///
///     squared_norms([&](std::size_t t) { return kv.key(head, t); }, norms);
/// @param      row_of  gives the row_view of an index below out.size(); all rows have the same size
/// @param[out] out     one sum per row
template <typename RowOf>
void squared_norms(RowOf row_of, std::span<float> out) noexcept {
    detail::for_rows(
        out.size(),
        row_of,
        [&](std::size_t first, auto rows) {
            simd::squared_norms(rows, row_of(first).size(), out.subspan(first, rows.size()));
        },
        [&](std::size_t i, const auto& row) { out[i] = squared_norm(row); });
}

} // namespace v0
} // namespace kvcrush
