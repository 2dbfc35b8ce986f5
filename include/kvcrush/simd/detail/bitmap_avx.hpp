// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sets of tokens with AVX-512 (comparisons into masks, vpcompressd in a register) and AVX2
/// (vmovmskps, a table of permutations). Whole vectors are stored while there is room for one, so
/// nothing is written behind the last token.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/bitmap_scalar.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/detail/ordered_key_avx.hpp>
#include <kvcrush/simd/detail/rank_cut_avx2.hpp>
#include <kvcrush/simd/detail/rank_cut_search.hpp>

#include <algorithm>
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

/// Words [begin, end), all of them whole, of the tokens with a key of `bound` or more.
KVCRUSH_TARGET_AVX512 inline void mark_at_least_avx512(const float* scores,
                                                       std::size_t begin,
                                                       std::size_t end,
                                                       std::uint32_t bound,
                                                       std::uint64_t* words) noexcept {
    const __m512i bounds = _mm512_set1_epi32(signed_key(bound));
    for (std::size_t w = begin; w < end; ++w) {
        const float* const in = scores + 64 * w;
        const __mmask16 a =
            _mm512_cmpge_epi32_mask(signed_keys_avx512(_mm512_loadu_ps(in)), bounds);
        const __mmask16 b =
            _mm512_cmpge_epi32_mask(signed_keys_avx512(_mm512_loadu_ps(in + 16)), bounds);
        const __mmask16 c =
            _mm512_cmpge_epi32_mask(signed_keys_avx512(_mm512_loadu_ps(in + 32)), bounds);
        const __mmask16 d =
            _mm512_cmpge_epi32_mask(signed_keys_avx512(_mm512_loadu_ps(in + 48)), bounds);
        words[w] = _mm512_kunpackd(_mm512_kunpackw(d, c), _mm512_kunpackw(b, a));
    }
}

KVCRUSH_TARGET_AVX2 inline void mark_at_least_avx2(const float* scores,
                                                   std::size_t begin,
                                                   std::size_t end,
                                                   std::uint32_t bound,
                                                   std::uint64_t* words) noexcept {
    const __m256i bounds = _mm256_set1_epi32(signed_key(bound));
    for (std::size_t w = begin; w < end; ++w) {
        std::uint64_t below = 0;
        for (std::size_t t = 0; t < 64; t += 8) {
            const __m256i keys = signed_keys_avx2(_mm256_loadu_ps(scores + 64 * w + t));
            below |= std::uint64_t{greater_avx2(bounds, keys)} << t;
        }
        words[w] = ~below;
    }
}

/// Where the words before the last of the equal scores end, and where those after it begin.
struct words_of_cut {
    std::size_t before_end;
    std::size_t after_begin;
    std::size_t whole_end; ///< whole words in all

    constexpr words_of_cut(std::size_t num_scores, rank_cut cut) noexcept
        : before_end{(std::min)(num_scores, cut.tie_end) / 64},
          after_begin{((std::min)(num_scores, cut.tie_end) + 63) / 64},
          whole_end{num_scores / 64} {}
};

KVCRUSH_TARGET_AVX512 inline void mark_inside_avx512(std::span<const float> scores,
                                                     rank_cut cut,
                                                     std::span<std::uint64_t> words) noexcept {
    const words_of_cut part(scores.size(), cut);
    const float* const in = scores.data();
    mark_at_least_avx512(in, 0, part.before_end, cut.key, words.data());
    mark_at_least_avx512(in, part.after_begin, part.whole_end, bound_after_ties(cut), words.data());
    if (part.before_end < (std::min)(part.after_begin, words.size())) {
        words[part.before_end] = word_inside(scores, cut, part.before_end);
    }
    if (part.whole_end < words.size()) {
        words[part.whole_end] = word_inside(scores, cut, part.whole_end);
    }
}

KVCRUSH_TARGET_AVX2 inline void mark_inside_avx2(std::span<const float> scores,
                                                 rank_cut cut,
                                                 std::span<std::uint64_t> words) noexcept {
    const words_of_cut part(scores.size(), cut);
    const float* const in = scores.data();
    mark_at_least_avx2(in, 0, part.before_end, cut.key, words.data());
    mark_at_least_avx2(in, part.after_begin, part.whole_end, bound_after_ties(cut), words.data());
    if (part.before_end < (std::min)(part.after_begin, words.size())) {
        words[part.before_end] = word_inside(scores, cut, part.before_end);
    }
    if (part.whole_end < words.size()) {
        words[part.whole_end] = word_inside(scores, cut, part.whole_end);
    }
}

KVCRUSH_TARGET_AVX512 inline std::size_t write_marked_avx512(std::span<const std::uint64_t> words,
                                                             std::span<std::uint32_t> out,
                                                             std::uint32_t offset) noexcept {
    const __m512i iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    std::size_t num = 0;
    std::size_t w = 0;
    for (; w < words.size() && num + 64 <= out.size(); ++w) {
        __m512i tokens = _mm512_add_epi32(
            _mm512_set1_epi32(static_cast<int>(offset + static_cast<std::uint32_t>(64 * w))), iota);
        for (std::uint64_t left = words[w]; left != 0; left >>= 16) {
            const auto lanes = static_cast<__mmask16>(left);
            _mm512_storeu_si512(out.data() + num, _mm512_maskz_compress_epi32(lanes, tokens));
            num += static_cast<std::size_t>(std::popcount(unsigned{lanes}));
            tokens = _mm512_add_epi32(tokens, _mm512_set1_epi32(16));
        }
    }
    for (; w < words.size(); ++w) {
        num = write_word(words[w], offset + static_cast<std::uint32_t>(64 * w), out, num);
    }
    return num;
}

KVCRUSH_TARGET_AVX2 inline std::size_t write_marked_avx2(std::span<const std::uint64_t> words,
                                                         std::span<std::uint32_t> out,
                                                         std::uint32_t offset) noexcept {
    const __m256i iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    std::size_t num = 0;
    std::size_t w = 0;
    for (; w < words.size() && num + 64 <= out.size(); ++w) {
        __m256i tokens = _mm256_add_epi32(
            _mm256_set1_epi32(static_cast<int>(offset + static_cast<std::uint32_t>(64 * w))), iota);
        for (std::uint64_t left = words[w]; left != 0; left >>= 8) {
            const auto lanes = static_cast<unsigned>(left & 0xFFU);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out.data() + num),
                                compress_avx2(tokens, lanes));
            num += static_cast<std::size_t>(std::popcount(lanes));
            tokens = _mm256_add_epi32(tokens, _mm256_set1_epi32(8));
        }
    }
    for (; w < words.size(); ++w) {
        num = write_word(words[w], offset + static_cast<std::uint32_t>(64 * w), out, num);
    }
    return num;
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
#endif
