// SPDX-License-Identifier: Apache-2.0
/// @file
/// Two time horizons in one score: what the end of the prompt looks at, and what all of it looked at.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/math/fold_heads.hpp>
#include <kvcrush/retention/h2o.hpp>
#include <kvcrush/retention/snapkv.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Scores a token by the mean attention of the last queries plus its accumulated attention by reach, both of which
/// share out 1 per kv head. Nothing is pooled.
///
///     mass[h, j]       = snapkv mass[h, j] + h2o mass by reach[h, j] / total[k]
///     total[k]         = sum over j of the mean of h2o mass by reach over the query heads of kv head k
///     importance[k, j] = mean of mass over the query heads of kv head k
///
/// It needs keys and queries: rows of attention weights do not say which query heads share a kv head.
/// @note The cost of h2o: with last = 0 quadratic in the prompt; last = 256 is linear and as good.
/// @note For continuing text. It is not pooled, so single facts are lost: for answering questions see snapkv.
/// @see  Our own, made of H2O (arXiv:2306.14048) and SnapKV (arXiv:2404.14469).
struct glob_scorer {
    static constexpr std::string_view name = "glob";
    static constexpr std::string_view about =
        "what the last queries attend to plus what all attended to, by equal shares";
    static constexpr bool needs_attention = true;
    static constexpr bool observes_heads_alone = true;

    /// Last queries of the near horizon.
    std::size_t observation_window = 32;
    /// Last queries of the far horizon; 0 means all that are given.
    std::size_t last = 0;

    static constexpr auto parameters() {
        return parameter_list{
            parameter{
                "window", &glob_scorer::observation_window, "last queries of the near horizon"},
            parameter{
                "last", &glob_scorer::last, "queries of the far horizon, from the end; 0 = all"}};
    }

    /// @throws std::invalid_argument if window is 0
    void validate() const {
        detail::require(observation_window > 0, "glob: window is 0; it must be at least 1 query");
    }

    /// Queries to hand over for a sequence of this length.
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return (std::max)(last_queries().num_queries(seq_len), all_queries().num_queries(seq_len));
    }
    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        return scratch::bytes<float>(size.num_q_heads * size.kv.seq_len) +
               (std::max)(last_queries().scratch_bytes(size), all_queries().scratch_bytes(size));
    }

    /// @param[in]  kv       [num_kv_heads, seq_len, head_dim]
    /// @param[in]  queries  [num_q_heads, num_queries, head_dim], after RoPE, the last ones of the sequence
    /// @param[out] mass     [num_q_heads, seq_len]
    template <KvSource Kv>
    void observe(const Kv& kv,
                 const query_view& queries,
                 head_scores mass,
                 scratch memory) const noexcept {
        const std::size_t num_kv_heads = kv.shape().num_kv_heads;
        const std::size_t group_size = num_kv_heads == 0 ? 0 : mass.num_heads() / num_kv_heads;
        const std::size_t num_values = mass.values().size();
        const head_scores accumulated(
            memory.take<float>(num_values), mass.num_heads(), mass.seq_len());
        last_queries().observe(kv, queries, mass, memory);
        all_queries().observe(kv, queries, accumulated, memory);
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            const std::size_t first = head * group_size * mass.seq_len();
            const std::size_t count = group_size * mass.seq_len();
            const std::span<const float> all = accumulated.values().subspan(first, count);
            const std::span<float> out = mass.values().subspan(first, count);
            double total = 0.0;
            for (const float value : all) {
                total += static_cast<double>(value);
            }
            const auto share =
                total > 0.0 ? static_cast<float>(static_cast<double>(group_size) / total) : 0.0F;
            for (std::size_t i = 0; i < count; ++i) {
                out[i] += all[i] * share;
            }
        }
    }

    /// @param[out] scores  [num_kv_heads, seq_len]
    void reduce(const_head_scores mass, head_scores scores, scratch) const noexcept {
        fold_groups(mass, head_reduction::mean, scores);
    }

private:
    [[nodiscard]] constexpr snapkv_scorer last_queries() const noexcept {
        return {.observation_window = observation_window};
    }
    [[nodiscard]] constexpr h2o_scorer all_queries() const noexcept { return {.last = last}; }
};

} // namespace v0
} // namespace kvcrush
