// SPDX-License-Identifier: Apache-2.0
/// @file
/// Writing the indices inside a cut with AVX-512 (vpcompressd) and AVX2 (a table of permutations).
/// Both store whole vectors while there is room for one, so nothing is written behind the last
/// index.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/detail/ordered_key_avx.hpp>
#include <kvcrush/simd/detail/rank_cut_avx2.hpp>
#include <kvcrush/simd/detail/rank_cut_search.hpp>
#include <kvcrush/simd/ordered_key.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// Writes the tokens [begin, end) with a key of `bound` or more from out[num] on.
KVCRUSH_TARGET_AVX512 inline std::size_t write_at_least_avx512(const float* scores,
                                                               std::size_t begin,
                                                               std::size_t end,
                                                               std::uint32_t bound,
                                                               std::span<std::uint32_t> out,
                                                               std::size_t num,
                                                               std::uint32_t offset) noexcept {
    const __m512i bounds = _mm512_set1_epi32(signed_key(bound));
    const __m512i step = _mm512_set1_epi32(16);
    __m512i tokens = _mm512_add_epi32(
        _mm512_set1_epi32(static_cast<int>(offset + static_cast<std::uint32_t>(begin))),
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    std::size_t i = begin;
    for (; i + 16 <= end && num + 16 <= out.size(); i += 16) {
        const __m512i keys = signed_keys_avx512(_mm512_loadu_ps(scores + i));
        const __mmask16 inside = _mm512_cmpge_epi32_mask(keys, bounds);
        _mm512_storeu_si512(out.data() + num, _mm512_maskz_compress_epi32(inside, tokens));
        num += static_cast<std::size_t>(std::popcount(static_cast<unsigned>(inside)));
        tokens = _mm512_add_epi32(tokens, step);
    }
    for (; i < end; i += 16) {
        const __mmask16 lanes = first_lanes_avx512(end - i);
        const __m512i keys = signed_keys_avx512(_mm512_maskz_loadu_ps(lanes, scores + i));
        const __mmask16 inside = _mm512_mask_cmpge_epi32_mask(lanes, keys, bounds);
        const auto count = static_cast<std::size_t>(std::popcount(static_cast<unsigned>(inside)));
        _mm512_mask_storeu_epi32(out.data() + num,
                                 first_lanes_avx512(count),
                                 _mm512_maskz_compress_epi32(inside, tokens));
        num += count;
        tokens = _mm512_add_epi32(tokens, step);
    }
    return num;
}

KVCRUSH_TARGET_AVX512 inline std::size_t write_inside_avx512(std::span<const float> scores,
                                                             rank_cut cut,
                                                             std::span<std::uint32_t> out,
                                                             std::uint32_t offset) noexcept {
    const std::size_t num =
        write_at_least_avx512(scores.data(), 0, cut.tie_end, cut.key, out, 0, offset);
    return write_at_least_avx512(
        scores.data(), cut.tie_end, scores.size(), bound_after_ties(cut), out, num, offset);
}

KVCRUSH_TARGET_AVX2 inline std::size_t write_at_least_avx2(const float* scores,
                                                           std::size_t begin,
                                                           std::size_t end,
                                                           std::uint32_t bound,
                                                           std::span<std::uint32_t> out,
                                                           std::size_t num,
                                                           std::uint32_t offset) noexcept {
    const __m256i bounds = _mm256_set1_epi32(signed_key(bound));
    const __m256i iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    std::size_t i = begin;
    for (; i + 8 <= end && num + 8 <= out.size(); i += 8) {
        const unsigned inside =
            greater_avx2(bounds, signed_keys_avx2(_mm256_loadu_ps(scores + i))) ^ 0xFFU;
        const auto first = static_cast<int>(offset + static_cast<std::uint32_t>(i));
        const __m256i tokens = _mm256_add_epi32(_mm256_set1_epi32(first), iota);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out.data() + num),
                            compress_avx2(tokens, inside));
        num += static_cast<std::size_t>(std::popcount(inside));
    }
    for (; i < end; ++i) {
        if (ordered_key(scores[i]) >= bound) {
            out[num++] = offset + static_cast<std::uint32_t>(i);
        }
    }
    return num;
}

KVCRUSH_TARGET_AVX2 inline std::size_t write_inside_avx2(std::span<const float> scores,
                                                         rank_cut cut,
                                                         std::span<std::uint32_t> out,
                                                         std::uint32_t offset) noexcept {
    const std::size_t num =
        write_at_least_avx2(scores.data(), 0, cut.tie_end, cut.key, out, 0, offset);
    return write_at_least_avx2(
        scores.data(), cut.tie_end, scores.size(), bound_after_ties(cut), out, num, offset);
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
#endif
