// SPDX-License-Identifier: Apache-2.0
/// @file
/// Packing the decisions of heads with AVX2: per head and eight tokens a comparison, which masks
/// the head's bit.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/ordered_key_avx.hpp>
#include <kvcrush/simd/detail/pack_bits_scalar.hpp>
#include <kvcrush/simd/ordered_key.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

struct pack_kernels_avx2 {
    /// decisions[t] |= bit << h where the key of rows[h][t] is at least bounds[h].
    KVCRUSH_TARGET_AVX2 static void mark(const std::array<const float*, heads_at_once>& rows,
                                         const std::array<std::uint32_t, heads_at_once>& bounds,
                                         std::uint32_t bit,
                                         std::size_t num,
                                         std::uint32_t* decisions) noexcept {
        const __m256i bound0 = _mm256_set1_epi32(signed_key(bounds[0]));
        const __m256i bound1 = _mm256_set1_epi32(signed_key(bounds[1]));
        const __m256i bound2 = _mm256_set1_epi32(signed_key(bounds[2]));
        const __m256i bound3 = _mm256_set1_epi32(signed_key(bounds[3]));
        const __m256i bit0 = _mm256_set1_epi32(static_cast<int>(bit));
        const __m256i bit1 = _mm256_add_epi32(bit0, bit0);
        const __m256i bit2 = _mm256_add_epi32(bit1, bit1);
        const __m256i bit3 = _mm256_add_epi32(bit2, bit2);
        std::size_t t = 0;
        for (; t + 8 <= num; t += 8) {
            auto* const out = reinterpret_cast<__m256i*>(decisions + t);
            const __m256i code0 = bit_of(rows[0] + t, bound0, bit0);
            const __m256i code1 = bit_of(rows[1] + t, bound1, bit1);
            const __m256i code2 = bit_of(rows[2] + t, bound2, bit2);
            const __m256i code3 = bit_of(rows[3] + t, bound3, bit3);
            const __m256i codes =
                _mm256_or_si256(_mm256_or_si256(code0, code1), _mm256_or_si256(code2, code3));
            _mm256_storeu_si256(out, _mm256_or_si256(_mm256_loadu_si256(out), codes));
        }
        for (std::size_t h = 0; h < heads_at_once && t < num; ++h) {
            mark_one(rows[h] + t, bounds[h], bit << h, num - t, decisions + t);
        }
    }

    KVCRUSH_TARGET_AVX2 static void mark_one(const float* row,
                                             std::uint32_t bound,
                                             std::uint32_t bit,
                                             std::size_t num,
                                             std::uint32_t* decisions) noexcept {
        const __m256i bounds = _mm256_set1_epi32(signed_key(bound));
        const __m256i bits = _mm256_set1_epi32(static_cast<int>(bit));
        std::size_t t = 0;
        for (; t + 8 <= num; t += 8) {
            auto* const out = reinterpret_cast<__m256i*>(decisions + t);
            _mm256_storeu_si256(
                out, _mm256_or_si256(_mm256_loadu_si256(out), bit_of(row + t, bounds, bits)));
        }
        for (; t < num; ++t) {
            decisions[t] |= ordered_key(row[t]) >= bound ? bit : 0U;
        }
    }

private:
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX2 static __m256i
    bit_of(const float* scores, __m256i bound, __m256i bit) noexcept {
        const __m256i keys = signed_keys_avx2(_mm256_loadu_ps(scores));
        return _mm256_andnot_si256(_mm256_cmpgt_epi32(bound, keys), bit);
    }
};

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
#endif
