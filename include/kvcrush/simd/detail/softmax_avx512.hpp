// SPDX-License-Identifier: Apache-2.0
/// @file
/// Softmax, AVX-512 rung.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/detail/softmax_avx2.hpp>
#include <kvcrush/simd/detail/softmax_scalar.hpp>

#include <cstddef>
#include <limits>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// max(a, b), b where a is NaN.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512 max_avx512(__m512 a, __m512 b) noexcept {
    // The mask of all lanes avoids a warning in GCC 12's own header (gcc.gnu.org/PR105593), here
    // and below.
    return _mm512_maskz_max_ps(0xFFFF, a, b);
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m256 lower_half(__m512 v) noexcept {
    return _mm512_maskz_extractf32x8_ps(0xFF, v, 0);
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m256 upper_half(__m512 v) noexcept {
    return _mm512_maskz_extractf32x8_ps(0xFF, v, 1);
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512d widen_avx512(__m256 v) noexcept {
    return _mm512_maskz_cvtps_pd(0xFF, v);
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline float largest_lane(__m512 v) noexcept {
    float lanes[16];
    _mm512_storeu_ps(lanes, v);
    return row_max_scalar(lanes, 16);
}

KVCRUSH_TARGET_AVX512 inline float row_max_avx512(const float* in, std::size_t size) noexcept {
    const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
    __m512 a = lowest;
    __m512 b = lowest;
    std::size_t i = 0;
    for (; i + 32 <= size; i += 32) {
        a = max_avx512(_mm512_loadu_ps(in + i), a);
        b = max_avx512(_mm512_loadu_ps(in + i + 16), b);
    }
    for (; i < size; i += 16) {
        a = max_avx512(_mm512_mask_loadu_ps(lowest, first_lanes_avx512(size - i), in + i), a);
    }
    return largest_lane(max_avx512(a, b));
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512
exp_step_avx512(float* row, __m512 largest, __m512 sum) noexcept {
    const __m512 e = exp_avx512(_mm512_sub_ps(_mm512_loadu_ps(row), largest));
    _mm512_storeu_ps(row, e);
    return _mm512_add_ps(sum, e);
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512
exp_tail_avx512(float* row, __m512 largest, __m512 sum, std::size_t count) noexcept {
    const __mmask16 lanes = first_lanes_avx512(count);
    const __m512 e =
        exp_avx512(_mm512_maskz_sub_ps(lanes, _mm512_maskz_loadu_ps(lanes, row), largest));
    _mm512_mask_storeu_ps(row, lanes, e);
    return _mm512_mask_add_ps(sum, lanes, sum, e);
}

KVCRUSH_TARGET_AVX512 inline double
exp_row_avx512(float* row, std::size_t size, float largest) noexcept {
    const __m512 top = _mm512_set1_ps(largest);
    __m512d low = _mm512_setzero_pd();
    __m512d high = low;
    for (std::size_t begin = 0; begin < size; begin += softmax_block) {
        const std::size_t end = (std::min)(size, begin + softmax_block);
        __m512 a = _mm512_setzero_ps();
        __m512 b = a;
        std::size_t i = begin;
        for (; i + 32 <= end; i += 32) {
            a = exp_step_avx512(row + i, top, a);
            b = exp_step_avx512(row + i + 16, top, b);
        }
        if (i < end) {
            a = exp_tail_avx512(row + i, top, a, end - i);
            if (i + 16 < end) {
                b = exp_tail_avx512(row + i + 16, top, b, end - i - 16);
            }
        }
        a = _mm512_add_ps(a, b);
        low = _mm512_add_pd(low, widen_avx512(lower_half(a)));
        high = _mm512_add_pd(high, widen_avx512(upper_half(a)));
    }
    double lanes[16];
    _mm512_storeu_pd(lanes, low);
    _mm512_storeu_pd(lanes + 8, high);
    double sum = 0.0;
    for (const double lane : lanes) {
        sum += lane;
    }
    return sum;
}

KVCRUSH_TARGET_AVX512 inline void
add_scaled_avx512(const float* in, float factor, float* out, std::size_t size) noexcept {
    const __m512 f = _mm512_set1_ps(factor);
    std::size_t i = 0;
    for (; i + 16 <= size; i += 16) {
        _mm512_storeu_ps(out + i,
                         _mm512_fmadd_ps(f, _mm512_loadu_ps(in + i), _mm512_loadu_ps(out + i)));
    }
    if (i < size) {
        const __mmask16 lanes = first_lanes_avx512(size - i);
        const __m512 sum = _mm512_fmadd_ps(
            f, _mm512_maskz_loadu_ps(lanes, in + i), _mm512_maskz_loadu_ps(lanes, out + i));
        _mm512_mask_storeu_ps(out + i, lanes, sum);
    }
}

KVCRUSH_TARGET_AVX512 inline void
scale_avx512(float* row, float factor, std::size_t size) noexcept {
    const __m512 f = _mm512_set1_ps(factor);
    for (std::size_t i = 0; i < size; i += 16) {
        const __mmask16 lanes = first_lanes_avx512(size - i);
        _mm512_mask_storeu_ps(
            row + i, lanes, _mm512_mul_ps(f, _mm512_maskz_loadu_ps(lanes, row + i)));
    }
}

KVCRUSH_TARGET_AVX512 inline void softmax_tile_avx512(const softmax_tile_args& args) noexcept {
    const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
    const std::size_t count = args.count;
    const __mmask16 lanes0 = first_lanes_avx512(count);
    const __mmask16 lanes1 = first_lanes_avx512(count > 16 ? count - 16 : 0);
    const __mmask16 lanes2 = first_lanes_avx512(count > 32 ? count - 32 : 0);
    const __mmask16 lanes3 = first_lanes_avx512(count > 48 ? count - 48 : 0);
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        float* const row = args.tile + r * key_tile;
        softmax_state& state = args.states[r];
        const __m512 x0 = _mm512_mask_loadu_ps(lowest, lanes0, row);
        const __m512 x1 = _mm512_mask_loadu_ps(lowest, lanes1, row + 16);
        const __m512 x2 = _mm512_mask_loadu_ps(lowest, lanes2, row + 32);
        const __m512 x3 = _mm512_mask_loadu_ps(lowest, lanes3, row + 48);
        const __m512 known = _mm512_set1_ps(state.largest);
        const __m512 top = max_avx512(x3, max_avx512(x2, max_avx512(x1, max_avx512(x0, lowest))));
        __m512d shrink = _mm512_set1_pd(1.0);
        // After the first tiles a larger logit is rare: only then lanes are searched and sums
        // scaled.
        if (_mm512_cmp_ps_mask(top, known, _CMP_GT_OQ) != 0) {
            const float largest = largest_lane(top);
            const __m512 ratio = exp_avx512(_mm512_sub_ps(known, _mm512_set1_ps(largest)));
            shrink = widen_avx512(lower_half(ratio));
            state.largest = largest;
        }
        const __m512 largest = _mm512_set1_ps(state.largest);
        const __m512 e0 = exp_avx512(_mm512_sub_ps(x0, largest));
        const __m512 e1 = exp_avx512(_mm512_sub_ps(x1, largest));
        const __m512 e2 = exp_avx512(_mm512_sub_ps(x2, largest));
        const __m512 e3 = exp_avx512(_mm512_sub_ps(x3, largest));
        _mm512_storeu_ps(row, e0);
        _mm512_storeu_ps(row + 16, e1);
        _mm512_storeu_ps(row + 32, e2);
        _mm512_storeu_ps(row + 48, e3);
        const __m512 sum16 = _mm512_add_ps(_mm512_add_ps(e0, e1), _mm512_add_ps(e2, e3));
        const __m256 sum8 = _mm256_add_ps(lower_half(sum16), upper_half(sum16));
        double* const sums = state.sums.data();
        _mm512_storeu_pd(sums, _mm512_fmadd_pd(_mm512_loadu_pd(sums), shrink, widen_avx512(sum8)));
        args.largest[r] = state.largest;
    }
}

KVCRUSH_TARGET_AVX512 inline void add_tile_avx512(const add_tile_args& args) noexcept {
    __m512 a = _mm512_setzero_ps();
    __m512 b = a;
    __m512 c = a;
    __m512 d = a;
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        const __m512 factor = _mm512_set1_ps(args.factors[r]);
        const float* const row = args.tile + r * key_tile;
        a = _mm512_fmadd_ps(factor, _mm512_loadu_ps(row), a);
        b = _mm512_fmadd_ps(factor, _mm512_loadu_ps(row + 16), b);
        c = _mm512_fmadd_ps(factor, _mm512_loadu_ps(row + 32), c);
        d = _mm512_fmadd_ps(factor, _mm512_loadu_ps(row + 48), d);
    }
    const __m512 added[4] = {a, b, c, d};
    for (std::size_t t = 0; t < args.count; t += 16) {
        const __mmask16 lanes = first_lanes_avx512(args.count - t);
        float* const sums = args.sums + t;
        _mm512_mask_storeu_ps(
            sums, lanes, _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, sums), added[t / 16]));
    }
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
#endif // KVCRUSH_X86_DISPATCH
