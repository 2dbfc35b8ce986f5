// SPDX-License-Identifier: Apache-2.0
/// @file
/// What is looked at stays first; then what is looked at and says much.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/math/value_norms.hpp>
#include <kvcrush/select/detail/cache_of.hpp>
#include <kvcrush/select/selector.hpp>
#include <kvcrush/simd/bitmap.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// ||v||_1 of the cached values: needs nothing but the cache, and leaves out what W_o makes of them.
struct plain_value_norms {
    static constexpr std::string_view name = "plain";
    static constexpr bool reads_values = true;
    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}
};

/// Norms that the engine brings, such as those of projected_value_norms(), which are the paper's.
///
/// The view stays where it is while layers pass by: fill the memory behind it anew before each call of select().
struct given_value_norms {
    static constexpr std::string_view name = "given";
    static constexpr bool reads_values = false;

    /// [num_kv_heads, seq_len]
    const_head_scores norms{};

    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}
};

/// Where the second stage finds the size of a value.
template <typename N>
concept ValueNorms = Policy<N> && requires {
    { N::reads_values } -> std::convertible_to<bool>;
};

/// Keeps tokens in two stages.
///
///     1. the best `first_stage` of the middle budget, by score
///     2. the rest of it from the other tokens, by (score + epsilon) * norm of the projected value
///
/// @tparam Norms  plain_value_norms (||v||_1, the cache is enough) or given_value_norms (||W_o v||_1, as in the paper;
///                the engine provides W_o of the layer, or the norms)
/// @note   Scores must not be negative: attention, or a softmax. epsilon is compared with scores that are means of
///         attention over queries, as snapkv and h2o give them; for sums over W queries take W times as much.
/// @note   Linear in tokens. Ties keep the earlier token, NaN is the lowest. plain_value_norms reads V once.
/// @see    CriticalKV, arXiv:2502.03805, and kvpress. Deviations: without W_o the norm is that of v itself; sinks and
///         recent tokens are outside both stages. Leave out norms of scorers that have their own (expected_attention).
template <ValueNorms Norms = plain_value_norms>
struct critical_kv_selector {
    static constexpr std::string_view name = "critical_kv";
    static constexpr std::string_view about =
        "the best-scored tokens, then those whose score times value norm is largest";

    /// Part of the middle budget that goes by score alone, in [0, 1]. `rho`, 0.5 there.
    double first_stage = 0.5;
    /// Added to scores in the second stage. 1e-4 there.
    double epsilon = 1e-4;
    Norms norms{};

    static constexpr auto parameters() {
        return parameter_list{parameter{"first",
                                        &critical_kv_selector::first_stage,
                                        "part of the middle budget that goes by score alone"},
                              parameter{"epsilon",
                                        &critical_kv_selector::epsilon,
                                        "added to scores before they meet the norms"}};
    }

    /// @throws std::invalid_argument if first_stage lies outside [0, 1] or epsilon is negative or not finite
    void validate() const {
        detail::require(first_stage >= 0.0 && first_stage <= 1.0,
                        "critical_kv: first is ",
                        first_stage,
                        "; it must lie in [0, 1]");
        detail::require(epsilon >= 0.0 && epsilon <= 1e30,
                        "critical_kv: epsilon is ",
                        epsilon,
                        "; it must lie in [0, 1e30]");
        norms.validate();
    }

    /// @throws std::invalid_argument if given norms have another shape than the cache
    void validate_for([[maybe_unused]] const problem_size& size) const {
        if constexpr (requires { norms.norms.num_heads(); }) {
            detail::require(norms.norms.num_heads() == size.kv.num_kv_heads &&
                                norms.norms.seq_len() == size.kv.seq_len,
                            "critical_kv: the given norms are [",
                            norms.norms.num_heads(),
                            ", ",
                            norms.norms.seq_len(),
                            "]; the cache has [",
                            size.kv.num_kv_heads,
                            ", ",
                            size.kv.seq_len,
                            "]");
        }
    }

    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        const std::size_t tokens = size.kv.seq_len;
        return scratch::bytes<float>(tokens) + scratch::bytes<token_index>(tokens) +
               scratch::bytes<std::uint64_t>(simd::bitmap_words(tokens));
    }

    /// @see Selector
    template <typename... Inputs>
    void select(const selection_request& request,
                selection& out,
                const Inputs&... inputs) const noexcept {
        const const_head_scores scores = request.scores;
        const areas& area = request.area;
        scratch memory = request.memory;
        const std::size_t middle = area.num_middle();
        const std::span<float> weighed = memory.take<float>(middle);
        const std::span<token_index> tokens = memory.take<token_index>(middle);
        const std::span<std::uint64_t> kept =
            memory.take<std::uint64_t>(simd::bitmap_words(middle));
        out.clear();
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const std::span<const float> row = area.middle(scores.row(head));
            const std::size_t budget = detail::middle_budget(area, request.counts[head]);
            const auto forced = static_cast<std::size_t>(first_stage * static_cast<double>(budget));
            simd::mark_inside(row, simd::find_rank_cut(row, forced), kept);
            if (forced < budget) {
                std::size_t count = 0;
                for (std::size_t t = 0; t < middle; ++t) {
                    if ((kept[t / 64] >> (t % 64) & 1U) == 0) {
                        const float norm = norm_of(head, area.middle_begin + t, inputs...);
                        weighed[count] = (row[t] + static_cast<float>(epsilon)) * norm;
                        tokens[count++] = static_cast<token_index>(t);
                    }
                }
                mark_second(weighed.first(count), tokens, budget - forced, kept);
            }
            out.extend_range(0, area.middle_begin);
            simd::write_marked(
                kept, out.extend(budget), static_cast<token_index>(area.middle_begin));
            out.extend_range(area.middle_end, area.seq_len);
            out.end_head();
        }
    }

private:
    /// The second stage, over the tokens that the first one left.
    static void mark_second(std::span<const float> weighed,
                            std::span<const token_index> tokens,
                            std::size_t count,
                            std::span<std::uint64_t> kept) noexcept {
        const simd::rank_cut cut = simd::find_rank_cut(weighed, count);
        for (std::size_t i = 0; i < weighed.size(); ++i) {
            kept[tokens[i] / 64] |= std::uint64_t{cut.contains(weighed[i], i)} << (tokens[i] % 64);
        }
    }

    template <typename... Inputs>
    [[nodiscard]] float
    norm_of(std::size_t head, std::size_t token, const Inputs&... inputs) const noexcept {
        if constexpr (Norms::reads_values) {
            static_assert(detail::HasCache<Inputs...>,
                          "kvcrush: plain value norms read values: call select(kv) or "
                          "select(kv, queries), or bring given_value_norms");
            if constexpr (detail::HasCache<Inputs...>) {
                return l1_norm(detail::cache_of(inputs...).value(head, token));
            } else {
                return 0.0F;
            }
        } else {
            KVCRUSH_ASSERT(head < norms.norms.num_heads() && token < norms.norms.seq_len());
            return norms.norms.row(head)[token];
        }
    }
};

} // namespace v0
} // namespace kvcrush
