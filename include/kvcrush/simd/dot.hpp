// SPDX-License-Identifier: Apache-2.0
/// @file
/// Dot products of many rows with one vector, and sums of weighted rows, in fp32 and for rows of any element type. The
/// vector rungs fuse multiply and add and agree bit for bit. Error of a dot product: at most (size / 32 + 6) * 2^-24 *
/// sum |row| |with| (scalar: size / 8 + 5); of a weighted sum of n rows: n * 2^-23 * sum |weight| |row|.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/detail/row_products.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

template <typename T>
struct weighted_rows_args {
    const T* const* rows;
    const float* weights;
    std::size_t num_rows;
    std::size_t dim;
    float* out;
};

template <typename T>
void weighted_rows_scalar(const weighted_rows_args<T>& args) noexcept {
    for (std::size_t c = 0; c < args.dim; ++c) {
        args.out[c] = 0.0F;
    }
    for (std::size_t r = 0; r < args.num_rows; ++r) {
        for (std::size_t c = 0; c < args.dim; ++c) {
            args.out[c] += args.weights[r] * kvcrush::to_float(args.rows[r][c]);
        }
    }
}

#if KVCRUSH_X86_DISPATCH

template <typename T>
KVCRUSH_TARGET_AVX2 inline void weighted_rows_avx2(const weighted_rows_args<T>& args) noexcept {
    std::size_t c = 0;
    for (; c + 32 <= args.dim; c += 32) {
        __m256 s0 = _mm256_setzero_ps();
        __m256 s1 = s0;
        __m256 s2 = s0;
        __m256 s3 = s0;
        for (std::size_t r = 0; r < args.num_rows; ++r) {
            const T* const row = args.rows[r] + c;
            const __m256 weight = _mm256_set1_ps(args.weights[r]);
            s0 = _mm256_fmadd_ps(weight, widen_eight_avx2(row), s0);
            s1 = _mm256_fmadd_ps(weight, widen_eight_avx2(row + 8), s1);
            s2 = _mm256_fmadd_ps(weight, widen_eight_avx2(row + 16), s2);
            s3 = _mm256_fmadd_ps(weight, widen_eight_avx2(row + 24), s3);
        }
        _mm256_storeu_ps(args.out + c, s0);
        _mm256_storeu_ps(args.out + c + 8, s1);
        _mm256_storeu_ps(args.out + c + 16, s2);
        _mm256_storeu_ps(args.out + c + 24, s3);
    }
    for (; c < args.dim; c += 8) {
        const std::size_t width = (std::min)(args.dim - c, std::size_t{8});
        __m256 sum = _mm256_setzero_ps();
        for (std::size_t r = 0; r < args.num_rows; ++r) {
            T rest[8] = {};
            std::copy_n(args.rows[r] + c, width, rest);
            sum = _mm256_fmadd_ps(_mm256_set1_ps(args.weights[r]), widen_eight_avx2(rest), sum);
        }
        _mm256_maskstore_ps(args.out + c, first_lanes_avx2(width), sum);
    }
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

/// out[r] = sum over c of rows[r][c] * with[c]
/// @param[in]  rows  one pointer per row to as many elements as `with` has; multiples of four rows are fastest
/// @param[out] out   [rows.size()]
template <Element T>
void dots(std::span<const T* const> rows,
          std::span<const float> with,
          std::span<float> out,
          isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(out.size() == rows.size());
    const detail::row_products_args<T> args{
        rows.data(), rows.size(), with.size(), with.data(), out.data()};
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512:
    case isa::avx2: return detail::row_products_avx2<false>(args);
#endif
    default: return detail::row_products_scalar<false>(args);
    }
}

/// out[c] = sum over r of weights[r] * rows[r][c], rows in ascending order
/// @param[in]  rows     one pointer per row to as many elements as `out` has; fastest while they fit L1
/// @param[in]  weights  [rows.size()]
template <Element T>
void weighted_sum(std::span<const T* const> rows,
                  std::span<const float> weights,
                  std::span<float> out,
                  isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(weights.size() == rows.size());
    const detail::weighted_rows_args<T> args{
        rows.data(), weights.data(), rows.size(), out.size(), out.data()};
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512:
    case isa::avx2: return detail::weighted_rows_avx2(args);
#endif
    default: return detail::weighted_rows_scalar(args);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
