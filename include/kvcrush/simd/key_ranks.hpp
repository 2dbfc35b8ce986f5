// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tokens of given ranks in the order of (key, index), without sorting: a histogram tells which key
/// a rank falls on, and the tokens with that key are counted until it comes up.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/bitmap.hpp>
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/detail/key_ranks_avx512.hpp>
#include <kvcrush/simd/detail/key_ranks_scalar.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// Counts how often each key occurs among the tokens that are not `taken`.
///
/// @param[in]  keys    [tokens], each below `counts.size()`; fewer than 2^32
/// @param[in]  taken   [bitmap_words(keys.size())], 0 for candidates
/// @param[out] counts  one entry per possible key
template <Distance Key>
void count_keys(std::span<const Key> keys,
                std::span<const std::uint64_t> taken,
                std::span<std::uint32_t> counts,
                isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(taken.size() == bitmap_words(keys.size()));
    if constexpr (std::is_same_v<Key, std::uint8_t>) {
        switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
        case isa::avx512: return detail::count_keys_avx512(keys, taken, counts);
#endif
        default: break;
        }
    }
    detail::count_keys_scalar(keys, taken, counts);
}

/// Marks the candidates of some ranks. The candidates with key k hold the ranks from begins[k] on,
/// in the order of their indices; keys may follow each other in any order.
///
/// @param[in] keys    [tokens], each below `counts.size()`; fewer than 2^32
/// @param[in] taken   [bitmap_words(keys.size())], 0 for candidates
/// @param[in] begins  [counts.size()], the first rank of each key
/// @param[in] counts  candidates with each key, as count_keys gives them
/// @param[in] ranks   ascending, each once, each below the number of candidates
/// @param     marked  [bitmap_words(keys.size())]; bits of wanted tokens are set, others stay
/// @pre   counts.size() <= 4097
/// @note  linear in tokens and ranks; 40 KB of stack at most, no other memory
template <Distance Key>
void mark_ranks(std::span<const Key> keys,
                std::span<const std::uint64_t> taken,
                std::span<const std::uint32_t> begins,
                std::span<const std::uint32_t> counts,
                std::span<const std::uint32_t> ranks,
                std::span<std::uint64_t> marked,
                isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(taken.size() == bitmap_words(keys.size()) && marked.size() == taken.size());
    KVCRUSH_ASSERT(begins.size() == counts.size() && counts.size() <= detail::max_keys);
    if constexpr (std::is_same_v<Key, std::uint8_t>) {
        switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
        case isa::avx512:
            return detail::mark_ranks_avx512(keys, taken, begins, counts, ranks, marked);
#endif
        default: break;
        }
    }
    detail::mark_ranks_scalar(keys, taken, begins, counts, ranks, marked);
}

/// Writes each token that is not `taken` to the place that belongs to its key, and moves that place
/// on: the second half of a counting sort.
///
/// @param[in]  keys     [tokens], each below `cursors.size()`; fewer than 2^32
/// @param[in]  taken    [bitmap_words(keys.size())], 0 for candidates
/// @param      cursors  where the next token of each key goes
/// @param[out] out      token indices
template <Distance Key>
void scatter_tokens(std::span<const Key> keys,
                    std::span<const std::uint64_t> taken,
                    std::span<std::uint32_t> cursors,
                    std::span<std::uint32_t> out,
                    isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(taken.size() == bitmap_words(keys.size()));
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512:
        if constexpr (std::is_same_v<Key, std::uint8_t>) {
            if (keys.size() >= detail::min_tokens_in_quarters) {
                return detail::scatter_quarters_avx512(keys, taken, cursors, out);
            }
        }
        return detail::scatter_tokens_avx512(keys, taken, cursors, out);
#endif
    default: return detail::scatter_tokens_scalar(keys, taken, cursors, out);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
