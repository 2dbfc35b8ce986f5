// SPDX-License-Identifier: Apache-2.0
/// @file
/// The tokens that the last token looks at.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/math/fold_heads.hpp>
#include <kvcrush/retention/h2o.hpp>

#include <algorithm>
#include <cstddef>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Scores a token by the attention of the very last query, with one set for all heads of the layer.
///
///     mass[h, j]       = softmax(q k / sqrt(head_dim))[h, n - 1, j]
///     importance[k, j] = mean of mass over all query heads, the same for every k
///
/// Meant for decoding: drop one row per step. After a prefill it does the whole drop at once.
/// @note O(num_q_heads * seq_len * head_dim): the cheapest scorer that looks at queries.
/// @see  TOVA, arXiv:2401.06104. Deviations: none in the score. Sinks and recent tokens are protected by the areas,
///       the authors' code protects nothing; NVIDIA kvpress protects the last token, as any recent area does.
struct tova_scorer {
    static constexpr std::string_view name = "tova";
    static constexpr std::string_view about =
        "what the last query attends to, one set for all heads";
    static constexpr bool needs_attention = true;
    static constexpr bool observes_heads_alone = true;

    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}

    /// Queries to hand over for a sequence of this length.
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return last_query.num_queries(seq_len);
    }
    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        return last_query.scratch_bytes(size);
    }

    /// @param[in]  kv       [num_kv_heads, seq_len, head_dim]
    /// @param[in]  queries  [num_q_heads, >= 1, head_dim], after RoPE, the last ones of the sequence
    /// @param[out] mass     [num_q_heads, seq_len]
    template <KvSource Kv>
    void observe(const Kv& kv,
                 const query_view& queries,
                 head_scores mass,
                 scratch memory) const noexcept {
        last_query.observe(kv, queries, mass, memory);
    }

    /// @param[in]  attention  [num_q_heads, >= 1, seq_len] weights of the last queries
    /// @param[out] mass       [num_q_heads, seq_len]
    void observe(const attention_view& attention, head_scores mass, scratch memory) const noexcept {
        last_query.observe(attention, mass, memory);
    }

    /// @param[out] scores  [num_kv_heads, seq_len], equal rows
    void reduce(const_head_scores mass, head_scores scores, scratch) const noexcept {
        if (scores.num_heads() == 0) {
            return;
        }
        fold_heads(mass, 0, mass.num_heads(), head_reduction::mean, scores.row(0));
        for (std::size_t head = 1; head < scores.num_heads(); ++head) {
            std::copy(scores.row(0).begin(), scores.row(0).end(), scores.row(head).begin());
        }
    }

private:
    /// What accumulates when one query is all there is.
    static constexpr h2o_scorer last_query{.normalise = h2o_normalisation::none, .last = 1};
};

} // namespace v0
} // namespace kvcrush
