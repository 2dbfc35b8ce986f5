// SPDX-License-Identifier: Apache-2.0
/// @file
/// Softmax of whole rows, and of rows that arrive tile by tile.
///
/// NaN logits weigh 0 and count nowhere. A row without any finite logit, or with +inf among them,
/// has no softmax: all of its weights are 0. So sums of weights stay finite whatever the logits
/// are.
///
/// Error of a weight, relative: at most 2^-18 (rounding of the sum of weights; about 2^-22 in
/// practice) plus 2^-24 * |logit - largest logit|. Weights below the smallest normal float relative
/// to the largest one are 0. Sums run in 16 (tiles: 8) lanes whose order is the same on all rungs
/// but the scalar one, which adds in double; they agree bit for bit.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/rungs/on_rung.hpp>
#include <kvcrush/simd/detail/softmax_kernels.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/logits.hpp>

#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// The largest value that is not NaN; -inf when there is none.
[[nodiscard]] inline float row_max(std::span<const float> values, isa at_most = best()) noexcept {
    KVCRUSH_ON_RUNG(detail, usable(at_most), row_max(values.data(), values.size()))
}

/// Replaces logits by their softmax, in place.
///
///     weight[t] = exp(logit[t] - max) / sum over t of exp(logit[t] - max)
inline void softmax(std::span<float> logits, isa at_most = best()) noexcept {
    KVCRUSH_ON_RUNG(detail, usable(at_most), softmax_row(logits.data(), logits.size()))
}

/// Adds the softmax of one row of logits to running sums: sums[t] += softmax(logits)[t].
/// @param[in,out] logits  one query's logits for the keys it sees; overwritten with intermediate
///                        values
/// @param[in,out] sums    [logits.size()]
inline void
softmax_add(std::span<float> logits, std::span<float> sums, isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(sums.size() == logits.size());
    KVCRUSH_ON_RUNG(
        detail, usable(at_most), add_softmax_row(logits.data(), sums.data(), logits.size()))
}

/// One tile of a softmax over more keys than are at hand: replaces logits by exp(logit - largest so
/// far).
///
/// With the `largest` of each tile kept, weight = exp(largest of the tile - states[r].largest) *
/// states[r].inverse_sum() * tile value once all tiles of the row have passed.
/// @param[in,out] tile     [states.size(), key_tile] logits; columns from `count` on are ignored
///                         and become 0
/// @param[in,out] states   one per row
/// @param[out]    largest  [states.size()] what was subtracted
/// @pre   count <= key_tile
inline void softmax_tile(float* tile,
                         std::size_t count,
                         std::span<softmax_state> states,
                         std::span<float> largest,
                         isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(count <= key_tile && largest.size() == states.size());
    const detail::softmax_tile_args args{tile, states.size(), count, states.data(), largest.data()};
    KVCRUSH_ON_RUNG(detail, usable(at_most), softmax_tile(args))
}

/// Adds the rows of a tile, each times its factor: sums[t] += sum over r of factors[r] * tile[r,
/// t].
/// @param[in]     tile     [factors.size(), key_tile]
/// @param[in,out] sums     at most key_tile
inline void add_tile(const float* tile,
                     std::span<const float> factors,
                     std::span<float> sums,
                     isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(sums.size() <= key_tile);
    const detail::add_tile_args args{
        tile, factors.size(), factors.data(), sums.data(), sums.size()};
    KVCRUSH_ON_RUNG(detail, usable(at_most), add_tile(args))
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
