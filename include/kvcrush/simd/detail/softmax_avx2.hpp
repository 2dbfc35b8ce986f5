// SPDX-License-Identifier: Apache-2.0
/// @file
/// Softmax, AVX2 rung.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/detail/softmax_scalar.hpp>

#include <cstddef>
#include <limits>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline float largest_lane(__m256 v) noexcept {
    float lanes[8];
    _mm256_storeu_ps(lanes, v);
    return row_max_scalar(lanes, 8);
}

KVCRUSH_TARGET_AVX2 inline float row_max_avx2(const float* in, std::size_t size) noexcept {
    const __m256 lowest = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
    // max returns its second operand where one is NaN: the running maximum never is.
    __m256 a = lowest;
    __m256 b = lowest;
    std::size_t i = 0;
    for (; i + 16 <= size; i += 16) {
        a = _mm256_max_ps(_mm256_loadu_ps(in + i), a);
        b = _mm256_max_ps(_mm256_loadu_ps(in + i + 8), b);
    }
    for (; i < size; i += 8) {
        const __m256i lanes = first_lanes_avx2(size - i);
        const __m256 v = _mm256_maskload_ps(in + i, lanes);
        a = _mm256_max_ps(_mm256_blendv_ps(lowest, v, _mm256_castsi256_ps(lanes)), a);
    }
    return largest_lane(_mm256_max_ps(a, b));
}

/// Running sums of 16 lanes in double.
struct wide_sums_avx2 {
    __m256d s[4];
};

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline double
sum_lanes(const wide_sums_avx2& sums) noexcept {
    double lanes[16];
    _mm256_storeu_pd(lanes, sums.s[0]);
    _mm256_storeu_pd(lanes + 4, sums.s[1]);
    _mm256_storeu_pd(lanes + 8, sums.s[2]);
    _mm256_storeu_pd(lanes + 12, sums.s[3]);
    double sum = 0.0;
    for (const double lane : lanes) {
        sum += lane;
    }
    return sum;
}

/// Replaces 8 logits by exp(logit - largest) and adds the results to sum.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256
exp_step_avx2(float* row, __m256 largest, __m256 sum) noexcept {
    const __m256 e = exp_avx2(_mm256_sub_ps(_mm256_loadu_ps(row), largest));
    _mm256_storeu_ps(row, e);
    return _mm256_add_ps(sum, e);
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256
exp_tail_avx2(float* row, __m256 largest, __m256 sum, std::size_t count) noexcept {
    const __m256i lanes = first_lanes_avx2(count);
    const __m256 x = _mm256_sub_ps(_mm256_maskload_ps(row, lanes),
                                   _mm256_and_ps(largest, _mm256_castsi256_ps(lanes)));
    const __m256 e = _mm256_and_ps(exp_avx2(x), _mm256_castsi256_ps(lanes));
    _mm256_maskstore_ps(row, lanes, e);
    return _mm256_add_ps(sum, e);
}

KVCRUSH_TARGET_AVX2 inline double
exp_row_avx2(float* row, std::size_t size, float largest) noexcept {
    const __m256 top = _mm256_set1_ps(largest);
    const __m256d none = _mm256_setzero_pd();
    wide_sums_avx2 total{{none, none, none, none}};
    for (std::size_t begin = 0; begin < size; begin += softmax_block) {
        const std::size_t end = (std::min)(size, begin + softmax_block);
        __m256 a = _mm256_setzero_ps(); // lanes 0..7 and 8..15, two vectors of 16 in turn
        __m256 b = a;
        __m256 c = a;
        __m256 d = a;
        std::size_t i = begin;
        for (; i + 32 <= end; i += 32) {
            a = exp_step_avx2(row + i, top, a);
            b = exp_step_avx2(row + i + 8, top, b);
            c = exp_step_avx2(row + i + 16, top, c);
            d = exp_step_avx2(row + i + 24, top, d);
        }
        if (i < end) {
            a = exp_tail_avx2(row + i, top, a, end - i);
            if (i + 8 < end) {
                b = exp_tail_avx2(row + i + 8, top, b, end - i - 8);
            }
            if (i + 16 < end) {
                c = exp_tail_avx2(row + i + 16, top, c, end - i - 16);
            }
            if (i + 24 < end) {
                d = exp_tail_avx2(row + i + 24, top, d, end - i - 24);
            }
        }
        a = _mm256_add_ps(a, c);
        b = _mm256_add_ps(b, d);
        total.s[0] = _mm256_add_pd(total.s[0], _mm256_cvtps_pd(_mm256_castps256_ps128(a)));
        total.s[1] = _mm256_add_pd(total.s[1], _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)));
        total.s[2] = _mm256_add_pd(total.s[2], _mm256_cvtps_pd(_mm256_castps256_ps128(b)));
        total.s[3] = _mm256_add_pd(total.s[3], _mm256_cvtps_pd(_mm256_extractf128_ps(b, 1)));
    }
    return sum_lanes(total);
}

KVCRUSH_TARGET_AVX2 inline void
add_scaled_avx2(const float* in, float factor, float* out, std::size_t size) noexcept {
    const __m256 f = _mm256_set1_ps(factor);
    std::size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        _mm256_storeu_ps(out + i,
                         _mm256_fmadd_ps(f, _mm256_loadu_ps(in + i), _mm256_loadu_ps(out + i)));
    }
    if (i < size) {
        const __m256i lanes = first_lanes_avx2(size - i);
        const __m256 sum = _mm256_fmadd_ps(
            f, _mm256_maskload_ps(in + i, lanes), _mm256_maskload_ps(out + i, lanes));
        _mm256_maskstore_ps(out + i, lanes, sum);
    }
}

KVCRUSH_TARGET_AVX2 inline void scale_avx2(float* row, float factor, std::size_t size) noexcept {
    const __m256 f = _mm256_set1_ps(factor);
    std::size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        _mm256_storeu_ps(row + i, _mm256_mul_ps(f, _mm256_loadu_ps(row + i)));
    }
    if (i < size) {
        const __m256i lanes = first_lanes_avx2(size - i);
        _mm256_maskstore_ps(row + i, lanes, _mm256_mul_ps(f, _mm256_maskload_ps(row + i, lanes)));
    }
}

KVCRUSH_TARGET_AVX2 inline void softmax_tile_avx2(const softmax_tile_args& args) noexcept {
    const __m256 lowest = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        float* const row = args.tile + r * key_tile;
        softmax_state& state = args.states[r];
        for (std::size_t i = args.count; i < key_tile; ++i) {
            row[i] = -std::numeric_limits<float>::infinity(); // weighs nothing
        }
        const __m256 known = _mm256_set1_ps(state.largest);
        __m256 top = lowest;
        for (std::size_t i = 0; i < key_tile; i += 8) {
            top = _mm256_max_ps(_mm256_loadu_ps(row + i), top);
        }
        __m256d shrink = _mm256_set1_pd(1.0);
        if (_mm256_movemask_ps(_mm256_cmp_ps(top, known, _CMP_GT_OQ)) != 0) {
            const float largest = largest_lane(top);
            const __m256 ratio = exp_avx2(_mm256_sub_ps(known, _mm256_set1_ps(largest)));
            shrink = _mm256_cvtps_pd(_mm256_castps256_ps128(ratio));
            state.largest = largest;
        }
        const __m256 largest = _mm256_set1_ps(state.largest);
        const __m256 zero = _mm256_setzero_ps();
        __m256 low = exp_step_avx2(row, largest, zero);
        __m256 high = exp_step_avx2(row + 8, largest, zero);
        low = exp_step_avx2(row + 16, largest, low);
        high = exp_step_avx2(row + 24, largest, high);
        __m256 low2 = exp_step_avx2(row + 32, largest, zero);
        __m256 high2 = exp_step_avx2(row + 40, largest, zero);
        low2 = exp_step_avx2(row + 48, largest, low2);
        high2 = exp_step_avx2(row + 56, largest, high2);
        const __m256 sum = _mm256_add_ps(_mm256_add_ps(low, low2), _mm256_add_ps(high, high2));
        double* const sums = state.sums.data();
        _mm256_storeu_pd(sums,
                         _mm256_fmadd_pd(_mm256_loadu_pd(sums),
                                         shrink,
                                         _mm256_cvtps_pd(_mm256_castps256_ps128(sum))));
        _mm256_storeu_pd(sums + 4,
                         _mm256_fmadd_pd(_mm256_loadu_pd(sums + 4),
                                         shrink,
                                         _mm256_cvtps_pd(_mm256_extractf128_ps(sum, 1))));
        args.largest[r] = state.largest;
    }
}

KVCRUSH_TARGET_AVX2 inline void add_tile_avx2(const add_tile_args& args) noexcept {
    for (std::size_t t = 0; t < args.count; t += 16) {
        __m256 a = _mm256_setzero_ps();
        __m256 b = a;
        for (std::size_t r = 0; r < args.num_rows; ++r) {
            const __m256 factor = _mm256_set1_ps(args.factors[r]);
            const float* const row = args.tile + r * key_tile + t;
            a = _mm256_fmadd_ps(factor, _mm256_loadu_ps(row), a);
            b = _mm256_fmadd_ps(factor, _mm256_loadu_ps(row + 8), b);
        }
        const __m256i low = first_lanes_avx2(args.count - t);
        const __m256i high = first_lanes_avx2(args.count - t > 8 ? args.count - t - 8 : 0);
        float* const sums = args.sums + t;
        _mm256_maskstore_ps(sums, low, _mm256_add_ps(_mm256_maskload_ps(sums, low), a));
        _mm256_maskstore_ps(sums + 8, high, _mm256_add_ps(_mm256_maskload_ps(sums + 8, high), b));
    }
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
#endif // KVCRUSH_X86_DISPATCH
