// SPDX-License-Identifier: Apache-2.0
/// @file
/// ordered_key for a vector of scores, minus 2^31: signed comparisons then order them, which AVX2
/// has and unsigned ones it has not.
#pragma once

#include <kvcrush/config.hpp>

#include <cstdint>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// A key as the vectors below hold it.
[[nodiscard]] constexpr int signed_key(std::uint32_t key) noexcept {
    return static_cast<int>(key ^ 0x80000000U);
}

[[nodiscard]] constexpr std::uint32_t unsigned_key(int key) noexcept {
    return static_cast<std::uint32_t>(key) ^ 0x80000000U;
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i signed_keys_avx2(__m256 scores) noexcept {
    const __m256i bits = _mm256_castps_si256(scores);
    const __m256i magnitude = _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF));
    const __m256i negative = _mm256_srai_epi32(bits, 31);
    const __m256i keys = _mm256_sub_epi32(_mm256_xor_si256(magnitude, negative), negative);
    const __m256i nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7F800000));
    return _mm256_blendv_epi8(keys, _mm256_set1_epi32(signed_key(0)), nan);
}

/// Bit l: left[l] > right[l].
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline unsigned greater_avx2(__m256i left,
                                                                        __m256i right) noexcept {
    return static_cast<unsigned>(
        _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(left, right))));
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
signed_keys_avx512(__m512 scores) noexcept {
    const __m512i bits = _mm512_castps_si512(scores);
    const __m512i negative = _mm512_maskz_srai_epi32(0xFFFF, bits, 31);
    // (bits and 0x7FFFFFFF) xor negative
    const __m512i flipped =
        _mm512_ternarylogic_epi32(bits, _mm512_set1_epi32(0x7FFFFFFF), negative, 0x6A);
    // 0x81: quiet or signalling NaN. Unlike a comparison, vfpclassps raises no floating-point
    // exception.
    const __mmask16 nan = _mm512_fpclass_ps_mask(scores, 0x81);
    return _mm512_mask_mov_epi32(
        _mm512_sub_epi32(flipped, negative), nan, _mm512_set1_epi32(signed_key(0)));
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
#endif
