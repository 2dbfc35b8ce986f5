// SPDX-License-Identifier: Apache-2.0
/// @file
/// Dot products and weighted sums of keys and values of any element type and stride.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/row_view.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/math/row_batches.hpp>
#include <kvcrush/simd/dot.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// out[i] = sum over c of row_of(i)[c] * with[c], in fp32.
///
///     dots([&](std::size_t t) { return kv.key(head, t); }, direction, products);
/// @param      row_of  gives the row_view of an index below out.size(), as long as `with`
template <typename RowOf>
void dots(RowOf row_of, std::span<const float> with, std::span<float> out) noexcept {
    detail::for_rows(
        out.size(),
        row_of,
        [&](std::size_t first, auto rows) {
            simd::dots(rows, with, out.subspan(first, rows.size()));
        },
        [&](std::size_t i, const auto& row) {
            float sum = 0.0F;
            for (std::size_t c = 0; c < with.size(); ++c) {
                sum += to_float(row[c]) * with[c];
            }
            out[i] = sum;
        });
}

/// out[c] = sum over i of weights[i] * row_of(i)[c], in fp32, i ascending.
/// @param row_of  gives the row_view of an index below weights.size(), as long as `out`
/// @pre   weights.size() <= detail::row_batch: longer sums are the caller's, in double
template <typename RowOf>
void weighted_sum(RowOf row_of, std::span<const float> weights, std::span<float> out) noexcept {
    KVCRUSH_ASSERT(weights.size() <= detail::row_batch);
    std::fill(out.begin(), out.end(), 0.0F);
    detail::for_rows(
        weights.size(),
        row_of,
        [&](std::size_t, auto rows) { simd::weighted_sum(rows, weights, out); },
        [&](std::size_t i, const auto& row) {
            for (std::size_t c = 0; c < out.size(); ++c) {
                out[c] += weights[i] * to_float(row[c]);
            }
        });
}

} // namespace v0
} // namespace kvcrush
