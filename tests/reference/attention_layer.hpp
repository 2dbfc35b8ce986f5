// SPDX-License-Identifier: Apache-2.0
/// @file
/// Random layers of ragged shapes, what scorers make of them, and their attention in double.
#pragma once

#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/scorer.hpp>

#include "attention.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace kvcrush::reference {

struct attention_layer {
    std::size_t num_kv_heads = 0;
    std::size_t group_size = 0;
    std::size_t seq_len = 0;
    std::size_t head_dim = 0;
    /// [num_kv_heads, seq_len, head_dim]
    std::vector<float> keys{};
    /// [num_q_heads, seq_len, head_dim]: a query for every token
    std::vector<float> queries{};

    attention_layer(std::size_t kv_heads,
                    std::size_t group,
                    std::size_t tokens,
                    std::size_t dim,
                    std::uint64_t seed = 0)
        : num_kv_heads(kv_heads),
          group_size(group),
          seq_len(tokens),
          head_dim(dim),
          keys(kv_heads * tokens * dim),
          queries(kv_heads * group * tokens * dim) {
        for (std::size_t i = 0; i < keys.size(); ++i) {
            // Multiples of 1/64 are the same in every element type.
            keys[i] = std::round((random_unit(seed, dim, i) * 2.0F - 1.0F) * 64.0F) / 64.0F;
        }
        for (std::size_t i = 0; i < queries.size(); ++i) {
            queries[i] = random_unit(seed + 1, dim, i) * 4.0F - 2.0F;
        }
    }

    [[nodiscard]] std::size_t num_q_heads() const { return num_kv_heads * group_size; }
    [[nodiscard]] kv_shape shape() const { return {num_kv_heads, seq_len, head_dim, head_dim}; }
    [[nodiscard]] kv_view<const float> kv() const { return {keys, keys, shape()}; }
    [[nodiscard]] query_view all_queries() const {
        return {queries, num_q_heads(), seq_len, head_dim};
    }
    /// One kv head with its query heads.
    [[nodiscard]] attention_layer kv_head(std::size_t head) const {
        attention_layer part(1, group_size, seq_len, head_dim);
        const std::size_t floats = seq_len * head_dim;
        std::copy_n(keys.data() + head * floats, floats, part.keys.data());
        std::copy_n(
            queries.data() + head * group_size * floats, group_size * floats, part.queries.data());
        return part;
    }
    [[nodiscard]] std::span<const float> key(std::size_t head, std::size_t token) const {
        return std::span(keys).subspan((head * seq_len + token) * head_dim, head_dim);
    }
    [[nodiscard]] std::span<const float> query(std::size_t head, std::size_t token) const {
        return std::span(queries).subspan((head * seq_len + token) * head_dim, head_dim);
    }
    [[nodiscard]] double logit(std::size_t head, std::size_t query_token, std::size_t token) const {
        return dot(query(head, query_token), key(head / group_size, token)) /
               std::sqrt(static_cast<double>(head_dim));
    }
    /// What the last `count` queries (0 = all) pay to each token, [num_q_heads, seq_len].
    [[nodiscard]] std::vector<double> mass(std::size_t count) const {
        std::vector<double> sums(num_q_heads() * seq_len, 0.0);
        const std::size_t first = count == 0 ? 0 : seq_len - std::min(count, seq_len);
        for (std::size_t h = 0; h < num_q_heads(); ++h) {
            for (std::size_t i = first; i < seq_len; ++i) {
                const std::vector<double> weights = softmax(logits(h, i));
                for (std::size_t j = 0; j <= i; ++j) {
                    sums[h * seq_len + j] += weights[j];
                }
            }
        }
        return sums;
    }
    /// Logits of one query for the tokens it sees.
    [[nodiscard]] std::vector<double> logits(std::size_t head, std::size_t query_token) const {
        std::vector<double> row;
        for (std::size_t j = 0; j <= query_token; ++j) {
            row.push_back(logit(head, query_token, j));
        }
        return row;
    }
    /// Attention weights of all queries, [num_q_heads, seq_len, seq_len].
    [[nodiscard]] std::vector<float> weights() const {
        std::vector<float> all(num_q_heads() * seq_len * seq_len, 0.0F);
        for (std::size_t h = 0; h < num_q_heads(); ++h) {
            for (std::size_t i = 0; i < seq_len; ++i) {
                const std::vector<double> row = softmax(logits(h, i));
                for (std::size_t j = 0; j <= i; ++j) {
                    all[(h * seq_len + i) * seq_len + j] = static_cast<float>(row[j]);
                }
            }
        }
        return all;
    }

    /// Relative error of a mass: a logit is off by at most (head_dim + 2) 2^-23 m with m = scale * sum |q| |k|, which
    /// acts on a weight and on the sum it is divided by; as much again for the softmax (2^-18) and for sums.
    [[nodiscard]] double bound() const {
        const double magnitude = 2.0 * std::sqrt(static_cast<double>(head_dim));
        return 2.0 * (static_cast<double>(head_dim) + 4.0) * 0x1p-23 * magnitude + 0x1p-16 +
               static_cast<double>(seq_len) * 0x1p-23;
    }

    /// Scores of an attention or direct scorer, [num_kv_heads, seq_len], with scratch memory of just the size asked
    /// for.
    template <typename S>
    [[nodiscard]] std::vector<float> scores_of(const S& scorer) const {
        return scores_of(scorer, kv(), all_queries().last(scorer.num_queries(seq_len)));
    }
    template <typename S, typename Kv>
    [[nodiscard]] std::vector<float>
    scores_of(const S& scorer, const Kv& cache, const query_view& asking) const {
        const problem_size size{shape(), num_q_heads()};
        std::vector<std::byte> memory(scorer.scratch_bytes(size));
        const scratch pieces{std::span(memory)};
        const std::size_t heads = num_observed_heads(scorer, size);
        std::vector<float> seen(heads * seq_len);
        std::vector<float> decisive(num_kv_heads * seq_len);
        observe(scorer, {seen, heads, seq_len}, pieces, cache, asking);
        const const_head_scores scores = reduce(
            scorer, head_scores(seen, heads, seq_len), {decisive, num_kv_heads, seq_len}, pieces);
        return {scores.values().begin(), scores.values().end()};
    }

    [[nodiscard]] std::string text() const {
        return std::to_string(num_kv_heads) + " kv heads, group " + std::to_string(group_size) +
               ", " + std::to_string(seq_len) + " tokens, dim " + std::to_string(head_dim);
    }
};

/// Shapes around the edges of tiles and blocks.
[[nodiscard]] inline std::vector<attention_layer> ragged_layers() {
    return {{1, 1, 0, 64},
            {1, 1, 1, 7},
            {2, 3, 9, 64},
            {1, 4, 63, 80},
            {2, 1, 64, 96},
            {1, 7, 65, 33},
            {1, 8, 130, 128},
            {3, 3, 200, 16},
            {1, 2, 70, 256}};
}

inline constexpr std::array bad_numbers{std::numeric_limits<float>::quiet_NaN(),
                                        std::numeric_limits<float>::infinity(),
                                        -std::numeric_limits<float>::infinity(),
                                        std::numeric_limits<float>::max()};

/// Layers with bad numbers in a key, in a query, and in everything.
[[nodiscard]] inline std::vector<attention_layer> spoilt_layers(float bad) {
    std::vector<attention_layer> layers(3, attention_layer(2, 2, 70, 8));
    layers[0].keys[5 * 8 + 3] = bad;
    layers[1].queries[69 * 8 + 1] = bad;
    std::fill(layers[2].keys.begin(), layers[2].keys.end(), bad);
    return layers;
}

} // namespace kvcrush::reference
