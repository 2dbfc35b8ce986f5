// SPDX-License-Identifier: Apache-2.0
/// @file
/// Chunk scores of a repeat pass in double, one obvious loop each.
#pragma once

#include "attention.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace kvcrush::reference {

/// Scores [num_kv_heads, end - begin] of the rows [begin, end).
/// @param keys     [num_kv_heads, context + repeats, head_dim], the rows of the pass last
/// @param queries  [num_q_heads, repeats, head_dim]
inline std::vector<double> repeat_scores(std::span<const float> queries,
                                         std::span<const float> keys,
                                         std::size_t num_q_heads,
                                         std::size_t num_kv_heads,
                                         std::size_t context,
                                         std::size_t repeats,
                                         std::size_t head_dim,
                                         std::size_t sinks,
                                         std::size_t begin,
                                         std::size_t end,
                                         double scale) {
    const std::size_t held = context + repeats;
    std::vector<double> scores(num_kv_heads * (end - begin), 0.0);
    for (std::size_t head = 0; head < num_q_heads; ++head) {
        const std::size_t kv_head = head / (num_q_heads / num_kv_heads);
        for (std::size_t i = 0; i < repeats; ++i) {
            std::vector<double> logits;
            for (std::size_t row = 0; row < held; ++row) {
                const bool seen = row < sinks || (row >= begin && row < end) ||
                                  (row >= context && row - context <= i);
                if (seen) {
                    logits.push_back(
                        scale * dot(queries.subspan((head * repeats + i) * head_dim, head_dim),
                                    keys.subspan((kv_head * held + row) * head_dim, head_dim)));
                }
            }
            const std::vector<double> weights = softmax(logits);
            for (std::size_t j = 0; j < end - begin; ++j) {
                double& score = scores[kv_head * (end - begin) + j];
                score = std::max(score, weights[sinks + j]);
            }
        }
    }
    return scores;
}

} // namespace kvcrush::reference
