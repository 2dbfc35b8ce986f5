// SPDX-License-Identifier: Apache-2.0
/// @file
/// What another scorer thinks of the tokens that the first one passed over.
#pragma once

#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/bitmap.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace kvcrush {
inline namespace v0 {

template <Scorer Second>
[[nodiscard]] std::size_t second_opinion_scratch_bytes(const Second& scorer,
                                                       const problem_size& size) noexcept {
    const std::size_t tokens = size.kv.seq_len;
    return scratch::bytes<float>(num_observed_heads(scorer, size) * tokens) +
           scratch::bytes<float>(size.kv.num_kv_heads * tokens) +
           scorer_scratch_bytes(scorer, size) + scratch::bytes<float>(tokens) +
           scratch::bytes<token_index>(tokens);
}

/// The scores of a second scorer, and the best candidates by them.
class second_opinion {
public:
    /// @param memory  the scores stay there: second_opinion_scratch_bytes()
    template <Scorer Second, typename... Inputs>
    second_opinion(const Second& scorer,
                   const problem_size& size,
                   scratch& memory,
                   const Inputs&... inputs) noexcept {
        const std::size_t tokens = size.kv.seq_len;
        const std::size_t heads = num_observed_heads(scorer, size);
        const head_scores observed(memory.take<float>(heads * tokens), heads, tokens);
        const head_scores folded(
            memory.take<float>(size.kv.num_kv_heads * tokens), size.kv.num_kv_heads, tokens);
        observe(scorer, observed, memory, inputs...);
        scores_ = reduce(scorer, observed, folded, memory);
    }

    /// [seq_len]
    [[nodiscard]] std::span<const float> row(std::size_t head) const noexcept {
        return scores_.row(head);
    }

    /// Marks the `picks` best middle tokens that are not taken; ties keep the earlier token, NaN is the lowest score.
    /// @param[in] taken   [simd::bitmap_words(middle)], 0 for candidates; at least `picks` of them
    /// @param     marked  likewise; bits of the chosen tokens are set, others stay
    void mark_best_of_rest(std::size_t head,
                           const areas& area,
                           std::span<const std::uint64_t> taken,
                           std::size_t picks,
                           std::span<std::uint64_t> marked,
                           scratch memory) const noexcept {
        const std::span<const float> row = area.middle(scores_.row(head));
        const std::span<float> scores = memory.take<float>(row.size());
        const std::span<token_index> tokens = memory.take<token_index>(row.size());
        std::size_t count = 0;
        for (std::size_t t = 0; t < row.size(); ++t) { // writes always, moves on past candidates
            scores[count] = row[t];
            tokens[count] = static_cast<token_index>(t);
            count += (taken[t / 64] >> (t % 64) & 1U) == 0 ? 1U : 0U;
        }
        const simd::rank_cut cut = simd::find_rank_cut(scores.first(count), picks);
        for (std::size_t i = 0; i < count; ++i) {
            if (cut.contains(scores[i], i)) {
                marked[tokens[i] / 64] |= std::uint64_t{1} << (tokens[i] % 64);
            }
        }
    }

private:
    const_head_scores scores_;
};

} // namespace v0
} // namespace kvcrush
