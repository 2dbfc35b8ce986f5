// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sets of tokens, one bit each: token t is bit t % 64 of word t / 64. An eighth of the memory of
/// flags, and 64 tokens at once in a union or a count.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/bitmap_avx.hpp>
#include <kvcrush/simd/detail/bitmap_scalar.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// Words that a set of `num_tokens` tokens takes.
[[nodiscard]] constexpr std::size_t bitmap_words(std::size_t num_tokens) noexcept {
    return num_tokens / 64 + (num_tokens % 64 != 0 ? 1U : 0U);
}

/// Marks the scores inside a cut.
///
/// @param[in]  scores  fewer than 2^32
/// @param[out] words   [bitmap_words(scores.size())]; bits behind the last score become 0
inline void mark_inside(std::span<const float> scores,
                        rank_cut cut,
                        std::span<std::uint64_t> words,
                        isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(words.size() == bitmap_words(scores.size()));
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::mark_inside_avx512(scores, cut, words);
    case isa::avx2: return detail::mark_inside_avx2(scores, cut, words);
#endif
    default: return detail::mark_inside_scalar(scores, cut, words);
    }
}

/// Writes the marked tokens, ascending, until there are no more or `out` is full.
///
/// @param[out] out     nothing is written behind the last token
/// @param[in]  offset  added to every token: where the set begins in the sequence
/// @return number of tokens written
inline std::size_t write_marked(std::span<const std::uint64_t> words,
                                std::span<std::uint32_t> out,
                                std::uint32_t offset = 0,
                                isa at_most = best()) noexcept {
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::write_marked_avx512(words, out, offset);
    case isa::avx2: return detail::write_marked_avx2(words, out, offset);
#endif
    default: return detail::write_marked_scalar(words, out, offset);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
