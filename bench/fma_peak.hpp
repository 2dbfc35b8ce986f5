// SPDX-License-Identifier: Apache-2.0
/// @file
/// How many multiply-adds this core does: the limit for a product of matrices, measured beside it.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstddef>
#include <utility>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush::bench {

/// Sums that no multiply-add waits for: latency times units, and some.
inline constexpr std::size_t peak_sums = 12;
inline constexpr std::size_t peak_rounds = 20000;

/// Operations of one call; a multiply-add counts as two.
[[nodiscard]] constexpr double peak_flop(std::size_t lanes) noexcept {
    return 2.0 * static_cast<double>(peak_rounds * peak_sums * lanes);
}

#if KVCRUSH_X86_DISPATCH
/// Spelt out by the index sequence: sums in an array that a loop walks over would live in memory.
template <std::size_t... Sum>
KVCRUSH_TARGET_AVX512 float fma_peak_avx512(float factor, std::index_sequence<Sum...>) noexcept {
    const __m512 f = _mm512_set1_ps(factor);
    __m512 sums[sizeof...(Sum)];
    ((sums[Sum] = _mm512_add_ps(f, _mm512_set1_ps(static_cast<float>(Sum)))),
     ...); // equal sums would be one
    for (std::size_t i = 0; i < peak_rounds; ++i) {
        ((sums[Sum] = _mm512_fmadd_ps(sums[Sum], f, f)), ...);
    }
    __m512 total = f;
    ((total = _mm512_add_ps(total, sums[Sum])), ...);
    float lanes[16];
    _mm512_storeu_ps(lanes, total);
    return lanes[0];
}

template <std::size_t... Sum>
KVCRUSH_TARGET_AVX2 float fma_peak_avx2(float factor, std::index_sequence<Sum...>) noexcept {
    const __m256 f = _mm256_set1_ps(factor);
    __m256 sums[sizeof...(Sum)];
    ((sums[Sum] = _mm256_add_ps(f, _mm256_set1_ps(static_cast<float>(Sum)))),
     ...); // equal sums would be one
    for (std::size_t i = 0; i < peak_rounds; ++i) {
        ((sums[Sum] = _mm256_fmadd_ps(sums[Sum], f, f)), ...);
    }
    __m256 total = f;
    ((total = _mm256_add_ps(total, sums[Sum])), ...);
    float lanes[8];
    _mm256_storeu_ps(lanes, total);
    return lanes[0];
}
#endif

/// Runs one call of the peak on a rung that multiplies with vectors.
inline float fma_peak(simd::isa rung, float factor) noexcept {
#if KVCRUSH_X86_DISPATCH
    if (rung == simd::isa::avx512) {
        return fma_peak_avx512(factor, std::make_index_sequence<peak_sums>());
    }
    if (rung == simd::isa::avx2) {
        return fma_peak_avx2(factor, std::make_index_sequence<peak_sums>());
    }
#endif
    static_cast<void>(rung);
    return factor;
}

[[nodiscard]] constexpr std::size_t lanes_of(simd::isa rung) noexcept {
    return rung == simd::isa::avx512 ? 16 : rung == simd::isa::avx2 ? 8 : 1;
}

} // namespace kvcrush::bench
