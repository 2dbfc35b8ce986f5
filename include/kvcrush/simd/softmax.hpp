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
/// to the largest one are 0. Sums run in 16 (tiles: 8) lanes whose order is the same on AVX2 and
/// AVX-512, which agree bit for bit; the scalar rung adds in double.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/softmax_avx2.hpp>
#include <kvcrush/simd/detail/softmax_avx512.hpp>
#include <kvcrush/simd/detail/softmax_scalar.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/logits.hpp>

#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// The largest value that is not NaN; -inf when there is none.
[[nodiscard]] inline float row_max(std::span<const float> values, isa at_most = best()) noexcept {
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::row_max_avx512(values.data(), values.size());
    case isa::avx2: return detail::row_max_avx2(values.data(), values.size());
#endif
    default: return detail::row_max_scalar(values.data(), values.size());
    }
}

/// Replaces logits by their softmax, in place.
///
///     weight[t] = exp(logit[t] - max) / sum over t of exp(logit[t] - max)
inline void softmax(std::span<float> logits, isa at_most = best()) noexcept {
    float* const row = logits.data();
    const std::size_t size = logits.size();
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: {
        const double sum = detail::exp_row_avx512(row, size, detail::row_max_avx512(row, size));
        return detail::scale_avx512(row, detail::inverse_or_zero(sum), size);
    }
    case isa::avx2: {
        const double sum = detail::exp_row_avx2(row, size, detail::row_max_avx2(row, size));
        return detail::scale_avx2(row, detail::inverse_or_zero(sum), size);
    }
#endif
    default: {
        const double sum = detail::exp_row_scalar(row, size, detail::row_max_scalar(row, size));
        return detail::scale_scalar(row, detail::inverse_or_zero(sum), size);
    }
    }
}

/// Adds the softmax of one row of logits to running sums: sums[t] += softmax(logits)[t].
/// @param[in,out] logits  one query's logits for the keys it sees; overwritten with intermediate
///                        values
/// @param[in,out] sums    [logits.size()]
inline void
softmax_add(std::span<float> logits, std::span<float> sums, isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(sums.size() == logits.size());
    float* const row = logits.data();
    const std::size_t size = logits.size();
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: {
        const double sum = detail::exp_row_avx512(row, size, detail::row_max_avx512(row, size));
        return detail::add_scaled_avx512(row, detail::inverse_or_zero(sum), sums.data(), size);
    }
    case isa::avx2: {
        const double sum = detail::exp_row_avx2(row, size, detail::row_max_avx2(row, size));
        return detail::add_scaled_avx2(row, detail::inverse_or_zero(sum), sums.data(), size);
    }
#endif
    default: {
        const double sum = detail::exp_row_scalar(row, size, detail::row_max_scalar(row, size));
        return detail::add_scaled_scalar(row, detail::inverse_or_zero(sum), sums.data(), size);
    }
    }
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
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::softmax_tile_avx512(args);
    case isa::avx2: return detail::softmax_tile_avx2(args);
#endif
    default: return detail::softmax_tile_scalar(args);
    }
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
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::add_tile_avx512(args);
    case isa::avx2: return detail::add_tile_avx2(args);
#endif
    default: return detail::add_tile_scalar(args);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
