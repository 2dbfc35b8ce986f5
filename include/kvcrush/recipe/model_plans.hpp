// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the methods of allocation/ that look at a whole model make of a cache. kvzip, which also has the model read its
/// context again, is in kvzip_plan.hpp.
///
///     recipe how{.scorer = snapkv_scorer{}, .model_allocator = pyramid_kv{}, .keep = cache_budget::keep_ratio(0.25)};
///
/// Heads may hold different numbers of rows, as after a compression. A head that is given more than it holds keeps what it
/// has; the rest of its share is not spent.
#pragma once

#include <kvcrush/allocation/baklava.hpp>
#include <kvcrush/allocation/dbudget_kv.hpp>
#include <kvcrush/allocation/head_level.hpp>
#include <kvcrush/allocation/kv_compress.hpp>
#include <kvcrush/allocation/pyramid_kv.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/math/attention_mass.hpp>
#include <kvcrush/recipe/detail/layer_parts.hpp>
#include <kvcrush/recipe/layer_access.hpp>
#include <kvcrush/recipe/layer_profiles.hpp>
#include <kvcrush/recipe/model_allocator.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Duo attention in a cache: heads that look at the middle of the text keep everything, the others sinks and recent tokens.
struct duo_attention_plan {
    static constexpr std::string_view name = "duo_attention";
    static constexpr std::string_view about =
        "everything in heads that look at the middle, sinks and recent tokens in the others";

    /// Part of all heads that keep everything, in [0, 1]; 0: as many as the budget has room for.
    double full_share = 0.0;

    static constexpr auto parameters() {
        return parameter_list{
            parameter{"full_share",
                      &duo_attention_plan::full_share,
                      "part of the heads that keep all; 0: what the budget holds"}};
    }
    /// @throws std::invalid_argument if full_share lies outside [0, 1]
    void validate() const { duo_attention{full_share}.validate(); }
};

namespace detail {

/// Rows of the longest head of all layers: plans are made for sequences of this length, so that heads that kept much go on
/// to do so.
[[nodiscard]] inline std::size_t longest_head(const model_problem& problem) noexcept {
    std::size_t rows = 0;
    for (const layer_access* const layer : problem.layers) {
        rows = (std::max)(rows, layer->shape().seq_len);
    }
    return rows;
}

/// The scores of each head's own rows: what layer_judge lined up is moved together again.
[[nodiscard]] inline std::vector<std::vector<float>> scores_by_head(const model_problem& problem) {
    const std::vector<std::vector<float>> scores = score_layers(problem);
    std::vector<std::vector<float>> result;
    for (std::size_t l = 0; l < scores.size(); ++l) {
        const kv_shape shape = problem.layers[l]->shape();
        for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
            const auto row = std::span(scores[l]).subspan(head * shape.seq_len, shape.seq_len);
            const std::size_t rows = problem.layers[l]->rows(head);
            const std::size_t sinks = (std::min)(problem.policy.areas.num_sink_tokens, rows);
            std::vector<float>& own = result.emplace_back(rows);
            std::copy_n(row.begin(), sinks, own.begin());
            const auto rest = row.last(rows - sinks);
            std::copy(
                rest.begin(), rest.end(), own.end() - static_cast<std::ptrdiff_t>(rest.size()));
        }
    }
    return result;
}

/// A plan by counts, none above what its head holds.
[[nodiscard]] inline model_plan plan_of(const head_counts& counts, const model_problem& problem) {
    std::vector<std::size_t> held(counts.values().begin(), counts.values().end());
    const std::size_t heads = counts.model().num_kv_heads;
    for (std::size_t i = 0; i < held.size(); ++i) {
        held[i] = (std::min)(held[i], problem.layers[i / heads]->rows(i % heads));
    }
    return {.counts = head_counts(counts.model(), std::move(held))};
}

[[nodiscard]] inline model_plan plan_full_heads(const duo_attention& how,
                                                const model_problem& problem) {
    const model_heads model = problem.heads();
    return plan_of(
        how.counts(profile_middle(score_layers(problem), model.num_kv_heads, problem.policy.areas),
                   model,
                   longest_head(problem),
                   problem.policy.areas),
        problem);
}

/// Attention that the last queries pay to the rows of a layer, [num_q_heads, rows of the longest head]: those of shorter
/// heads stand at both ends, as they are kept.
[[nodiscard]] inline std::vector<float> newest_attention(const layer_access& layer,
                                                         std::size_t num_q_heads,
                                                         std::size_t last,
                                                         std::size_t num_sink_tokens) {
    const std::size_t longest = layer.shape().seq_len;
    std::vector<float> result(num_q_heads * longest, 0.0F);
    std::size_t head = 0;
    for_each_part(
        layer, num_q_heads, [&](std::size_t, const any_source& source, const query_view& queries) {
            const kv_shape shape = source.shape();
            const query_view newest = queries.last((std::min)(last, shape.seq_len));
            std::vector<float> mass(newest.num_q_heads() * shape.seq_len);
            std::vector<float> workspace(
                attention_mass_workspace(shape, newest.num_q_heads(), newest.num_queries()));
            attention_mass(source, newest, std::span(mass), std::span(workspace));
            const std::size_t sinks = (std::min)(num_sink_tokens, shape.seq_len);
            for (std::size_t h = 0; h < newest.num_q_heads(); ++h, ++head) {
                const auto from =
                    std::span<const float>(mass).subspan(h * shape.seq_len, shape.seq_len);
                const auto to = std::span(result).subspan(head * longest, longest);
                std::copy_n(from.begin(), sinks, to.begin());
                std::copy_n(from.last(shape.seq_len - sinks).begin(),
                            shape.seq_len - sinks,
                            to.last(shape.seq_len - sinks).begin());
            }
        });
    return result;
}

} // namespace detail

/// Fewer tokens in every layer than in the one below.
/// @throws std::invalid_argument if the budget does not hold sinks and recent tokens, here and below
[[nodiscard]] inline model_plan plan_model(const pyramid_kv& how, const model_problem& problem) {
    return {.tokens = how.layer_tokens(
                problem.layers.size(), detail::longest_head(problem), problem.per_head())};
}

/// The best tokens of all layers and heads, block by block.
[[nodiscard]] inline model_plan plan_model(const kv_compress& how, const model_problem& problem) {
    how.validate();
    const std::vector<std::vector<float>> scores = detail::scores_by_head(problem);
    const std::vector<std::span<const float>> metrics(scores.begin(), scores.end());
    std::size_t rows = 0;
    std::size_t held = 0;
    for (const std::vector<float>& own : scores) {
        rows += own.size();
        held += how.blocks_of(own.size());
    }
    const std::size_t wanted = scores.size() * problem.tokens;
    const std::size_t allowed = wanted >= rows ? held : how.blocks_of(wanted);
    std::vector<std::size_t> counts(scores.size());
    how.free_blocks(metrics, problem.policy.areas, held - (std::min)(held, allowed), counts);
    return {.counts = head_counts(problem.heads(), std::move(counts))};
}

/// More tokens in heads that turn their input most.
[[nodiscard]] inline model_plan plan_model(const baklava& how, const model_problem& problem) {
    return detail::plan_of(how.counts(profile_directions(problem),
                                      problem.heads(),
                                      detail::longest_head(problem),
                                      problem.per_head()),
                           problem);
}
[[nodiscard]] constexpr std::size_t plan_queries(const baklava&, std::size_t) noexcept {
    return profiled_queries;
}

/// A fixed part of the heads, whatever the budget.
[[nodiscard]] inline model_plan plan_model(const duo_attention& how, const model_problem& problem) {
    return detail::plan_full_heads(how, problem);
}

[[nodiscard]] inline model_plan plan_model(const duo_attention_plan& how,
                                           const model_problem& problem) {
    if (how.full_share > 0.0) {
        return detail::plan_full_heads({how.full_share}, problem);
    }
    const std::size_t rows = detail::longest_head(problem);
    const std::size_t always = areas(problem.policy.areas, rows).num_protected();
    const std::size_t tokens = problem.per_head().tokens_for(rows);
    return detail::plan_full_heads({rows == always ? 1.0
                                                   : static_cast<double>(tokens - always) /
                                                         static_cast<double>(rows - always)},
                                   problem);
}

/// Everything in the heads with the largest scores.
[[nodiscard]] inline model_plan plan_model(const head_level& how, const model_problem& problem) {
    const model_heads model = problem.heads();
    return detail::plan_of(how.counts(profile_scores(score_layers(problem), model.num_kv_heads),
                                      model,
                                      detail::longest_head(problem),
                                      problem.per_head()),
                           problem);
}

/// Sinks and as much of the end of the text as a layer's attention needs. Takes no budget.
[[nodiscard]] inline model_plan plan_model(const dbudget_kv& how, const model_problem& problem) {
    how.validate();
    model_plan result;
    std::vector<std::byte> memory(how.scratch_bytes(problem.num_q_heads));
    for (std::size_t l = 0; l < problem.layers.size(); ++l) {
        const layer_access& layer = *problem.layers[l];
        const kv_shape shape = layer.shape();
        std::size_t tokens = shape.seq_len;
        if (!how.keeps_all(l)) {
            const std::vector<float> attention =
                detail::newest_attention(layer, problem.num_q_heads, how.last, how.num_sink_tokens);
            tokens = how.tokens(const_head_scores(attention, problem.num_q_heads, shape.seq_len),
                                scratch(std::span(memory)));
        }
        selection& kept = result.kept.emplace_back();
        kept.reserve(shape.num_kv_heads, shape.num_kv_heads * shape.seq_len);
        for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
            const areas area(how.area_of(tokens), layer.rows(head));
            kept.extend_range(0, area.middle_begin);
            kept.extend_range(area.middle_end, area.seq_len);
            kept.end_head();
        }
    }
    return result;
}
[[nodiscard]] constexpr std::size_t plan_queries(const dbudget_kv& how, std::size_t) noexcept {
    return how.last;
}

} // namespace v0
} // namespace kvcrush
