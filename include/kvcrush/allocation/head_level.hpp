// SPDX-License-Identifier: Apache-2.0
/// @file
/// Some heads keep everything, the others their first and last tokens: budgets from a profile, no score needed.
#pragma once

#include <kvcrush/allocation/head_counts.hpp>
#include <kvcrush/allocation/head_profile.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/parameter.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Heads by importance times the factor of their layer, the largest first; of equal ones the earlier.
[[nodiscard]] inline std::vector<std::size_t> heads_by_importance(const head_profile& profile) {
    const std::size_t width = profile.model().num_kv_heads;
    std::vector<std::size_t> order(profile.heads().size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto weight = [&](std::size_t i) {
        return profile.heads()[i] * profile.layers()[i / width];
    };
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return weight(a) > weight(b);
    });
    return order;
}

} // namespace detail

/// Retrieval heads keep all tokens, streaming heads sinks and recent tokens alone.
///
///     const area_sizes areas{128, 256};
///     const head_counts counts = duo_attention{}.counts(profile, model, seq_len, areas);
///     compressor crush(streaming_llm_scorer{}, top_k_selector{}, fixed_counts{counts.layer(0)});
///     crush.plan(size, budget::keep_ratio(1.0, areas));
/// @see DuoAttention, arXiv:2410.10819: 128 sinks and 256 recent tokens; the profile holds the gate value of each head,
///      learned there by optimisation, and the heads above a quantile of it are the retrieval heads. No budget: the
///      total follows from the share of heads and the length.
struct duo_attention {
    static constexpr std::string_view name = "duo_attention";

    /// Part of all heads of the model that keep everything, rounded to whole heads, in [0, 1].
    double full_share = 0.5;

    static constexpr auto parameters() {
        return parameter_list{
            parameter{"full_share", &duo_attention::full_share, "part of the heads that keep all"}};
    }

    /// @throws std::invalid_argument if full_share lies outside [0, 1]
    void validate() const {
        detail::require(full_share >= 0.0 && full_share <= 1.0,
                        "duo_attention: full_share is ",
                        full_share,
                        "; it must lie in [0, 1]");
    }

    /// @param sizes  what streaming heads keep
    /// @throws std::invalid_argument from validate() and if the profile was made for another model
    [[nodiscard]] head_counts counts(const head_profile& profile,
                                     const model_heads& model,
                                     std::size_t seq_len,
                                     const area_sizes& sizes = {128, 256}) const {
        validate();
        profile.require_made_for(model);
        const std::vector<std::size_t> order = detail::heads_by_importance(profile);
        std::vector<std::size_t> tokens(order.size(), areas(sizes, seq_len).num_protected());
        const auto full = static_cast<std::size_t>(
            std::nearbyint(full_share * static_cast<double>(order.size())));
        for (std::size_t i = 0; i < full; ++i) {
            tokens[order[i]] = seq_len;
        }
        return head_counts(model, std::move(tokens));
    }
};

/// The most important heads keep all tokens while the budget lasts, the others the protected ones alone.
///
///     full heads = floor((total - heads * protected) / (seq_len - protected))
///
/// What is left of the budget goes to the next head in importance, so that the total is exact; a scorer chooses among
/// its tokens.
/// @see KVzip, arXiv:2505.23416, head level: the importance of a head is the largest score of any of its tokens over
///      one or a few contexts (head_profile::merge_max), and the profile serves every other context. The ratio is 0.6
///      there. Deviations: the exact total (`whole_heads` leaves the rest unused, the authors cut at a threshold), and
///      recent tokens are protected.
struct head_level {
    static constexpr std::string_view name = "head_level";
    static constexpr std::string_view about =
        "everything in the heads with the largest scores, sinks and recent tokens in the others";

    /// No head keeps a part: the total may stay below the budget.
    bool whole_heads = false;

    static constexpr auto parameters() {
        return parameter_list{parameter{
            "whole_heads", &head_level::whole_heads, "no head keeps a part of its tokens"}};
    }
    void validate() const {}

    /// @param tokens  the average over all heads
    /// @throws std::invalid_argument if the profile was made for another model or the budget does not hold sinks and
    ///         recent tokens
    [[nodiscard]] head_counts counts(const head_profile& profile,
                                     const model_heads& model,
                                     std::size_t seq_len,
                                     const budget& tokens) const {
        profile.require_made_for(model);
        const std::size_t average = tokens.tokens_for(seq_len);
        const std::size_t always = areas(tokens.protected_areas(), seq_len).num_protected();
        const std::vector<std::size_t> order = detail::heads_by_importance(profile);
        std::vector<std::size_t> counts(order.size(), always);
        std::size_t left = order.size() * (average - always);
        for (const std::size_t head : order) {
            const std::size_t more = (std::min)(left, seq_len - always);
            if (more == 0 || (whole_heads && more < seq_len - always)) {
                break;
            }
            counts[head] += more;
            left -= more;
        }
        return head_counts(model, std::move(counts));
    }
};

/// The profile of one context from the scores of one layer after the other: the largest score of each kv head.
/// @param scores  [num_kv_heads, seq_len]; scores that are not finite are left out
/// @param[out] importance  [num_kv_heads], 0 where there is no score above it
inline void largest_scores(const_head_scores scores, std::span<double> importance) noexcept {
    KVCRUSH_ASSERT(importance.size() == scores.num_heads());
    for (std::size_t head = 0; head < scores.num_heads(); ++head) {
        double largest = 0.0;
        for (const float score : scores.row(head)) {
            if (std::isfinite(score)) {
                largest = (std::max)(largest, static_cast<double>(score));
            }
        }
        importance[head] = largest;
    }
}

} // namespace v0
} // namespace kvcrush
