// SPDX-License-Identifier: Apache-2.0
/// @file
/// How many products of bf16 pairs this core does: the limit for a product of bf16 matrices, measured beside it.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/isa.hpp>

#include "fma_peak.hpp"

#include <cstddef>
#include <utility>

namespace kvcrush::bench {

/// Operations of one call: each lane multiplies two channels and adds both products.
[[nodiscard]] constexpr double bf16_peak_flop() noexcept {
    return 2.0 * peak_flop(lanes_of(simd::isa::avx512));
}

#if KVCRUSH_X86_DISPATCH
/// As fma_peak_avx512, with as many sums: vdpbf16ps has a longer latency but no more units.
template <std::size_t... Sum>
KVCRUSH_TARGET_AVX512_BF16 float dot_peak_bf16(float factor, std::index_sequence<Sum...>) noexcept {
    const __m512 f = _mm512_set1_ps(factor);
    const auto pairs = reinterpret_cast<__m512bh>(f);
    __m512 sums[sizeof...(Sum)];
    ((sums[Sum] = _mm512_add_ps(f, _mm512_set1_ps(static_cast<float>(Sum)))),
     ...); // equal sums would be one
    for (std::size_t i = 0; i < peak_rounds; ++i) {
        ((sums[Sum] = _mm512_dpbf16_ps(sums[Sum], pairs, pairs)), ...);
    }
    __m512 total = f;
    ((total = _mm512_add_ps(total, sums[Sum])), ...);
    float lanes[16];
    _mm512_storeu_ps(lanes, total);
    return lanes[0];
}
#endif

/// Runs one call of the peak.
/// @pre   simd::has_bf16()
inline float bf16_peak(float factor) noexcept {
#if KVCRUSH_X86_DISPATCH
    return dot_peak_bf16(factor, std::make_index_sequence<peak_sums>());
#else
    return factor;
#endif
}

} // namespace kvcrush::bench
