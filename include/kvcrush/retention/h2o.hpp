// SPDX-License-Identifier: Apache-2.0
/// @file
/// Heavy hitters: the tokens that all queries together attended to most.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/math/attention_mass.hpp>
#include <kvcrush/math/attention_rows.hpp>
#include <kvcrush/math/divide_by_reach.hpp>
#include <kvcrush/math/fold_heads.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// What accumulated attention is divided by.
enum class h2o_normalisation {
    /// The number of queries that could see the token: a token is not better for being older.
    reach,
    /// Nothing: the paper's plain sum, which favours early tokens.
    none
};

template <>
struct enum_names<h2o_normalisation> {
    static constexpr named_value<h2o_normalisation> values[] = {{"reach", h2o_normalisation::reach},
                                                                {"none", h2o_normalisation::none}};
};

/// Scores a token by the attention it has accumulated.
///
///     mass[h, j]       = sum over queries i >= j of softmax(q k / sqrt(head_dim))[h, i, j]
///     mass[h, j]      /= number of queries that see j        (normalise = reach)
///     importance[k, j] = mean of mass over the query heads of kv head k
/// @note O(num_q_heads * queries * seq_len * head_dim) from queries, no [seq_len, seq_len] matrix; with last = 0 that
///       is quadratic in the prompt. last = 256 gives the same quality on the reference model at a linear cost.
/// @see  H2O, arXiv:2306.14048. Deviations: one set per kv head (the authors keep one per query head); dividing by
///       reach is the default (the authors sum; NVIDIA kvpress' ObservedAttention divides), as it about halves the
///       loss on a real model.
struct h2o_scorer {
    static constexpr std::string_view name = "h2o";
    static constexpr std::string_view about = "what all queries together attended to most";
    static constexpr bool needs_attention = true;
    static constexpr bool observes_heads_alone = true;

    h2o_normalisation normalise = h2o_normalisation::reach;
    /// Only the last this many queries count; 0 means all that are given. 0 in the paper.
    std::size_t last = 0;

    static constexpr auto parameters() {
        return parameter_list{
            parameter{
                "normalise", &h2o_scorer::normalise, "what accumulated attention is divided by"},
            parameter{"last", &h2o_scorer::last, "queries that count, from the end; 0 = all"}};
    }
    void validate() const {}

    /// Queries to hand over for a sequence of this length: as many as the prompt has with last = 0.
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return last == 0 ? seq_len : (std::min)(last, seq_len);
    }
    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        return scratch::bytes<float>(
            attention_mass_workspace(size.kv, size.num_q_heads, num_queries(size.kv.seq_len)));
    }

    /// @param[in]  kv       [num_kv_heads, seq_len, head_dim]
    /// @param[in]  queries  [num_q_heads, num_queries, head_dim], after RoPE, the last ones of the sequence
    /// @param[out] mass     [num_q_heads, seq_len]
    template <KvSource Kv>
    void observe(const Kv& kv,
                 const query_view& queries,
                 head_scores mass,
                 scratch memory) const noexcept {
        const query_view window = queries.last(num_queries(mass.seq_len()));
        attention_mass(kv,
                       window,
                       mass.values(),
                       memory.take<float>(attention_mass_workspace(
                           kv.shape(), window.num_q_heads(), window.num_queries())));
        divide(mass, window.num_queries());
    }

    /// @param[in]  attention  [num_q_heads, num_queries, seq_len] weights of the last queries
    /// @param[out] mass       [num_q_heads, seq_len]
    void observe(const attention_view& attention, head_scores mass, scratch) const noexcept {
        const attention_view window = attention.last(num_queries(mass.seq_len()));
        attention_mass(window, mass);
        divide(mass, window.num_queries());
    }

    /// @param[out] scores  [num_kv_heads, seq_len]
    void reduce(const_head_scores mass, head_scores scores, scratch) const noexcept {
        fold_groups(mass, head_reduction::mean, scores);
    }

private:
    void divide(head_scores mass, std::size_t num_queries) const noexcept {
        if (normalise == h2o_normalisation::reach) {
            divide_by_reach(mass, num_queries);
        }
    }
};

} // namespace v0
} // namespace kvcrush
