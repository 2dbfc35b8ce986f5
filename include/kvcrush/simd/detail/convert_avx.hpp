// SPDX-License-Identifier: Apache-2.0
/// @file
/// f16 and bf16 to float and back with AVX2, F16C and AVX-512.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// Eight elements of 16 bits.
template <typename T>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256 widen_avx2(__m128i elements) noexcept {
    if constexpr (std::is_same_v<T, f16>) {
        return _mm256_cvtph_ps(elements);
    } else {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(elements), 16));
    }
}

template <typename T>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m128i narrow_avx2(__m256 values) noexcept {
    if constexpr (std::is_same_v<T, f16>) {
        return _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
    } else {
        const __m256i bits = _mm256_castps_si256(values);
        const __m256i upper = _mm256_srli_epi32(bits, 16);
        const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
        const __m256i rounding = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF));
        const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, rounding), 16);
        const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
        const __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF));
        const __m256i nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7F800000));
        const __m256i result = _mm256_blendv_epi8(rounded, quiet, nan);
        return _mm_packus_epi32(_mm256_castsi256_si128(result),
                                _mm256_extracti128_si256(result, 1));
    }
}

template <typename T>
KVCRUSH_TARGET_AVX2 inline void to_float_avx2(const T* in, float* out, std::size_t size) noexcept {
    const std::size_t whole = size / 8 * 8;
    for (std::size_t i = 0; i < whole; i += 8) {
        const __m128i elements = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i));
        _mm256_storeu_ps(out + i, widen_avx2<T>(elements));
    }
    for (std::size_t i = whole; i < size; ++i) {
        out[i] = kvcrush::to_float(in[i]);
    }
}

template <typename T>
KVCRUSH_TARGET_AVX2 inline void
from_float_avx2(const float* in, T* out, std::size_t size) noexcept {
    const std::size_t whole = size / 8 * 8;
    for (std::size_t i = 0; i < whole; i += 8) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                         narrow_avx2<T>(_mm256_loadu_ps(in + i)));
    }
    for (std::size_t i = whole; i < size; ++i) {
        out[i] = kvcrush::from_float<T>(in[i]);
    }
}

/// Sixteen elements of 16 bits.
template <typename T>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512 widen_avx512(__m256i elements) noexcept {
    if constexpr (std::is_same_v<T, f16>) {
        return _mm512_maskz_cvtph_ps(0xFFFF, elements);
    } else {
        const __m512i bits = _mm512_maskz_cvtepu16_epi32(0xFFFF, elements);
        return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xFFFF, bits, 16));
    }
}

template <typename T>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m256i narrow_avx512(__m512 values) noexcept {
    if constexpr (std::is_same_v<T, f16>) {
        return _mm512_maskz_cvtps_ph(0xFFFF, values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    } else {
        const __m512i bits = _mm512_castps_si512(values);
        const __m512i upper = _mm512_maskz_srli_epi32(0xFFFF, bits, 16);
        const __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
        const __m512i rounding = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF));
        const __m512i rounded =
            _mm512_maskz_srli_epi32(0xFFFF, _mm512_add_epi32(bits, rounding), 16);
        const __mmask16 nan = _mm512_fpclass_ps_mask(values, 0x81); // quiet or signalling
        const __m512i result = _mm512_mask_or_epi32(rounded, nan, upper, _mm512_set1_epi32(0x40));
        return _mm512_maskz_cvtepi32_epi16(0xFFFF, result);
    }
}

template <typename T>
KVCRUSH_TARGET_AVX512 inline void
to_float_avx512(const T* in, float* out, std::size_t size) noexcept {
    std::size_t i = 0;
    for (; i + 16 <= size; i += 16) {
        const __m256i elements = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i));
        _mm512_storeu_ps(out + i, widen_avx512<T>(elements));
    }
    if (i < size) {
        const auto rest = static_cast<__mmask16>((1U << (size - i)) - 1U);
        _mm512_mask_storeu_ps(
            out + i, rest, widen_avx512<T>(_mm256_maskz_loadu_epi16(rest, in + i)));
    }
}

template <typename T>
KVCRUSH_TARGET_AVX512 inline void
from_float_avx512(const float* in, T* out, std::size_t size) noexcept {
    std::size_t i = 0;
    for (; i + 16 <= size; i += 16) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                            narrow_avx512<T>(_mm512_loadu_ps(in + i)));
    }
    if (i < size) {
        const auto rest = static_cast<__mmask16>((1U << (size - i)) - 1U);
        _mm256_mask_storeu_epi16(
            out + i, rest, narrow_avx512<T>(_mm512_maskz_loadu_ps(rest, in + i)));
    }
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
#endif
