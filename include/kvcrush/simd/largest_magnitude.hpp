// SPDX-License-Identifier: Apache-2.0
/// @file
/// The largest magnitude of an array, and with it whether all of it is finite.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/isa.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

// Bits without the sign are in the order of the magnitudes, infinity and then NaN above everything else.
inline constexpr std::uint32_t magnitude_bits = 0x7FFFFFFFU;

inline std::uint32_t largest_magnitude_scalar(const float* x, std::size_t size) noexcept {
    std::uint32_t largest = 0;
    for (std::size_t i = 0; i < size; ++i) {
        const std::uint32_t magnitude = std::bit_cast<std::uint32_t>(x[i]) & magnitude_bits;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

#if KVCRUSH_X86_DISPATCH

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m128i
larger_half_avx2(__m256i magnitudes) noexcept {
    return _mm_max_epi32(_mm256_castsi256_si128(magnitudes),
                         _mm256_extracti128_si256(magnitudes, 1));
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline std::uint32_t
largest_lane_avx2(__m128i magnitudes) noexcept {
    const __m128i two =
        _mm_max_epi32(magnitudes, _mm_shuffle_epi32(magnitudes, _MM_SHUFFLE(1, 0, 3, 2)));
    const __m128i one = _mm_max_epi32(two, _mm_shuffle_epi32(two, _MM_SHUFFLE(2, 3, 0, 1)));
    return static_cast<std::uint32_t>(_mm_cvtsi128_si32(one));
}

KVCRUSH_TARGET_AVX2 inline std::uint32_t largest_magnitude_avx2(const float* x,
                                                                std::size_t size) noexcept {
    const __m256i mask = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i a = _mm256_setzero_si256();
    __m256i b = _mm256_setzero_si256();
    std::size_t i = 0;
    for (; i + 16 <= size; i += 16) {
        const auto* const in = reinterpret_cast<const __m256i*>(x + i);
        a = _mm256_max_epi32(a, _mm256_and_si256(mask, _mm256_loadu_si256(in)));
        b = _mm256_max_epi32(b, _mm256_and_si256(mask, _mm256_loadu_si256(in + 1)));
    }
    for (; i < size; i += 8) {
        const __m256i lanes = first_lanes_avx2(size - i);
        const __m256 rest = _mm256_maskload_ps(x + i, lanes);
        a = _mm256_max_epi32(a, _mm256_and_si256(mask, _mm256_castps_si256(rest)));
    }
    return largest_lane_avx2(larger_half_avx2(_mm256_max_epi32(a, b)));
}

KVCRUSH_TARGET_AVX512 inline std::uint32_t largest_magnitude_avx512(const float* x,
                                                                    std::size_t size) noexcept {
    const __m512i mask = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i a = _mm512_setzero_si512();
    __m512i b = _mm512_setzero_si512();
    std::size_t i = 0;
    for (; i + 32 <= size; i += 32) {
        const __m512i first = _mm512_and_si512(mask, _mm512_loadu_si512(x + i));
        const __m512i second = _mm512_and_si512(mask, _mm512_loadu_si512(x + i + 16));
        a = _mm512_maskz_max_epi32(0xFFFF, a, first);
        b = _mm512_maskz_max_epi32(0xFFFF, b, second);
    }
    for (; i < size; i += 16) {
        const __m512i rest = _mm512_maskz_loadu_epi32(first_lanes_avx512(size - i), x + i);
        a = _mm512_maskz_max_epi32(0xFFFF, a, _mm512_and_si512(mask, rest));
    }
    a = _mm512_maskz_max_epi32(0xFFFF, a, b);
    return largest_lane_avx2(larger_half_avx2(_mm256_max_epi32(
        _mm512_maskz_extracti32x8_epi32(0xFF, a, 0), _mm512_maskz_extracti32x8_epi32(0xFF, a, 1))));
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

/// Largest |x|; NaN if there is one, infinity if there is one and no NaN; 0 for an empty array.
[[nodiscard]] inline float largest_magnitude(std::span<const float> values,
                                             isa at_most = best()) noexcept {
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512:
        return std::bit_cast<float>(detail::largest_magnitude_avx512(values.data(), values.size()));
    case isa::avx2:
        return std::bit_cast<float>(detail::largest_magnitude_avx2(values.data(), values.size()));
#endif
    default:
        return std::bit_cast<float>(detail::largest_magnitude_scalar(values.data(), values.size()));
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
