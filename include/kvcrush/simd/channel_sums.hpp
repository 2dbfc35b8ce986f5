// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sums per channel over many rows, from which means and variances follow, the same on every rung:
/// each channel has lanes of its own and takes its rows in order, differences are rounded to float,
/// and the squares of floats are exact in a double, so that fusing multiply and add changes nothing.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// Running sums of some channels; all spans have one entry per channel.
///
///     sum[c]     = sum over rows of x[c]
///     first[c]   = sum over rows of (x[c] - origin[c])
///     second[c]  = sum over rows of (x[c] - origin[c])^2
///     missing[c] = rows whose x[c] is NaN or infinite; the sums pass them over
/// An origin among the values keeps the variance exact where the mean is much larger than the deviation, and makes
/// `second` exactly 0 where all values are equal.
struct channel_sums {
    std::span<const float> origin;
    std::span<double> sum;
    std::span<double> first;
    std::span<double> second;
    std::span<std::uint32_t> missing;
};

namespace detail {

/// Rows that share one load and store of the sums.
inline constexpr std::size_t rows_at_once = 4;

inline void add_channels_scalar(std::span<const float* const> rows,
                                std::size_t begin,
                                std::size_t end,
                                const channel_sums& sums) noexcept {
    for (const float* const row : rows) {
        for (std::size_t c = begin; c < end; ++c) {
            const float value = row[c];
            if (!std::isfinite(value)) {
                ++sums.missing[c];
                continue;
            }
            const float difference = value - sums.origin[c];
            const auto wide = static_cast<double>(difference);
            sums.sum[c] += static_cast<double>(value);
            sums.first[c] += wide;
            sums.second[c] += wide * wide;
        }
    }
}

#if KVCRUSH_X86_DISPATCH

/// All four rows' values of eight channels are finite.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline bool
all_finite_avx2(__m256 a, __m256 b, __m256 c, __m256 d) noexcept {
    const __m256i exponent = _mm256_set1_epi32(0x7F800000);
    const __m256i ab = _mm256_or_si256(
        _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(a), exponent), exponent),
        _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(b), exponent), exponent));
    const __m256i cd = _mm256_or_si256(
        _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(c), exponent), exponent),
        _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(d), exponent), exponent));
    const __m256i any = _mm256_or_si256(ab, cd);
    return _mm256_testz_si256(any, any) != 0;
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void
add_four_avx2(__m128 value, __m128 origin, __m256d& sum, __m256d& first, __m256d& second) noexcept {
    const __m256d difference = _mm256_cvtps_pd(_mm_sub_ps(value, origin));
    sum = _mm256_add_pd(sum, _mm256_cvtps_pd(value));
    first = _mm256_add_pd(first, difference);
    second = _mm256_fmadd_pd(difference, difference, second);
}

KVCRUSH_TARGET_AVX2 inline void add_rows_avx2(std::span<const float* const> rows,
                                              const channel_sums& sums) noexcept {
    const std::size_t num_channels = sums.origin.size();
    std::size_t r = 0;
    for (; r + rows_at_once <= rows.size(); r += rows_at_once) {
        std::size_t c = 0;
        for (; c + 8 <= num_channels; c += 8) {
            const __m256 v0 = _mm256_loadu_ps(rows[r] + c);
            const __m256 v1 = _mm256_loadu_ps(rows[r + 1] + c);
            const __m256 v2 = _mm256_loadu_ps(rows[r + 2] + c);
            const __m256 v3 = _mm256_loadu_ps(rows[r + 3] + c);
            if (!all_finite_avx2(v0, v1, v2, v3)) {
                add_channels_scalar(rows.subspan(r, rows_at_once), c, c + 8, sums);
                continue;
            }
            const __m256 origin = _mm256_loadu_ps(sums.origin.data() + c);
            for (std::size_t half = 0; half < 2; ++half) {
                const std::size_t at = c + 4 * half;
                __m256d sum = _mm256_loadu_pd(sums.sum.data() + at);
                __m256d first = _mm256_loadu_pd(sums.first.data() + at);
                __m256d second = _mm256_loadu_pd(sums.second.data() + at);
                const __m128 from =
                    half == 0 ? _mm256_castps256_ps128(origin) : _mm256_extractf128_ps(origin, 1);
                add_four_avx2(half == 0 ? _mm256_castps256_ps128(v0) : _mm256_extractf128_ps(v0, 1),
                              from,
                              sum,
                              first,
                              second);
                add_four_avx2(half == 0 ? _mm256_castps256_ps128(v1) : _mm256_extractf128_ps(v1, 1),
                              from,
                              sum,
                              first,
                              second);
                add_four_avx2(half == 0 ? _mm256_castps256_ps128(v2) : _mm256_extractf128_ps(v2, 1),
                              from,
                              sum,
                              first,
                              second);
                add_four_avx2(half == 0 ? _mm256_castps256_ps128(v3) : _mm256_extractf128_ps(v3, 1),
                              from,
                              sum,
                              first,
                              second);
                _mm256_storeu_pd(sums.sum.data() + at, sum);
                _mm256_storeu_pd(sums.first.data() + at, first);
                _mm256_storeu_pd(sums.second.data() + at, second);
            }
        }
        add_channels_scalar(rows.subspan(r, rows_at_once), c, num_channels, sums);
    }
    add_channels_scalar(rows.subspan(r), 0, num_channels, sums);
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void add_eight_avx512(
    __m256 value, __m256 origin, __m512d& sum, __m512d& first, __m512d& second) noexcept {
    const __m512d difference = _mm512_maskz_cvtps_pd(0xFF, _mm256_sub_ps(value, origin));
    sum = _mm512_add_pd(sum, _mm512_maskz_cvtps_pd(0xFF, value));
    first = _mm512_add_pd(first, difference);
    second = _mm512_fmadd_pd(difference, difference, second);
}

KVCRUSH_TARGET_AVX512 inline void add_rows_avx512(std::span<const float* const> rows,
                                                  const channel_sums& sums) noexcept {
    const std::size_t num_channels = sums.origin.size();
    std::size_t r = 0;
    for (; r + rows_at_once <= rows.size(); r += rows_at_once) {
        std::size_t c = 0;
        for (; c + 8 <= num_channels; c += 8) {
            const __m256 v0 = _mm256_loadu_ps(rows[r] + c);
            const __m256 v1 = _mm256_loadu_ps(rows[r + 1] + c);
            const __m256 v2 = _mm256_loadu_ps(rows[r + 2] + c);
            const __m256 v3 = _mm256_loadu_ps(rows[r + 3] + c);
            if (!all_finite_avx2(v0, v1, v2, v3)) {
                add_channels_scalar(rows.subspan(r, rows_at_once), c, c + 8, sums);
                continue;
            }
            const __m256 origin = _mm256_loadu_ps(sums.origin.data() + c);
            __m512d sum = _mm512_loadu_pd(sums.sum.data() + c);
            __m512d first = _mm512_loadu_pd(sums.first.data() + c);
            __m512d second = _mm512_loadu_pd(sums.second.data() + c);
            add_eight_avx512(v0, origin, sum, first, second);
            add_eight_avx512(v1, origin, sum, first, second);
            add_eight_avx512(v2, origin, sum, first, second);
            add_eight_avx512(v3, origin, sum, first, second);
            _mm512_storeu_pd(sums.sum.data() + c, sum);
            _mm512_storeu_pd(sums.first.data() + c, first);
            _mm512_storeu_pd(sums.second.data() + c, second);
        }
        add_channels_scalar(rows.subspan(r, rows_at_once), c, num_channels, sums);
    }
    add_channels_scalar(rows.subspan(r), 0, num_channels, sums);
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

/// Adds rows to the sums.
/// @param rows  one pointer per row to as many floats as there are channels; multiples of four rows are fastest
/// @pre   all spans of `sums` have the same size
inline void add_rows(std::span<const float* const> rows,
                     const channel_sums& sums,
                     isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(
        sums.sum.size() == sums.origin.size() && sums.first.size() == sums.origin.size() &&
        sums.second.size() == sums.origin.size() && sums.missing.size() == sums.origin.size());
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::add_rows_avx512(rows, sums);
    case isa::avx2: return detail::add_rows_avx2(rows, sums);
#endif
    default: return detail::add_channels_scalar(rows, 0, sums.origin.size(), sums);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
