// SPDX-License-Identifier: Apache-2.0
/// @file
/// Causal attention weights of the last queries in double.
#pragma once

#include "attention.hpp"

#include <cstddef>
#include <span>
#include <vector>

namespace kvcrush::reference {

/// [num_q_heads, num_queries, seq_len]; query i is token seq_len - num_queries + i and sees the keys up to itself.
/// @param queries  [num_q_heads, num_queries, head_dim]
/// @param keys     [num_kv_heads, seq_len, head_dim]
inline std::vector<double> window_attention(std::span<const float> queries,
                                            std::span<const float> keys,
                                            std::size_t num_q_heads,
                                            std::size_t num_kv_heads,
                                            std::size_t num_queries,
                                            std::size_t seq_len,
                                            std::size_t head_dim,
                                            double scale) {
    std::vector<double> all(num_q_heads * num_queries * seq_len, 0.0);
    for (std::size_t row = 0; row < num_q_heads * num_queries; ++row) {
        const std::size_t kv_head = row / num_queries / (num_q_heads / num_kv_heads);
        const std::size_t last = seq_len - num_queries + row % num_queries;
        std::vector<double> logits;
        for (std::size_t j = 0; j <= last; ++j) {
            logits.push_back(scale *
                             dot(queries.subspan(row * head_dim, head_dim),
                                 keys.subspan((kv_head * seq_len + j) * head_dim, head_dim)));
        }
        const std::vector<double> weights = softmax(logits);
        for (std::size_t j = 0; j <= last; ++j) {
            all[row * seq_len + j] = weights[j];
        }
    }
    return all;
}

} // namespace kvcrush::reference
