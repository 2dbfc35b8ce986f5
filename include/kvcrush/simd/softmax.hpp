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
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/exp.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/logits.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {

namespace detail {

/// 1 / sum of weights, or 0 where there is no softmax.
[[nodiscard]] inline float inverse_or_zero(double sum) noexcept {
    return sum > 0.0 ? static_cast<float>(1.0 / sum) : 0.0F;
}

} // namespace detail

/// Softmax of rows under way: what is known of one row after some of its tiles.
struct softmax_state {
    /// Largest logit so far.
    float largest = -std::numeric_limits<float>::infinity();
    /// Partial sums of exp(logit - largest).
    std::array<double, 8> sums{};

    /// What turns exp(logit - largest) into a weight; 0 for a row without softmax.
    [[nodiscard]] float inverse_sum() const noexcept {
        const double sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) +
                           ((sums[4] + sums[5]) + (sums[6] + sums[7]));
        return detail::inverse_or_zero(sum);
    }
};

namespace detail {

/// Values added in float before the sum moves on to double: bounds its error however long a row is.
inline constexpr std::size_t softmax_block = 1024;

struct softmax_tile_args {
    float* tile;
    std::size_t num_rows;
    std::size_t count;
    softmax_state* states;
    float* largest;
};

struct add_tile_args {
    const float* tile;
    std::size_t num_rows;
    const float* factors;
    float* sums;
    std::size_t count;
};

inline float row_max_scalar(const float* in, std::size_t size) noexcept {
    float largest = -std::numeric_limits<float>::infinity();
    for (std::size_t i = 0; i < size; ++i) {
        largest = in[i] > largest ? in[i] : largest;
    }
    return largest;
}

/// Replaces logits by exp(logit - largest).
/// @return the sum of the results
inline double exp_row_scalar(float* row, std::size_t size, float largest) noexcept {
    double sum = 0.0;
    for (std::size_t i = 0; i < size; ++i) {
        row[i] = exp_scalar(row[i] - largest);
        sum += static_cast<double>(row[i]);
    }
    return sum;
}

/// out[i] += factor * in[i]
inline void
add_scaled_scalar(const float* in, float factor, float* out, std::size_t size) noexcept {
    for (std::size_t i = 0; i < size; ++i) {
        out[i] += factor * in[i];
    }
}

inline void scale_scalar(float* row, float factor, std::size_t size) noexcept {
    for (std::size_t i = 0; i < size; ++i) {
        row[i] *= factor;
    }
}

inline void softmax_tile_scalar(const softmax_tile_args& args) noexcept {
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        float* const row = args.tile + r * key_tile;
        softmax_state& state = args.states[r];
        const float tile_max = row_max_scalar(row, args.count);
        if (tile_max > state.largest) {
            const double shrink = static_cast<double>(exp_scalar(state.largest - tile_max));
            for (double& sum : state.sums) {
                sum *= shrink;
            }
            state.largest = tile_max;
        }
        state.sums[0] += exp_row_scalar(row, args.count, state.largest);
        std::fill(row + args.count, row + key_tile, 0.0F);
        args.largest[r] = state.largest;
    }
}

inline void add_tile_scalar(const add_tile_args& args) noexcept {
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        add_scaled_scalar(args.tile + r * key_tile, args.factors[r], args.sums, args.count);
    }
}

#if KVCRUSH_X86_DISPATCH

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

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline float largest_lane(__m256 v) noexcept {
    float lanes[8];
    _mm256_storeu_ps(lanes, v);
    return row_max_scalar(lanes, 8);
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline float largest_lane(__m512 v) noexcept {
    float lanes[16];
    _mm512_storeu_ps(lanes, v);
    return row_max_scalar(lanes, 16);
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
    const __m256 x = _mm256_sub_ps(_mm256_maskload_ps(row, lanes), largest);
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
    const __m512 e = exp_avx512(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, row), largest));
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

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

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
