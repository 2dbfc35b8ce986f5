// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sums of squares in fp32: 32 (scalar: 8) running sums, added pairwise at the end. The vector
/// rungs fuse multiply and add and agree bit for bit. Relative error: at most (size / 32 + 6) *
/// 2^-24 (scalar: size / 8 + 5), every term being positive. NaN and infinities pass through; finite
/// values above 1.8e19 overflow to +inf.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/detail/row_products.hpp>
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

/// Sums of the squares of many rows of elements.
/// @param[in]  rows  one pointer per row to `dim` elements; multiples of four rows are fastest
/// @param[out] out   [rows.size()]
template <Element T>
void squared_norms(std::span<const T* const> rows,
                   std::size_t dim,
                   std::span<float> out,
                   isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(out.size() == rows.size());
    const detail::row_products_args<T> args{rows.data(), rows.size(), dim, nullptr, out.data()};
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512:
    case isa::avx2: return detail::row_products_avx2<true>(args);
#endif
    default: return detail::row_products_scalar<true>(args);
    }
}

/// Sum of the squares of all values, the same as squared_norms gives.
[[nodiscard]] inline float squared_norm(std::span<const float> values,
                                        isa at_most = best()) noexcept {
    const float* const row = values.data();
    float sum = 0.0F;
    squared_norms<float>({&row, 1}, values.size(), {&sum, 1}, at_most);
    return sum;
}

namespace detail {

inline void scale_roots_scalar(float* values, std::size_t size, float factor) noexcept {
    for (std::size_t i = 0; i < size; ++i) {
        values[i] = factor * std::sqrt(values[i]);
    }
}

#if KVCRUSH_X86_DISPATCH

KVCRUSH_TARGET_AVX2 inline void
scale_roots_avx2(float* values, std::size_t size, float factor) noexcept {
    const __m256 by = _mm256_set1_ps(factor);
    std::size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        const __m256 root = _mm256_sqrt_ps(_mm256_loadu_ps(values + i));
        _mm256_storeu_ps(values + i, _mm256_mul_ps(by, root));
    }
    scale_roots_scalar(values + i, size - i, factor);
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

/// Replaces each value by factor * its square root, rounded as by std::sqrt: norms of squared norms.
inline void
scale_roots(std::span<float> values, float factor = 1.0F, isa at_most = best()) noexcept {
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512:
    case isa::avx2: return detail::scale_roots_avx2(values.data(), values.size(), factor);
#endif
    default: return detail::scale_roots_scalar(values.data(), values.size(), factor);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
