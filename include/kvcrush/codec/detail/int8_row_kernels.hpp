// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rows of int8_row with AVX2 and AVX-512, bit for bit what the scalar code makes of them.
#pragma once

#include <kvcrush/core/finite_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/largest_magnitude.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Smaller scales have too few digits, or no inverse: their rows are divided, one element after the other.
inline constexpr float int8_row_least_scale = 1e-30F;

#if KVCRUSH_X86_DISPATCH

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
int8_row_codes_avx512(__m512 x, __m512 inverse) noexcept {
    return _mm512_maskz_cvtps_epi32(0xFFFF, _mm512_mul_ps(x, inverse));
}

/// Scale and inverse of a row in all lanes.
struct int8_row_scale_avx2 {
    __m128 scale;
    __m128 inverse;
    bool usual; ///< finite, and not tiny

    /// @param magnitudes  bits without signs, of which the largest is that of the row
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline explicit int8_row_scale_avx2(
        __m128i magnitudes) noexcept {
        const __m128i two =
            _mm_max_epi32(magnitudes, _mm_shuffle_epi32(magnitudes, _MM_SHUFFLE(1, 0, 3, 2)));
        const __m128i one = _mm_max_epi32(two, _mm_shuffle_epi32(two, _MM_SHUFFLE(2, 3, 0, 1)));
        scale = _mm_div_ps(_mm_castsi128_ps(one), _mm_set1_ps(127.0F));
        inverse =
            _mm_div_ps(_mm_set1_ps(1.0F), _mm_max_ps(scale, _mm_set1_ps(int8_row_least_scale)));
        usual = static_cast<std::uint32_t>(_mm_cvtsi128_si32(one)) < bits_of_infinity &&
                _mm_comige_ss(scale, _mm_set_ss(int8_row_least_scale)) != 0;
    }
};

/// Scale and codes of a row.
/// @return false, with nothing written, if the row is not finite or its scale tiny
KVCRUSH_TARGET_AVX2 inline bool
int8_row_encode_avx2(const float* x, std::size_t dim, std::byte* out) noexcept {
    const __m256i mask = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i a = _mm256_setzero_si256();
    __m256i b = _mm256_setzero_si256();
    std::size_t i = 0;
    for (; i + 16 <= dim; i += 16) {
        const auto* const in = reinterpret_cast<const __m256i*>(x + i);
        a = _mm256_max_epi32(a, _mm256_and_si256(mask, _mm256_loadu_si256(in)));
        b = _mm256_max_epi32(b, _mm256_and_si256(mask, _mm256_loadu_si256(in + 1)));
    }
    for (; i < dim; i += 8) {
        const __m256i lanes = simd::detail::first_lanes_avx2(dim - i);
        const __m256 rest = _mm256_maskload_ps(x + i, lanes);
        a = _mm256_max_epi32(a, _mm256_and_si256(mask, _mm256_castps_si256(rest)));
    }
    const int8_row_scale_avx2 row(simd::detail::larger_half_avx2(_mm256_max_epi32(a, b)));
    if (!row.usual) {
        return false;
    }
    const float scale = _mm_cvtss_f32(row.scale); // rows need not be aligned
    std::memcpy(out, &scale, sizeof scale);
    out += sizeof(float);
    const __m256 inverse = _mm256_set_m128(row.inverse, row.inverse);
    for (i = 0; i + 32 <= dim; i += 32) {
        __m256i codes[4];
#    pragma GCC unroll 4
        for (std::size_t v = 0; v < 4; ++v) {
            codes[v] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8 * v), inverse));
        }
        const __m256i mixed = _mm256_packs_epi16(_mm256_packs_epi32(codes[0], codes[1]),
                                                 _mm256_packs_epi32(codes[2], codes[3]));
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                            _mm256_permutevar8x32_epi32(mixed, order));
    }
    for (; i < dim; i += 8) {
        const __m256i lanes = simd::detail::first_lanes_avx2(dim - i);
        const __m256i codes =
            _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_maskload_ps(x + i, lanes), inverse));
        const __m128i words =
            _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
        const std::int64_t bytes = _mm_cvtsi128_si64(_mm_packs_epi16(words, words));
        std::memcpy(out + i, &bytes, (std::min)(dim - i, sizeof bytes));
    }
    return true;
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline int8_row_scale_avx2
int8_row_scale_of_avx512(__m512i magnitudes) noexcept {
    return int8_row_scale_avx2(simd::detail::larger_half_avx2(
        _mm256_max_epi32(_mm512_maskz_extracti32x8_epi32(0xFF, magnitudes, 0),
                         _mm512_maskz_extracti32x8_epi32(0xFF, magnitudes, 1))));
}

/// 64 codes, in order.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
int8_row_bytes_avx512(const __m512* x, __m512 inverse) noexcept {
    const __m512i low = _mm512_packs_epi32(int8_row_codes_avx512(x[0], inverse),
                                           int8_row_codes_avx512(x[1], inverse));
    const __m512i high = _mm512_packs_epi32(int8_row_codes_avx512(x[2], inverse),
                                            int8_row_codes_avx512(x[3], inverse));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_maskz_permutexvar_epi32(0xFFFF, order, _mm512_packs_epi16(low, high));
}

/// Rows of 64 * Parts channels, which stay in registers.
template <std::size_t Parts>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline bool
int8_row_encode_short_avx512(const float* x, std::byte* out) noexcept {
    const __m512i mask = _mm512_set1_epi32(0x7FFFFFFF);
    __m512 channels[4 * Parts];
    __m512i largest[4];
#    pragma GCC unroll 8
    for (std::size_t v = 0; v < 4 * Parts; ++v) {
        channels[v] = _mm512_loadu_ps(x + 16 * v);
        const __m512i magnitude = _mm512_and_si512(mask, _mm512_castps_si512(channels[v]));
        largest[v % 4] =
            v < 4 ? magnitude : _mm512_maskz_max_epi32(0xFFFF, largest[v % 4], magnitude);
    }
    const int8_row_scale_avx2 row = int8_row_scale_of_avx512(
        _mm512_maskz_max_epi32(0xFFFF,
                               _mm512_maskz_max_epi32(0xFFFF, largest[0], largest[1]),
                               _mm512_maskz_max_epi32(0xFFFF, largest[2], largest[3])));
    if (!row.usual) {
        return false;
    }
    const float scale = _mm_cvtss_f32(row.scale); // rows need not be aligned
    std::memcpy(out, &scale, sizeof scale);
    const __m512 inverse = _mm512_maskz_broadcastss_ps(0xFFFF, row.inverse);
#    pragma GCC unroll 2
    for (std::size_t p = 0; p < Parts; ++p) {
        _mm512_storeu_si512(out + sizeof(float) + 64 * p,
                            int8_row_bytes_avx512(channels + 4 * p, inverse));
    }
    return true;
}

/// Scale and codes of a row.
/// @return false, with nothing written, if the row is not finite or its scale tiny
KVCRUSH_TARGET_AVX512 inline bool
int8_row_encode_avx512(const float* x, std::size_t dim, std::byte* out) noexcept {
    if (dim == 128) {
        return int8_row_encode_short_avx512<2>(x, out);
    }
    if (dim == 64) {
        return int8_row_encode_short_avx512<1>(x, out);
    }
    const __m512i mask = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i largest = _mm512_setzero_si512();
    std::size_t i = 0;
    for (; i + 16 <= dim; i += 16) {
        largest = _mm512_maskz_max_epi32(
            0xFFFF, largest, _mm512_and_si512(mask, _mm512_loadu_si512(x + i)));
    }
    const __mmask16 lanes = simd::detail::first_lanes_avx512(dim - i);
    const __m512 rest = _mm512_maskz_loadu_ps(lanes, x + i);
    largest =
        _mm512_maskz_max_epi32(0xFFFF, largest, _mm512_and_si512(mask, _mm512_castps_si512(rest)));
    const int8_row_scale_avx2 row = int8_row_scale_of_avx512(largest);
    if (!row.usual) {
        return false;
    }
    const float scale = _mm_cvtss_f32(row.scale); // rows need not be aligned
    std::memcpy(out, &scale, sizeof scale);
    out += sizeof(float);
    const __m512 inverse = _mm512_maskz_broadcastss_ps(0xFFFF, row.inverse);
    for (i = 0; i + 64 <= dim; i += 64) {
        const __m512 channels[4] = {_mm512_loadu_ps(x + i),
                                    _mm512_loadu_ps(x + i + 16),
                                    _mm512_loadu_ps(x + i + 32),
                                    _mm512_loadu_ps(x + i + 48)};
        _mm512_storeu_si512(out + i, int8_row_bytes_avx512(channels, inverse));
    }
    for (; i + 16 <= dim; i += 16) {
        const __m512i codes = int8_row_codes_avx512(_mm512_loadu_ps(x + i), inverse);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                         _mm512_maskz_cvtepi32_epi8(0xFFFF, codes));
    }
    const __m512i codes = int8_row_codes_avx512(rest, inverse);
    _mm_mask_storeu_epi8(out + i, lanes, _mm512_maskz_cvtepi32_epi8(0xFFFF, codes));
    return true;
}

/// @param scale  that of the row
KVCRUSH_TARGET_AVX2 inline void
int8_row_decode_avx2(const std::byte* in, std::size_t dim, float scale, float* out) noexcept {
    const __m256 scales = _mm256_set1_ps(scale);
    std::size_t i = 0;
    for (; i + 8 <= dim; i += 8) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(in + i));
        const __m256 codes = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(scales, codes));
    }
    if (i < dim) {
        std::int64_t rest = 0;
        std::memcpy(&rest, in + i, (std::min)(dim - i, sizeof rest));
        const __m256 codes = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(rest)));
        _mm256_maskstore_ps(
            out + i, simd::detail::first_lanes_avx2(dim - i), _mm256_mul_ps(scales, codes));
    }
}

KVCRUSH_TARGET_AVX512 inline void
int8_row_decode_avx512(const std::byte* in, std::size_t dim, float scale, float* out) noexcept {
    const __m512 scales = _mm512_set1_ps(scale);
    for (std::size_t i = 0; i < dim; i += 16) {
        const __mmask16 lanes = simd::detail::first_lanes_avx512(dim - i);
        const __m128i bytes = _mm_maskz_loadu_epi8(lanes, in + i);
        const __m512 codes =
            _mm512_maskz_cvtepi32_ps(0xFFFF, _mm512_maskz_cvtepi8_epi32(0xFFFF, bytes));
        _mm512_mask_storeu_ps(out + i, lanes, _mm512_mul_ps(scales, codes));
    }
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail
} // namespace v0
} // namespace kvcrush
