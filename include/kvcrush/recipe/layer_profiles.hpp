// SPDX-License-Identifier: Apache-2.0
/// @file
/// What can be said of the heads of a model from its cache alone, for methods that compare layers and heads before any of
/// them is compressed.
#pragma once

#include <kvcrush/allocation/baklava.hpp>
#include <kvcrush/allocation/head_level.hpp>
#include <kvcrush/allocation/head_profile.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/rope.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/math/window_attention.hpp>
#include <kvcrush/recipe/detail/layer_parts.hpp>
#include <kvcrush/recipe/layer_access.hpp>
#include <kvcrush/recipe/layer_judge.hpp>
#include <kvcrush/recipe/model_allocator.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// What the scorer of a problem says of each layer, [num_kv_heads, rows of its longest head]: shorter heads are lined up as
/// layer_judge says.
[[nodiscard]] inline std::vector<std::vector<float>> score_layers(const model_problem& problem) {
    // The selector plays no part, but must be one that looks at scores.
    layer_judge judge({.scorer = problem.policy.scorer, .areas = problem.policy.areas},
                      problem.num_q_heads);
    std::vector<std::vector<float>> scores;
    for (std::size_t l = 0; l < problem.layers.size(); ++l) {
        judge.look(*problem.layers[l], l, problem.angles);
        const std::span<const float> own = judge.scores().values();
        scores.emplace_back(own.begin(), own.end());
    }
    return scores;
}

/// The largest score of each head.
/// @param scores  as score_layers() gives them
/// @see KVzip, arXiv:2505.23416, head level
[[nodiscard]] inline head_profile profile_scores(std::span<const std::vector<float>> scores,
                                                 std::size_t num_kv_heads) {
    std::vector<double> importance(scores.size() * num_kv_heads, 0.0);
    for (std::size_t l = 0; l < scores.size(); ++l) {
        largest_scores(const_head_scores(scores[l], num_kv_heads, scores[l].size() / num_kv_heads),
                       std::span(importance).subspan(l * num_kv_heads, num_kv_heads));
    }
    return {{scores.size(), num_kv_heads}, std::move(importance)};
}

/// The part of each head's scores that lies between sinks and recent tokens: heads that look there cannot stream. Scores
/// below 0, and those that are no numbers, count as 0.
/// @param scores  as score_layers() gives them
[[nodiscard]] inline head_profile profile_middle(std::span<const std::vector<float>> scores,
                                                 std::size_t num_kv_heads,
                                                 const area_sizes& sizes) {
    const auto sum = [](std::span<const float> row) {
        double total = 0.0;
        for (const float score : row) {
            total += std::isfinite(score) ? (std::max)(static_cast<double>(score), 0.0) : 0.0;
        }
        return total;
    };
    std::vector<double> importance;
    for (const std::vector<float>& layer : scores) {
        const const_head_scores own(layer, num_kv_heads, layer.size() / num_kv_heads);
        const areas area(sizes, own.seq_len());
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            const double all = sum(own.row(head));
            importance.push_back(all > 0.0 ? sum(area.middle(own.row(head))) / all : 0.0);
        }
    }
    return {{scores.size(), num_kv_heads}, std::move(importance)};
}

/// Newest tokens that profile_directions() is a mean over.
inline constexpr std::size_t profiled_queries = 64;

namespace detail {

/// Undoes what RoPE did to a row at a position.
class rope_undo {
public:
    rope_undo(const rope& angles, std::size_t head_dim)
        : interleaved_(angles.pairing == rope_pairs::interleaved) {
        const std::size_t turned =
            angles.rotary_dim == 0 ? head_dim : (std::min)(angles.rotary_dim, head_dim);
        frequencies_.resize(turned / 2);
        if (angles.frequencies.empty()) {
            rope_frequencies(angles.theta, frequencies_);
        } else {
            frequencies_.resize((std::min)(turned / 2, angles.frequencies.size()));
            std::copy_n(angles.frequencies.begin(), frequencies_.size(), frequencies_.begin());
        }
    }

    void operator()(token_index position, std::span<float> row) const noexcept {
        for (std::size_t j = 0; j < frequencies_.size(); ++j) {
            const double angle = static_cast<double>(position) * frequencies_[j];
            float& x = row[interleaved_ ? 2 * j : j];
            float& y = row[interleaved_ ? 2 * j + 1 : j + frequencies_.size()];
            const auto cosine = static_cast<float>(std::cos(angle));
            const auto sine = static_cast<float>(std::sin(angle));
            const float turned = x * cosine + y * sine;
            y = y * cosine - x * sine;
            x = turned;
        }
    }

private:
    bool interleaved_;
    std::vector<double> frequencies_;
};

/// What each query reads: values summed with its weights. Each value is decoded once.
/// @param weights  [queries of a kv head's group, rows]
/// @return [queries of a kv head's group, value_dim]
[[nodiscard]] inline std::vector<float>
read_values(const any_source& source, std::size_t kv_head, std::span<const float> weights) {
    const kv_shape shape = source.shape();
    const std::size_t num_queries = shape.seq_len == 0 ? 0 : weights.size() / shape.seq_len;
    std::vector<float> output(num_queries * shape.value_dim, 0.0F);
    for (std::size_t t = 0; t < shape.seq_len; ++t) {
        const row_view<const float> value = source.value(kv_head, t);
        for (std::size_t i = 0; i < num_queries; ++i) {
            const float weight = weights[i * shape.seq_len + t];
            for (std::size_t c = 0; c < shape.value_dim; ++c) {
                output[i * shape.value_dim + c] += weight * value[c];
            }
        }
    }
    return output;
}

/// Shows a profiler what goes into and comes out of some heads of a layer.
inline void profile_part(const layer_access& layer,
                         std::size_t layer_index,
                         std::size_t first_head,
                         const any_source& source,
                         const query_view& all_queries,
                         const rope_undo& undo,
                         baklava_profiler& profiler) {
    const kv_shape shape = source.shape();
    const query_view queries = all_queries.last((std::min)(profiled_queries, shape.seq_len));
    const std::size_t count = queries.num_queries();
    const std::size_t group = queries.num_q_heads() / shape.num_kv_heads;
    const std::size_t read = group * count * shape.seq_len; // weights of a kv head
    std::vector<float> weights(shape.num_kv_heads * read);
    std::vector<float> workspace(window_attention_workspace(shape, queries.num_q_heads(), count));
    window_attention(queries, source, count, std::span(weights), std::span(workspace));
    std::vector<float> input(queries.head_dim());
    for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
        const std::vector<float> output =
            read_values(source, head, std::span<const float>(weights).subspan(head * read, read));
        for (std::size_t i = 0; i < group * count; ++i) {
            const std::size_t q_head = head * group + i / count;
            std::copy_n(queries.row(q_head, i % count), input.size(), input.begin());
            undo(layer.position(first_head + head, shape.seq_len - count + i % count), input);
            profiler.add_head(
                layer_index,
                first_head * group + q_head,
                input,
                std::span<const float>(output).subspan(i * shape.value_dim, shape.value_dim));
        }
    }
}

} // namespace detail

/// How much attention changes what goes through a head: its query without RoPE against what it reads for it, over the
/// newest tokens.
/// @throws std::invalid_argument if values and queries differ in width
/// @see BaKlaVa, arXiv:2502.13176. Factors of layers are left at 1: they need the hidden states.
[[nodiscard]] inline head_profile profile_directions(const model_problem& problem) {
    const kv_shape shape = problem.shape();
    detail::require(shape.key_dim == shape.value_dim,
                    "baklava: keys have ",
                    shape.key_dim,
                    " channels and values ",
                    shape.value_dim,
                    "; what a head changes can only be told where both are as wide");
    const detail::rope_undo undo(problem.angles, shape.key_dim);
    baklava_profiler profiler(problem.layers.size(), problem.num_q_heads);
    for (std::size_t l = 0; l < problem.layers.size(); ++l) {
        const layer_access& layer = *problem.layers[l];
        detail::for_each_part(
            layer,
            problem.num_q_heads,
            [&](std::size_t first, const any_source& source, const query_view& queries) {
                detail::profile_part(layer, l, first, source, queries, undo, profiler);
            });
    }
    return profiler.profile(shape.num_kv_heads);
}

} // namespace v0
} // namespace kvcrush
