// SPDX-License-Identifier: Apache-2.0
#include "layer_scores.hpp"

#include "error.hpp"
#include "layer_queries.hpp"
#include "layer_view.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lab {
namespace {

/// Newest tokens that a profile is a mean over.
constexpr std::size_t profiled_tokens = 64;

template <kvcrush::Element T>
[[nodiscard]] std::vector<float> score_layer(layer_cache<T>& layer,
                                             std::size_t index,
                                             const any_scorer& scorer,
                                             const planning_input& input) {
    require_even(layer);
    const layer_view<T> view(layer);
    const model_config& config = input.model.config();
    const std::span<const float> log = input.queries.layers.at(index);
    std::vector<float> scores;
    std::visit(
        [&](const auto& chosen) {
            with_scorer_of_layer(chosen, index, config, log, [&](const auto& own) {
                kvcrush::compressor crush(own, kvcrush::top_k_selector{});
                crush.plan({view.shape(), config.num_q_heads},
                           kvcrush::budget::keep_ratio(1.0, {0, 0}));
                static_cast<void>(
                    crush.select(view, queries_of(log, config, contiguous_tail(layer))).value());
                const std::span<const float> decisive = crush.scores().values();
                scores.assign(decisive.begin(), decisive.end());
            });
        },
        scorer);
    return scores;
}

/// The values of a kv head, summed with the weights of one query.
template <kvcrush::Element T>
[[nodiscard]] std::vector<float>
read_values(const layer_view<T>& view, std::size_t kv_head, std::span<const float> weights) {
    std::vector<float> output(view.shape().value_dim, 0.0F);
    for (std::size_t t = 0; t < weights.size(); ++t) {
        const kvcrush::row_view<T> value = view.value(kv_head, t);
        for (std::size_t c = 0; c < output.size(); ++c) {
            output[c] += weights[t] * kvcrush::to_float(value[c]);
        }
    }
    return output;
}

} // namespace

std::vector<std::vector<float>> score_layers(const any_scorer& scorer,
                                             const planning_input& input) {
    return input.cache.visit([&](auto& layers) {
        std::vector<std::vector<float>> scores;
        for (std::size_t l = 0; l < layers.size(); ++l) {
            scores.push_back(score_layer(layers[l], l, scorer, input));
        }
        return scores;
    });
}

kvcrush::head_profile profile_directions(const planning_input& input) {
    const model_config& config = input.model.config();
    const std::size_t dim = config.head_dim;
    const kvcrush::rope_rotation rotation({.theta = config.rope_theta}, dim);
    std::vector<std::byte> memory(rotation.scratch_bytes());
    kvcrush::baklava_profiler profiler(config.num_layers, config.num_q_heads);
    input.cache.visit([&](auto& layers) {
        for (std::size_t l = 0; l < layers.size(); ++l) {
            require_even(layers[l]);
            const layer_view view(layers[l]);
            const std::size_t rows = view.shape().seq_len;
            const kvcrush::query_view queries =
                queries_of(input.queries.layers.at(l),
                           config,
                           (std::min)(contiguous_tail(layers[l]), profiled_tokens));
            const std::size_t count = queries.num_queries();
            std::vector<float> weights(config.num_q_heads * count * rows);
            std::vector<float> workspace(
                kvcrush::window_attention_workspace(view.shape(), config.num_q_heads, count));
            kvcrush::window_attention(
                queries, view, count, std::span<float>(weights), std::span<float>(workspace));
            for (std::size_t head = 0; head < config.num_q_heads; ++head) {
                const std::size_t kv_head = head * config.num_kv_heads / config.num_q_heads;
                const auto positions = layers[l].positions(kv_head).last(count);
                std::vector<float> unrotated;
                for (std::size_t i = 0; i < count; ++i) {
                    unrotated.insert(
                        unrotated.end(), queries.row(head, i), queries.row(head, i) + dim);
                }
                rotation.turn(
                    kvcrush::kv_view(
                        std::span(unrotated), std::span(unrotated), {1, count, dim, dim}),
                    0,
                    count,
                    [&](std::size_t i) { return -std::int64_t{positions[i]}; },
                    kvcrush::scratch(std::span(memory)));
                for (std::size_t i = 0; i < count; ++i) {
                    const auto paid =
                        std::span<const float>(weights).subspan((head * count + i) * rows, rows);
                    profiler.add_head(l,
                                      head,
                                      std::span(unrotated).subspan(i * dim, dim),
                                      read_values(view, kv_head, paid));
                }
            }
        }
    });
    return profiler.profile(config.num_kv_heads);
}

kvcrush::head_profile profile_scores(const std::vector<std::vector<float>>& scores,
                                     std::size_t num_kv_heads) {
    std::vector<double> importance(scores.size() * num_kv_heads, 0.0);
    for (std::size_t l = 0; l < scores.size(); ++l) {
        kvcrush::largest_scores(
            kvcrush::const_head_scores(scores[l], num_kv_heads, scores[l].size() / num_kv_heads),
            std::span(importance).subspan(l * num_kv_heads, num_kv_heads));
    }
    return {{scores.size(), num_kv_heads}, std::move(importance)};
}

kvcrush::head_profile profile_middle(const std::vector<std::vector<float>>& scores,
                                     std::size_t num_kv_heads,
                                     const kvcrush::area_sizes& areas) {
    std::vector<double> importance;
    for (const std::vector<float>& layer : scores) {
        const std::size_t rows = layer.size() / num_kv_heads;
        const kvcrush::areas area(areas, rows);
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            double all = 0.0;
            double middle = 0.0;
            for (std::size_t t = 0; t < rows; ++t) {
                const auto score = static_cast<double>((std::max)(layer[head * rows + t], 0.0F));
                all += score;
                middle += t >= area.middle_begin && t < area.middle_end ? score : 0.0;
            }
            importance.push_back(all > 0.0 ? middle / all : 0.0);
        }
    }
    return {{scores.size(), num_kv_heads}, std::move(importance)};
}

} // namespace lab
