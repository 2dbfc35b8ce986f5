// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sparse window attention: the newest tokens, and the older ones that they look at.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/math/attention_mass.hpp>
#include <kvcrush/math/attention_rows.hpp>
#include <kvcrush/math/fold_heads.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Scores an older token by its local attention sum, and the newest tokens above all older ones.
///
///     |<- older: importance[k, j] = mean over the query heads of kv head k of mass[h, j] ->|<- window ->|
///     mass[h, j] = sum over the last `window` queries of softmax(q k / sqrt(head_dim))[h, i, j]
///
/// Inside the window scores rise by 1 / window per token from the best older one on, so that a budget that does not
/// hold all of the window keeps its newest tokens. Called at every step of a generation, the sum slides along.
/// @note A window of half the budget is the paper's mix. One that fills the budget leaves recent tokens only.
/// @note O(num_q_heads * window * seq_len * head_dim)
/// @see  ALISA, arXiv:2403.17312 (sparse window attention). Deviations: the paper
///       makes the window half of the tokens kept, which a scorer does not know; one set per kv head; what is not kept
///       is gone (the paper moves it to the CPU and may fetch it again).
struct alisa_scorer {
    static constexpr std::string_view name = "alisa";
    static constexpr std::string_view about = "the newest tokens and what they attend to";
    static constexpr bool needs_attention = true;
    static constexpr bool observes_heads_alone = true;

    /// Newest tokens: those ranked first, and the queries whose attention is summed. Half of the budget in the paper.
    std::size_t window = 64;

    static constexpr auto parameters() {
        return parameter_list{parameter{"window",
                                        &alisa_scorer::window,
                                        "newest tokens, ranked first; their attention decides"}};
    }

    /// Beyond that a float cannot tell the ranks of newest tokens apart.
    static constexpr std::size_t max_window = 4096;

    /// @throws std::invalid_argument if window lies outside [1, 4096]
    void validate() const {
        detail::require(window >= 1 && window <= max_window,
                        "alisa: window is ",
                        window,
                        "; it must lie in [1, ",
                        max_window,
                        "]");
    }

    /// Queries to hand over for a sequence of this length.
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return (std::min)(window, seq_len);
    }
    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        return scratch::bytes<float>(
            attention_mass_workspace(size.kv, size.num_q_heads, num_queries(size.kv.seq_len)));
    }

    /// @param[in]  kv       [num_kv_heads, seq_len, head_dim]
    /// @param[in]  queries  [num_q_heads, >= window, head_dim], after RoPE, the last ones of the sequence
    /// @param[out] mass     [num_q_heads, seq_len]
    template <KvSource Kv>
    void observe(const Kv& kv,
                 const query_view& queries,
                 head_scores mass,
                 scratch memory) const noexcept {
        const query_view newest = queries.last(window);
        attention_mass(kv,
                       newest,
                       mass.values(),
                       memory.take<float>(attention_mass_workspace(
                           kv.shape(), newest.num_q_heads(), newest.num_queries())));
    }

    /// @param[in]  attention  [num_q_heads, >= window, seq_len] weights of the last queries
    /// @param[out] mass       [num_q_heads, seq_len]
    void observe(const attention_view& attention, head_scores mass, scratch) const noexcept {
        attention_mass(attention.last(window), mass);
    }

    /// @param[out] scores  [num_kv_heads, seq_len]
    void reduce(const_head_scores mass, head_scores scores, scratch) const noexcept {
        fold_groups(mass, head_reduction::mean, scores);
        const std::size_t num_newest = (std::min)(window, scores.seq_len());
        const std::size_t num_older = scores.seq_len() - num_newest;
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const std::span<float> row = scores.row(head);
            float best = 0.0F; // sums of attention are not negative
            for (const float score : row.first(num_older)) {
                best = score > best ? score : best;
            }
            for (std::size_t i = 0; i < num_newest; ++i) {
                row[num_older + i] =
                    best + static_cast<float>(i + 1) / static_cast<float>(num_newest);
            }
        }
    }
};

} // namespace v0
} // namespace kvcrush
