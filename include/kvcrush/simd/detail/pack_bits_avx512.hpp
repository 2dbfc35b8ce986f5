// SPDX-License-Identifier: Apache-2.0
/// @file
/// Packing the decisions of heads with AVX-512: per head and 16 tokens a comparison into a mask and
/// a masked or.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/detail/ordered_key_avx.hpp>
#include <kvcrush/simd/detail/pack_bits_scalar.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

struct pack_kernels_avx512 {
    /// decisions[t] |= bit << h where the key of rows[h][t] is at least bounds[h].
    KVCRUSH_TARGET_AVX512 static void mark(const std::array<const float*, heads_at_once>& rows,
                                           const std::array<std::uint32_t, heads_at_once>& bounds,
                                           std::uint32_t bit,
                                           std::size_t num,
                                           std::uint32_t* decisions) noexcept {
        const __m512i bound0 = _mm512_set1_epi32(signed_key(bounds[0]));
        const __m512i bound1 = _mm512_set1_epi32(signed_key(bounds[1]));
        const __m512i bound2 = _mm512_set1_epi32(signed_key(bounds[2]));
        const __m512i bound3 = _mm512_set1_epi32(signed_key(bounds[3]));
        const __m512i bit0 = _mm512_set1_epi32(static_cast<int>(bit));
        const __m512i bit1 = _mm512_add_epi32(bit0, bit0);
        const __m512i bit2 = _mm512_add_epi32(bit1, bit1);
        const __m512i bit3 = _mm512_add_epi32(bit2, bit2);
        std::size_t t = 0;
        for (; t + 16 <= num; t += 16) {
            __m512i code = _mm512_loadu_si512(decisions + t);
            code = _mm512_mask_or_epi32(
                code, reaches(_mm512_loadu_ps(rows[0] + t), bound0), code, bit0);
            code = _mm512_mask_or_epi32(
                code, reaches(_mm512_loadu_ps(rows[1] + t), bound1), code, bit1);
            code = _mm512_mask_or_epi32(
                code, reaches(_mm512_loadu_ps(rows[2] + t), bound2), code, bit2);
            code = _mm512_mask_or_epi32(
                code, reaches(_mm512_loadu_ps(rows[3] + t), bound3), code, bit3);
            _mm512_storeu_si512(decisions + t, code);
        }
        for (std::size_t h = 0; h < heads_at_once && t < num; ++h) {
            mark_one(rows[h] + t, bounds[h], bit << h, num - t, decisions + t);
        }
    }

    KVCRUSH_TARGET_AVX512 static void mark_one(const float* row,
                                               std::uint32_t bound,
                                               std::uint32_t bit,
                                               std::size_t num,
                                               std::uint32_t* decisions) noexcept {
        const __m512i bounds = _mm512_set1_epi32(signed_key(bound));
        const __m512i bits = _mm512_set1_epi32(static_cast<int>(bit));
        for (std::size_t t = 0; t < num; t += 16) {
            const __mmask16 lanes = first_lanes_avx512(num - t);
            const __mmask16 inside = reaches(_mm512_maskz_loadu_ps(lanes, row + t), bounds);
            const __m512i code = _mm512_maskz_loadu_epi32(lanes, decisions + t);
            _mm512_mask_storeu_epi32(
                decisions + t, lanes, _mm512_mask_or_epi32(code, inside, code, bits));
        }
    }

private:
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static __mmask16 reaches(__m512 scores,
                                                                          __m512i bound) noexcept {
        return _mm512_cmpge_epi32_mask(signed_keys_avx512(scores), bound);
    }
};

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
#endif
