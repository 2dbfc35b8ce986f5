// SPDX-License-Identifier: Apache-2.0
/// @file
/// Packing the decisions of heads on any machine, and what the rungs share.
#pragma once

#include <kvcrush/simd/detail/rank_cut_search.hpp>
#include <kvcrush/simd/ordered_key.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

template <typename Code>
struct pack_args {
    const float* scores;
    std::size_t row_stride;
    std::span<const rank_cut> cuts;
    Code* codes;
    std::size_t words;
    std::size_t num_tokens;
};

/// The vector rungs decide for so many tokens at once, and then for the next ones. Their decisions
/// stay in L1 while the heads go by, and rows are read in runs that the prefetcher notices. With
/// runs of 64 tokens, the 32 rows fought for the same cache sets: 13.6 against 9.0 ns per token
/// (rows of 32K scores out of 16 MB, Zen 4). Longer runs bring less.
inline constexpr std::size_t tokens_per_block = 1024;

/// Decisions of 32 heads, a 32-bit lane per token.
using decision_block = std::array<std::uint32_t, tokens_per_block>;
inline constexpr std::size_t heads_per_block = 32;

/// Heads that go by together: decisions are then loaded and stored once for four.
inline constexpr std::size_t heads_at_once = 4;

/// Decides for up to 32 heads from `first_head` on and the `num` tokens from `token` on.
/// Kernels::mark sets a bit of the decisions for every key that reaches its head's bound.
template <typename Kernels, typename Code>
inline void decide_block(const pack_args<Code>& args,
                         std::size_t first_head,
                         std::size_t token,
                         std::size_t num,
                         decision_block& decisions) noexcept {
    decisions.fill(0);
    const std::size_t last_head = (std::min)(args.cuts.size(), first_head + heads_per_block);
    for (std::size_t head = first_head; head < last_head; head += heads_at_once) {
        std::array<std::uint32_t, heads_at_once> bounds;
        bounds.fill(no_key); // reached by no float: rows that do not exist read the first one
        std::array<const float*, heads_at_once> rows;
        const std::size_t num_heads = (std::min)(heads_at_once, last_head - head);
        rows.fill(args.scores + head * args.row_stride + token);
        for (std::size_t h = 0; h < num_heads; ++h) {
            const rank_cut cut = args.cuts[head + h];
            rows[h] = rows[0] + h * args.row_stride;
            bounds[h] = cut.tie_end >= token + num ? cut.key : bound_after_ties(cut);
        }
        Kernels::mark(rows, bounds, std::uint32_t{1} << (head - first_head), num, decisions.data());
        for (std::size_t h = 0; h < num_heads; ++h) {
            const rank_cut cut = args.cuts[head + h];
            if (cut.tie_end > token &&
                cut.tie_end < token + num) { // ties end in this block: once a row
                const std::uint32_t bit = std::uint32_t{1} << (head + h - first_head);
                Kernels::mark_one(rows[h], cut.key, bit, cut.tie_end - token, decisions.data());
            }
        }
    }
}

/// Writes the codes of all tokens, block by block.
template <typename Kernels, typename Code>
inline void pack_blocks(const pack_args<Code>& args) noexcept {
    decision_block low;
    decision_block high;
    for (std::size_t token = 0; token < args.num_tokens; token += tokens_per_block) {
        const std::size_t num = (std::min)(tokens_per_block, args.num_tokens - token);
        if constexpr (sizeof(Code) < 8) {
            decide_block<Kernels>(args, 0, token, num, low);
            for (std::size_t t = 0; t < num; ++t) {
                args.codes[token + t] = static_cast<Code>(low[t]);
            }
        } else {
            for (std::size_t w = 0; w < args.words; ++w) {
                decide_block<Kernels>(args, 64 * w, token, num, low);
                decide_block<Kernels>(args, 64 * w + heads_per_block, token, num, high);
                for (std::size_t t = 0; t < num; ++t) {
                    args.codes[(token + t) * args.words + w] =
                        low[t] | (std::uint64_t{high[t]} << 32);
                }
            }
        }
    }
}

template <typename Code>
inline void pack_heads_scalar(const pack_args<Code>& args) noexcept {
    for (std::size_t token = 0; token < args.num_tokens; ++token) {
        for (std::size_t w = 0; w < args.words; ++w) {
            const std::size_t begin = w * 8 * sizeof(Code);
            const std::size_t end = (std::min)(args.cuts.size(), begin + 8 * sizeof(Code));
            std::uint64_t code = 0;
            for (std::size_t h = begin; h < end; ++h) {
                const bool inside =
                    args.cuts[h].contains(args.scores[h * args.row_stride + token], token);
                code |= (inside ? std::uint64_t{1} : 0U) << (h - begin);
            }
            args.codes[token * args.words + w] = static_cast<Code>(code);
        }
    }
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
