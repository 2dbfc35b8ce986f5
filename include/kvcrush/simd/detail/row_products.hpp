// SPDX-License-Identifier: Apache-2.0
/// @file
/// Dot products of many rows with themselves or with one vector, rows of any element type: 32 (scalar: 8) running sums
/// per row, added pairwise at the end. AVX2 fuses multiply and add.
///
/// There is no rung for AVX-512: its conversion from f16 is no faster, and rows of float arrive from DRAM more slowly
/// with loads of 64 bytes (0.6 of the speed, Zen 4; elsewhere within 10 %).
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/detail/convert_avx.hpp>
#include <kvcrush/simd/detail/lanes.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

template <typename T>
struct row_products_args {
    const T* const* rows;
    std::size_t num_rows;
    std::size_t dim;
    const float* with; ///< ignored where rows meet themselves
    float* out;
};

/// ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7))
inline float sum_of_eight(const float* lanes) noexcept {
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
           ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/// @tparam Squares  rows meet themselves
template <bool Squares, typename T>
float row_product_scalar(const T* row, const float* with, std::size_t dim) noexcept {
    float lanes[8] = {};
    for (std::size_t i = 0; i < dim; i += 8) {
        const std::size_t width = (std::min)(dim - i, std::size_t{8});
        for (std::size_t lane = 0; lane < width; ++lane) {
            const float value = kvcrush::to_float(row[i + lane]);
            lanes[lane] += value * (Squares ? value : with[i + lane]);
        }
    }
    return sum_of_eight(lanes);
}

template <bool Squares, typename T>
void row_products_scalar(const row_products_args<T>& args) noexcept {
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        args.out[r] = row_product_scalar<Squares>(args.rows[r], args.with, args.dim);
    }
}

#if KVCRUSH_X86_DISPATCH

template <typename T>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256 widen_eight_avx2(const T* from) noexcept {
    if constexpr (std::is_same_v<T, float>) {
        return _mm256_loadu_ps(from);
    } else {
        return widen_avx2<T>(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }
}

template <bool Squares>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256
add_product_avx2(__m256 value, const float* with, std::size_t offset, __m256 sum) noexcept {
    if constexpr (Squares) {
        return _mm256_fmadd_ps(value, value, sum);
    } else {
        return _mm256_fmadd_ps(value, _mm256_loadu_ps(with + offset), sum);
    }
}

/// Lanes i + 4 already added to lanes i.
template <bool Squares, typename T>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m128
four_sums_avx2(const T* row, const float* with, std::size_t dim) noexcept {
    __m256 a = _mm256_setzero_ps();
    __m256 b = a;
    __m256 c = a;
    __m256 d = a;
    std::size_t i = 0;
    for (; i + 32 <= dim; i += 32) {
        a = add_product_avx2<Squares>(widen_eight_avx2(row + i), with, i, a);
        b = add_product_avx2<Squares>(widen_eight_avx2(row + i + 8), with, i + 8, b);
        c = add_product_avx2<Squares>(widen_eight_avx2(row + i + 16), with, i + 16, c);
        d = add_product_avx2<Squares>(widen_eight_avx2(row + i + 24), with, i + 24, d);
    }
    const bool half = i + 16 <= dim;
    if (half) {
        a = add_product_avx2<Squares>(widen_eight_avx2(row + i), with, i, a);
        b = add_product_avx2<Squares>(widen_eight_avx2(row + i + 8), with, i + 8, b);
        i += 16;
    }
    if (i < dim) { // the rest, with zeros behind it
        T rest[16] = {};
        float others[16] = {};
        std::copy_n(row + i, dim - i, rest);
        if constexpr (!Squares) {
            std::copy_n(with + i, dim - i, others);
        }
        __m256& first = half ? c : a;
        __m256& second = half ? d : b;
        first = add_product_avx2<Squares>(widen_eight_avx2(rest), others, 0, first);
        second = add_product_avx2<Squares>(widen_eight_avx2(rest + 8), others, 8, second);
    }
    const __m256 sum = _mm256_add_ps(_mm256_add_ps(a, c), _mm256_add_ps(b, d));
    return _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
}

/// The four sums of four rows, each row's lanes added in the order of sum_of_eight.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m128
sums_of_rows_avx2(__m128 x0, __m128 x1, __m128 x2, __m128 x3) noexcept {
    const __m128 lo01 = _mm_unpacklo_ps(x0, x1);
    const __m128 lo23 = _mm_unpacklo_ps(x2, x3);
    const __m128 hi01 = _mm_unpackhi_ps(x0, x1);
    const __m128 hi23 = _mm_unpackhi_ps(x2, x3);
    const __m128 even = _mm_add_ps(_mm_movelh_ps(lo01, lo23), _mm_movelh_ps(hi01, hi23));
    const __m128 odd = _mm_add_ps(_mm_movehl_ps(lo23, lo01), _mm_movehl_ps(hi23, hi01));
    return _mm_add_ps(even, odd);
}

template <bool Squares, typename T>
KVCRUSH_TARGET_AVX2 inline void row_products_avx2(const row_products_args<T>& args) noexcept {
    std::size_t r = 0;
    for (; r + 4 <= args.num_rows; r += 4) {
        const __m128 x0 = four_sums_avx2<Squares>(args.rows[r], args.with, args.dim);
        const __m128 x1 = four_sums_avx2<Squares>(args.rows[r + 1], args.with, args.dim);
        const __m128 x2 = four_sums_avx2<Squares>(args.rows[r + 2], args.with, args.dim);
        const __m128 x3 = four_sums_avx2<Squares>(args.rows[r + 3], args.with, args.dim);
        _mm_storeu_ps(args.out + r, sums_of_rows_avx2(x0, x1, x2, x3));
    }
    for (; r < args.num_rows; ++r) {
        const __m128 x = four_sums_avx2<Squares>(args.rows[r], args.with, args.dim);
        args.out[r] = _mm_cvtss_f32(sums_of_rows_avx2(x, x, x, x));
    }
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
