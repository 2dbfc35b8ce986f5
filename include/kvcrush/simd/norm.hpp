// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sums of squares in fp32: 32 (scalar: 8) running sums, added pairwise at the end. The vector
/// rungs fuse multiply and add and agree bit for bit. Relative error: at most (size / 32 + 6) *
/// 2^-24 (scalar: size / 8 + 5), every term being positive. NaN and infinities pass through; finite
/// values above 1.8e19 overflow to +inf.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstddef>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7))
inline float sum_of_eight(const float* lanes) noexcept {
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
           ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

inline float squared_norm_scalar(const float* values, std::size_t size) noexcept {
    float lanes[8] = {};
    std::size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        for (std::size_t lane = 0; lane < 8; ++lane) {
            lanes[lane] += values[i + lane] * values[i + lane];
        }
    }
    for (std::size_t lane = 0; i + lane < size; ++lane) {
        lanes[lane] += values[i + lane] * values[i + lane];
    }
    return sum_of_eight(lanes);
}

#if KVCRUSH_X86_DISPATCH

KVCRUSH_TARGET_AVX2 inline float squared_norm_avx2(const float* values, std::size_t size) noexcept {
    __m256 a = _mm256_setzero_ps();
    __m256 b = a;
    __m256 c = a;
    __m256 d = a;
    std::size_t i = 0;
    for (; i + 32 <= size; i += 32) {
        const __m256 v0 = _mm256_loadu_ps(values + i);
        const __m256 v1 = _mm256_loadu_ps(values + i + 8);
        const __m256 v2 = _mm256_loadu_ps(values + i + 16);
        const __m256 v3 = _mm256_loadu_ps(values + i + 24);
        a = _mm256_fmadd_ps(v0, v0, a);
        b = _mm256_fmadd_ps(v1, v1, b);
        c = _mm256_fmadd_ps(v2, v2, c);
        d = _mm256_fmadd_ps(v3, v3, d);
    }
    if (i < size) {
        const std::size_t left = size - i;
        const __m256 v0 = _mm256_maskload_ps(values + i, first_lanes_avx2(left));
        a = _mm256_fmadd_ps(v0, v0, a);
        if (left > 8) {
            const __m256 v1 = _mm256_maskload_ps(values + i + 8, first_lanes_avx2(left - 8));
            b = _mm256_fmadd_ps(v1, v1, b);
        }
        if (left > 16) {
            const __m256 v2 = _mm256_maskload_ps(values + i + 16, first_lanes_avx2(left - 16));
            c = _mm256_fmadd_ps(v2, v2, c);
        }
        if (left > 24) {
            const __m256 v3 = _mm256_maskload_ps(values + i + 24, first_lanes_avx2(left - 24));
            d = _mm256_fmadd_ps(v3, v3, d);
        }
    }
    float lanes[8];
    _mm256_storeu_ps(lanes, _mm256_add_ps(_mm256_add_ps(a, c), _mm256_add_ps(b, d)));
    return sum_of_eight(lanes);
}

KVCRUSH_TARGET_AVX512 inline float squared_norm_avx512(const float* values,
                                                       std::size_t size) noexcept {
    __m512 a = _mm512_setzero_ps();
    __m512 b = a;
    std::size_t i = 0;
    for (; i + 32 <= size; i += 32) {
        const __m512 v0 = _mm512_loadu_ps(values + i);
        const __m512 v1 = _mm512_loadu_ps(values + i + 16);
        a = _mm512_fmadd_ps(v0, v0, a);
        b = _mm512_fmadd_ps(v1, v1, b);
    }
    if (i < size) {
        const std::size_t left = size - i;
        const __m512 v0 = _mm512_maskz_loadu_ps(first_lanes_avx512(left), values + i);
        a = _mm512_fmadd_ps(v0, v0, a);
        if (left > 16) {
            const __m512 v1 = _mm512_maskz_loadu_ps(first_lanes_avx512(left - 16), values + i + 16);
            b = _mm512_fmadd_ps(v1, v1, b);
        }
    }
    float lanes[16];
    _mm512_storeu_ps(lanes, _mm512_add_ps(a, b));
    for (std::size_t lane = 0; lane < 8; ++lane) {
        lanes[lane] += lanes[lane + 8];
    }
    return sum_of_eight(lanes);
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

/// Sum of the squares of all values.
[[nodiscard]] inline float squared_norm(std::span<const float> values,
                                        isa at_most = best()) noexcept {
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::squared_norm_avx512(values.data(), values.size());
    case isa::avx2: return detail::squared_norm_avx2(values.data(), values.size());
#endif
    default: return detail::squared_norm_scalar(values.data(), values.size());
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
