// SPDX-License-Identifier: Apache-2.0
/// @file
/// Masks for the end of a float array, and what all lanes of a register come to.
#pragma once

#include <kvcrush/config.hpp>

#include <algorithm>
#include <cstddef>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// The first `count` of 8 lanes, as maskload and maskstore want them.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i
first_lanes_avx2(std::size_t count) noexcept {
    const int lanes = static_cast<int>((std::min)(count, std::size_t{8}));
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/// The first `count` of 16 lanes.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __mmask16
first_lanes_avx512(std::size_t count) noexcept {
    const auto lanes = static_cast<unsigned>((std::min)(count, std::size_t{16}));
    return static_cast<__mmask16>((1U << lanes) - 1U);
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline float
largest_lane_avx512(__m512 values) noexcept {
    const __m256 half = _mm256_max_ps(_mm512_maskz_extractf32x8_ps(0xFF, values, 0),
                                      _mm512_maskz_extractf32x8_ps(0xFF, values, 1));
    __m128 quarter = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
    quarter = _mm_max_ps(quarter, _mm_movehdup_ps(quarter));
    return _mm_cvtss_f32(quarter);
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline float
sum_of_lanes_avx512(__m512 values) noexcept {
    const __m256 half = _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xFF, values, 0),
                                      _mm512_maskz_extractf32x8_ps(0xFF, values, 1));
    __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    quarter = _mm_add_ss(quarter, _mm_movehdup_ps(quarter));
    return _mm_cvtss_f32(quarter);
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush

#endif // KVCRUSH_X86_DISPATCH
