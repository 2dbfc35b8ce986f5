// SPDX-License-Identifier: Apache-2.0
/// @file
/// What each cached token was paid so far: one number per head and token that an engine updates with the attention
/// weights of every step, and that is compacted together with the rows of K and V.
///
///     attention_mean observed;
///     observed.plan(num_q_heads, max_tokens);
///     observed.add({prompt_weights, num_q_heads, num_queries, prompt_length});
///     observed.add({step_weights, num_q_heads, 1, prompt_length + 1});            // every step
///     compact(kv, kept);
///     observed.compact(kept);
///
/// Engines without attention weights get them from math/window_attention.hpp.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/compact_values.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/retention/detail/observed_heads.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// How a weight changes the number that is kept for a token, which is 0 at first.
template <typename R>
concept AccumulationRule = requires(float state, float weight) {
    { R::add(state, weight) } noexcept -> std::same_as<float>;
    { R::divides_by_reach } -> std::convertible_to<bool>;
};

namespace detail {

struct sum_rule {
    static constexpr bool divides_by_reach = false;
    static constexpr float add(float state, float weight) noexcept { return state + weight; }
};

struct square_sum_rule {
    static constexpr bool divides_by_reach = false;
    static constexpr float add(float state, float weight) noexcept {
        return state + weight * weight;
    }
};

struct mean_rule {
    static constexpr bool divides_by_reach = true;
    static constexpr float add(float state, float weight) noexcept { return state + weight; }
};

struct maximum_rule {
    static constexpr bool divides_by_reach = false;
    static constexpr float add(float state, float weight) noexcept {
        return weight > state ? weight : state;
    }
};

/// states[t] = Rule::add(states[t], weights[t]). A NaN counts as 0: a broken step is not held against a token for the
/// rest of its life.
template <AccumulationRule Rule>
void accumulate(std::span<const float> weights, float* states) noexcept {
    // Pieces of a fixed size in an array of their own become vectors at -O2.
    constexpr std::size_t piece = 64;
    std::array<float, piece> part;
    std::size_t t = 0;
    for (; t + piece <= weights.size(); t += piece) {
        std::copy_n(weights.data() + t, piece, part.data());
        float* const states_of_piece = states + t;
        for (std::size_t i = 0; i < piece; ++i) {
            const float weight = part[i] == part[i] ? part[i] : 0.0F;
            states_of_piece[i] = Rule::add(states_of_piece[i], weight);
        }
    }
    for (; t < weights.size(); ++t) {
        const float weight = weights[t] == weights[t] ? weights[t] : 0.0F;
        states[t] = Rule::add(states[t], weight);
    }
}

} // namespace detail

/// One number per (head, token), fed step by step. Heads are those of the weights: query heads (fold the scores with
/// fold_groups), or kv heads where the engine folds its weights itself.
///
/// Lengths: heads hold equally many tokens until a selection with different counts per head is applied. From then on
/// each group of heads that shares a length is fed and read by itself, with `first_head`.
/// @note Numbers are fp32: after n additions a sum is off by at most n * 2^-24 relative. Memory per head and token: 8
///       bytes, 12 where the rule divides by reach.
/// @see  H2O, arXiv:2306.14048 (sum; mean by reach is ObservedAttention in NVIDIA kvpress); KV-Compress,
///       arXiv:2410.00161 (sum of squares); KVzip, arXiv:2505.23416 (maximum)
template <AccumulationRule Rule>
class attention_accumulator {
public:
    /// Makes room and forgets everything.
    /// @throws std::invalid_argument if num_heads * max_tokens overflows; std::bad_alloc
    void plan(std::size_t num_heads, std::size_t max_tokens) {
        const std::size_t total = heads_.plan(num_heads, max_tokens, "attention_accumulator");
        states_.assign(total, 0.0F);
        unseen_.assign(Rule::divides_by_reach ? total : 0, 0);
        scores_.assign(total, 0.0F);
    }

    /// Forgets all tokens, keeps the memory.
    void clear() noexcept { heads_.clear(); }

    /// Adds what new queries pay to the tokens held and to the new ones behind them.
    /// @param[in] attention   [some heads, num_queries, tokens held + new ones], after softmax, not negative. NaN counts
    ///                        as 0. Fewer queries than new tokens: the last ones, as of a prompt's window
    /// @param     first_head  the head that the first one of `attention` is
    /// @pre  length(head) <= attention.seq_len() <= max_tokens() for these heads
    /// @note O(heads * num_queries * seq_len), allocates nothing
    void add(const attention_view& attention, std::size_t first_head = 0) noexcept {
        const std::size_t num_queries = attention.num_queries();
        const std::size_t seq_len = attention.seq_len();
        KVCRUSH_ASSERT(first_head + attention.num_q_heads() <= heads_.num_heads());
        for (std::size_t i = 0; i < attention.num_q_heads(); ++i) {
            const std::size_t head = first_head + i;
            const std::size_t before = heads_.length(head);
            const std::size_t asked = heads_.queries(head);
            heads_.grow(head, num_queries, seq_len);
            const std::span<float> states = heads_.row(std::span(states_), head);
            const std::span<float> added = states.subspan(before);
            std::fill(added.begin(), added.end(), 0.0F);
            if constexpr (Rule::divides_by_reach) {
                const std::span<std::uint32_t> unseen = heads_.row(std::span(unseen_), head);
                for (std::size_t t = before; t < seq_len; ++t) {
                    const std::size_t seen = (std::min)(num_queries, seq_len - t);
                    unseen[t] = static_cast<std::uint32_t>(asked + num_queries - seen);
                }
            }
            for (std::size_t query = 0; query < num_queries; ++query) {
                detail::accumulate<Rule>(attention.row(i, query), states.data());
            }
        }
    }

    /// Importance of the tokens of all heads, [num_heads, length]; valid until the next call of this object.
    /// @pre all heads hold equally many tokens
    [[nodiscard]] const_head_scores scores() noexcept { return scores(0, num_heads()); }

    /// Importance of the tokens of the heads [first_head, first_head + count), [count, length].
    /// @pre these heads hold equally many tokens
    [[nodiscard]] const_head_scores scores(std::size_t first_head, std::size_t count) noexcept {
        const std::size_t length = heads_.common_length(first_head, count);
        const std::span<float> out = std::span(scores_).first(count * length);
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t head = first_head + i;
            const std::span<const float> states = heads_.row(std::span(states_), head);
            const std::span<float> row = out.subspan(i * length, length);
            if constexpr (Rule::divides_by_reach) {
                const std::span<const std::uint32_t> unseen = heads_.row(std::span(unseen_), head);
                const auto asked = static_cast<std::uint32_t>(heads_.queries(head));
                for (std::size_t t = 0; t < length; ++t) {
                    const std::uint32_t seen = asked - unseen[t];
                    row[t] = states[t] / static_cast<float>((std::max)(seen, std::uint32_t{1}));
                }
            } else {
                std::copy(states.begin(), states.end(), row.begin());
            }
        }
        return {out, count, length};
    }

    /// Keeps what K and V keep. Head h follows kv head h / (num_heads() / kept.num_kv_heads()).
    /// @pre num_heads() is a multiple of kept.num_kv_heads() (or that is 0: nothing is dropped), indices are below
    ///      length(head)
    void compact(const selection& kept) noexcept {
        heads_.compact(kept, [this](std::size_t head, std::span<const token_index> tokens) {
            compact_values(heads_.row(std::span(states_), head), tokens);
            if constexpr (Rule::divides_by_reach) {
                compact_values(heads_.row(std::span(unseen_), head), tokens);
            }
        });
    }

    [[nodiscard]] std::size_t num_heads() const noexcept { return heads_.num_heads(); }
    [[nodiscard]] std::size_t max_tokens() const noexcept { return heads_.max_tokens(); }
    /// Tokens that the head holds.
    [[nodiscard]] std::size_t length(std::size_t head) const noexcept {
        return heads_.length(head);
    }
    /// Queries that could see the token.
    [[nodiscard]] std::uint32_t reach(std::size_t head, std::size_t token) const noexcept
        requires(Rule::divides_by_reach)
    {
        KVCRUSH_ASSERT(token < heads_.length(head));
        // Modulo 2^32, so that the counts may wrap.
        return static_cast<std::uint32_t>(heads_.queries(head)) -
               unseen_[head * heads_.max_tokens() + token];
    }

private:
    detail::observed_heads heads_;
    std::vector<float> states_;
    /// Queries that came too early to see the token: unlike its reach it never changes.
    std::vector<std::uint32_t> unseen_;
    std::vector<float> scores_;
};

/// Sum of the weights: H2O's accumulated attention, which favours early tokens.
using attention_sum = attention_accumulator<detail::sum_rule>;
/// Sum of the squared weights: few strong looks count more than many weak ones.
using attention_square_sum = attention_accumulator<detail::square_sum_rule>;
/// Sum of the weights over the number of queries that could see the token.
using attention_mean = attention_accumulator<detail::mean_rule>;
/// The largest weight.
using attention_maximum = attention_accumulator<detail::maximum_rule>;

} // namespace v0
} // namespace kvcrush
