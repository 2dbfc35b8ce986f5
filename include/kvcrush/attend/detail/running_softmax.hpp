// SPDX-License-Identifier: Apache-2.0
/// @file
/// The two passes over the logits of a tile that a softmax needs that runs along with the rows.
#pragma once

#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/exp.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstddef>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace detail {

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
        const __m256 x = _mm256_sub_ps(_mm256_loadu_ps(row + t), shift);
        const __m256 weights = _mm256_and_ps(simd::detail::exp_avx2(x), _mm256_castsi256_ps(lanes));
        _mm256_storeu_ps(row + t, weights);
        sum = _mm256_add_ps(sum, weights);
    }
    float lanes[8];
    _mm256_storeu_ps(lanes, sum);
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) +
           ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}

KVCRUSH_TARGET_AVX512 inline float
largest_logit_avx512(float* row, std::size_t seen, float bias, float largest) noexcept {
    const __m512 shift = _mm512_set1_ps(bias);
    __m512 high = _mm512_set1_ps(largest);
    for (std::size_t t = 0; t < seen; t += 16) {
        const __mmask16 lanes = simd::detail::first_lanes_avx512(seen - t);
        const __m512 x = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, row + t), shift);
        _mm512_mask_storeu_ps(row + t, lanes, x);
        high = _mm512_mask_max_ps(high, lanes, x, high);
    }
    const __m256 half = _mm256_max_ps(_mm512_maskz_extractf32x8_ps(0xFF, high, 0),
                                      _mm512_maskz_extractf32x8_ps(0xFF, high, 1));
    __m128 quarter = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
    quarter = _mm_max_ps(quarter, _mm_movehdup_ps(quarter));
    return _mm_cvtss_f32(quarter);
}

KVCRUSH_TARGET_AVX512 inline float
exp_logits_avx512(float* row, std::size_t seen, float largest) noexcept {
    const __m512 shift = _mm512_set1_ps(largest);
    __m512 sum = _mm512_setzero_ps();
    for (std::size_t t = 0; t < attend_tile; t += 16) {
        const __mmask16 lanes = simd::detail::first_lanes_avx512(seen > t ? seen - t : 0);
        const __m512 x = _mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, row + t), shift);
        const __m512 weights = _mm512_maskz_mov_ps(lanes, simd::detail::exp_avx512(x));
        _mm512_storeu_ps(row + t, weights);
        sum = _mm512_add_ps(sum, weights);
    }
    const __m256 half = _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xFF, sum, 0),
                                      _mm512_maskz_extractf32x8_ps(0xFF, sum, 1));
    __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    quarter = _mm_add_ss(quarter, _mm_movehdup_ps(quarter));
    return _mm_cvtss_f32(quarter);
}

#endif // KVCRUSH_X86_DISPATCH

inline float
largest_logit(float* row, std::size_t seen, float bias, float largest, simd::isa rung) noexcept {
    switch (rung) {
#if KVCRUSH_X86_DISPATCH
    case simd::isa::avx512: return largest_logit_avx512(row, seen, bias, largest);
    case simd::isa::avx2: return largest_logit_avx2(row, seen, bias, largest);
#endif
    default: return largest_logit_scalar(row, seen, bias, largest);
    }
}

inline float exp_logits(float* row, std::size_t seen, float largest, simd::isa rung) noexcept {
    switch (rung) {
#if KVCRUSH_X86_DISPATCH
    case simd::isa::avx512: return exp_logits_avx512(row, seen, largest);
    case simd::isa::avx2: return exp_logits_avx2(row, seen, largest);
#endif
    default: return exp_logits_scalar(row, seen, largest);
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
