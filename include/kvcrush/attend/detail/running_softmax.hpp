// SPDX-License-Identifier: Apache-2.0
/// @file
/// The two passes over the logits of a tile that a softmax needs that runs along with the rows.
#pragma once

#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/detail/softmax_avx512.hpp>
#include <kvcrush/simd/detail/softmax_scalar.hpp>
#include <kvcrush/simd/exp.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Query rows and their softmax so far.
struct running_softmax_args {
    float* logits; ///< [num_rows][attend_tile]
    std::size_t num_rows;
    const std::size_t* seen; ///< [num_rows], how many of the tile's rows each may see
    const float* bias;       ///< [num_rows], added to logits
    float* largest;          ///< [num_rows], the largest logit
    float* sum;              ///< [num_rows], of e^(logit - largest)
    float* values;           ///< [num_rows][value_dim], sums weighted with the same
    std::size_t value_dim;
};

/// Adds `bias` to the first `seen` of a row of attend_tile logits. Returns the largest of them and `largest`.
inline float
largest_logit_scalar(float* row, std::size_t seen, float bias, float largest) noexcept {
    for (std::size_t t = 0; t < seen; ++t) {
        row[t] += bias;
        largest = row[t] > largest ? row[t] : largest;
    }
    return largest;
}

/// Turns the first `seen` logits into e^(logit - largest), the others of the tile into 0. Returns the sum.
inline float exp_logits_scalar(float* row, std::size_t seen, float largest) noexcept {
    float sum = 0.0F;
    for (std::size_t t = 0; t < attend_tile; ++t) {
        row[t] = t < seen ? simd::detail::exp_scalar(row[t] - largest) : 0.0F;
        sum += row[t];
    }
    return sum;
}

#if KVCRUSH_X86_DISPATCH

KVCRUSH_TARGET_AVX2 inline float
largest_logit_avx2(float* row, std::size_t seen, float bias, float largest) noexcept {
    const __m256 shift = _mm256_set1_ps(bias);
    __m256 high = _mm256_set1_ps(largest);
    std::size_t t = 0;
    for (; t + 8 <= seen; t += 8) {
        const __m256 x = _mm256_add_ps(_mm256_loadu_ps(row + t), shift);
        _mm256_storeu_ps(row + t, x);
        high = _mm256_max_ps(x, high); // a NaN in x gives high
    }
    float lanes[8];
    _mm256_storeu_ps(lanes, high);
    for (const float lane : lanes) {
        largest = lane > largest ? lane : largest;
    }
    for (; t < seen; ++t) {
        row[t] += bias;
        largest = row[t] > largest ? row[t] : largest;
    }
    return largest;
}

KVCRUSH_TARGET_AVX2 inline float
exp_logits_avx2(float* row, std::size_t seen, float largest) noexcept {
    const __m256 shift = _mm256_set1_ps(largest);
    __m256 sum = _mm256_setzero_ps();
    for (std::size_t t = 0; t < attend_tile; t += 8) {
        const __m256i lanes = simd::detail::first_lanes_avx2(seen > t ? seen - t : 0);
        const __m256 seen_lanes = _mm256_castsi256_ps(lanes);
        // What is not seen may be anything.
        const __m256 logits = _mm256_blendv_ps(shift, _mm256_loadu_ps(row + t), seen_lanes);
        const __m256 weights =
            _mm256_and_ps(simd::detail::exp_avx2(_mm256_sub_ps(logits, shift)), seen_lanes);
        _mm256_storeu_ps(row + t, weights);
        sum = _mm256_add_ps(sum, weights);
    }
    float lanes[8];
    _mm256_storeu_ps(lanes, sum);
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) +
           ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512
store_weights_avx512(float* row, __mmask16 lanes, __m512 logits, __m512 largest) noexcept {
    const __m512 weights = _mm512_maskz_mov_ps(
        lanes, simd::detail::exp_avx512(_mm512_maskz_sub_ps(lanes, logits, largest)));
    _mm512_storeu_ps(row, weights);
    return weights;
}

/// Both passes, and all rows in one call: logits stay in registers between them.
KVCRUSH_TARGET_AVX512 inline void run_softmax_avx512(const running_softmax_args& args) noexcept {
    static_assert(attend_tile == 64);
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        float* const row = args.logits + r * attend_tile;
        const std::size_t seen = args.seen[r];
        if (seen == 0) { // there may be no largest logit yet
            std::fill_n(row, attend_tile, 0.0F);
            continue;
        }
        const auto visible = seen >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << seen) - 1;
        const auto lanes0 = static_cast<__mmask16>(visible);
        const auto lanes1 = static_cast<__mmask16>(visible >> 16);
        const auto lanes2 = static_cast<__mmask16>(visible >> 32);
        const auto lanes3 = static_cast<__mmask16>(visible >> 48);
        const __m512 bias = _mm512_set1_ps(args.bias[r]);
        const __m512 x0 = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes0, row), bias);
        const __m512 x1 = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes1, row + 16), bias);
        const __m512 x2 = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes2, row + 32), bias);
        const __m512 x3 = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes3, row + 48), bias);
        // A NaN in x gives what there was before.
        const float before = args.largest[r];
        __m512 high = _mm512_set1_ps(before);
        high = _mm512_mask_max_ps(high, lanes0, x0, high);
        high = _mm512_mask_max_ps(high, lanes1, x1, high);
        high = _mm512_mask_max_ps(high, lanes2, x2, high);
        high = _mm512_mask_max_ps(high, lanes3, x3, high);
        const float largest = simd::detail::largest_lane_avx512(high);
        if (largest != before) {
            const float factor = simd::detail::exp_scalar(before - largest);
            args.largest[r] = largest;
            args.sum[r] *= factor;
            simd::detail::scale_avx512(args.values + r * args.value_dim, factor, args.value_dim);
        }
        const __m512 shift = _mm512_set1_ps(largest);
        const __m512 w0 = store_weights_avx512(row, lanes0, x0, shift);
        const __m512 w1 = store_weights_avx512(row + 16, lanes1, x1, shift);
        const __m512 w2 = store_weights_avx512(row + 32, lanes2, x2, shift);
        const __m512 w3 = store_weights_avx512(row + 48, lanes3, x3, shift);
        args.sum[r] += simd::detail::sum_of_lanes_avx512(
            _mm512_add_ps(_mm512_add_ps(w0, w1), _mm512_add_ps(w2, w3)));
    }
}

#endif // KVCRUSH_X86_DISPATCH

template <simd::isa Rung>
void run_softmax_row_by_row(const running_softmax_args& args) noexcept {
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        float* const row = args.logits + r * attend_tile;
        const std::size_t seen = args.seen[r];
        if (seen == 0) {
            std::fill_n(row, attend_tile, 0.0F);
            continue;
        }
        const float before = args.largest[r];
        float largest = 0.0F;
        float sum = 0.0F;
#if KVCRUSH_X86_DISPATCH
        if constexpr (Rung == simd::isa::avx2) {
            largest = largest_logit_avx2(row, seen, args.bias[r], before);
            sum = exp_logits_avx2(row, seen, largest);
        } else
#endif
        {
            largest = largest_logit_scalar(row, seen, args.bias[r], before);
            sum = exp_logits_scalar(row, seen, largest);
        }
        if (largest != before) {
            const float factor = simd::detail::exp_scalar(before - largest);
            args.largest[r] = largest;
            args.sum[r] *= factor;
            simd::detail::scale_scalar(args.values + r * args.value_dim, factor, args.value_dim);
        }
        args.sum[r] += sum;
    }
}

/// Adds the bias to logits and turns them into e^(logit - largest), those that are not seen into 0. What was summed so
/// far is multiplied with what it takes where the largest logit is another one now.
inline void run_softmax(const running_softmax_args& args, simd::isa rung) noexcept {
    switch (rung) {
#if KVCRUSH_X86_DISPATCH
    case simd::isa::avx512: return run_softmax_avx512(args);
    case simd::isa::avx2: return run_softmax_row_by_row<simd::isa::avx2>(args);
#endif
    default: return run_softmax_row_by_row<simd::isa::scalar>(args);
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
