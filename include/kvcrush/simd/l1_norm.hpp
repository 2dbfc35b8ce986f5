// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sums of magnitudes in fp32: 32 running sums, added pairwise at the end, in the same order on every rung, which
/// therefore agree bit for bit. Relative error: at most (size / 32 + 5) * 2^-24, every term being positive. NaN and
/// infinities pass through.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cmath>
#include <cstddef>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

inline float l1_lane_sum(const float* lanes) noexcept {
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
           ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

inline float l1_norm_scalar(const float* values, std::size_t size) noexcept {
    float lanes[32] = {};
    std::size_t i = 0;
    for (; i + 32 <= size; i += 32) {
        for (std::size_t lane = 0; lane < 32; ++lane) {
            lanes[lane] += std::fabs(values[i + lane]);
        }
    }
    for (std::size_t lane = 0; i + lane < size; ++lane) {
        lanes[lane] += std::fabs(values[i + lane]);
    }
    for (std::size_t lane = 0; lane < 16; ++lane) {
        lanes[lane] += lanes[lane + 16];
    }
    for (std::size_t lane = 0; lane < 8; ++lane) {
        lanes[lane] += lanes[lane + 8];
    }
    return l1_lane_sum(lanes);
}

#if KVCRUSH_X86_DISPATCH

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256 l1_terms(__m256 v) noexcept {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), v);
}

KVCRUSH_TARGET_AVX2 inline float l1_norm_avx2(const float* values, std::size_t size) noexcept {
    __m256 a = _mm256_setzero_ps();
    __m256 b = a;
    __m256 c = a;
    __m256 d = a;
    std::size_t i = 0;
    for (; i + 32 <= size; i += 32) {
        a = _mm256_add_ps(a, l1_terms(_mm256_loadu_ps(values + i)));
        b = _mm256_add_ps(b, l1_terms(_mm256_loadu_ps(values + i + 8)));
        c = _mm256_add_ps(c, l1_terms(_mm256_loadu_ps(values + i + 16)));
        d = _mm256_add_ps(d, l1_terms(_mm256_loadu_ps(values + i + 24)));
    }
    if (i < size) {
        const std::size_t left = size - i;
        a = _mm256_add_ps(a, l1_terms(_mm256_maskload_ps(values + i, first_lanes_avx2(left))));
        if (left > 8) {
            const __m256i lanes = first_lanes_avx2(left - 8);
            b = _mm256_add_ps(b, l1_terms(_mm256_maskload_ps(values + i + 8, lanes)));
        }
        if (left > 16) {
            const __m256i lanes = first_lanes_avx2(left - 16);
            c = _mm256_add_ps(c, l1_terms(_mm256_maskload_ps(values + i + 16, lanes)));
        }
        if (left > 24) {
            const __m256i lanes = first_lanes_avx2(left - 24);
            d = _mm256_add_ps(d, l1_terms(_mm256_maskload_ps(values + i + 24, lanes)));
        }
    }
    float lanes[8];
    _mm256_storeu_ps(lanes, _mm256_add_ps(_mm256_add_ps(a, c), _mm256_add_ps(b, d)));
    return l1_lane_sum(lanes);
}

KVCRUSH_TARGET_AVX512 inline float l1_norm_avx512(const float* values, std::size_t size) noexcept {
    __m512 a = _mm512_setzero_ps();
    __m512 b = a;
    std::size_t i = 0;
    for (; i + 32 <= size; i += 32) {
        a = _mm512_add_ps(a, _mm512_abs_ps(_mm512_loadu_ps(values + i)));
        b = _mm512_add_ps(b, _mm512_abs_ps(_mm512_loadu_ps(values + i + 16)));
    }
    if (i < size) {
        const std::size_t left = size - i;
        const __mmask16 lanes = first_lanes_avx512(left);
        a = _mm512_add_ps(a, _mm512_abs_ps(_mm512_maskz_loadu_ps(lanes, values + i)));
        if (left > 16) {
            const __mmask16 more = first_lanes_avx512(left - 16);
            b = _mm512_add_ps(b, _mm512_abs_ps(_mm512_maskz_loadu_ps(more, values + i + 16)));
        }
    }
    float lanes[16];
    _mm512_storeu_ps(lanes, _mm512_add_ps(a, b));
    for (std::size_t lane = 0; lane < 8; ++lane) {
        lanes[lane] += lanes[lane + 8];
    }
    return l1_lane_sum(lanes);
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

/// Sum of the magnitudes of all values.
[[nodiscard]] inline float l1_norm(std::span<const float> values, isa at_most = best()) noexcept {
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::l1_norm_avx512(values.data(), values.size());
    case isa::avx2: return detail::l1_norm_avx2(values.data(), values.size());
#endif
    default: return detail::l1_norm_scalar(values.data(), values.size());
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
