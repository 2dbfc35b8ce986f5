// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sums over attention weights that an engine hands over.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/query_view.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// mass[h, j] = sum over the queries of the weight that query head h pays to token j.
/// @param[out] mass  [num_q_heads, seq_len]
inline void attention_mass(const attention_view& attention, head_scores mass) noexcept {
    KVCRUSH_ASSERT(mass.num_heads() == attention.num_q_heads() &&
                   mass.seq_len() == attention.seq_len());
    std::fill(mass.values().begin(), mass.values().end(), 0.0F);
    for (std::size_t head = 0; head < attention.num_q_heads(); ++head) {
        const std::span<float> sums = mass.row(head);
        for (std::size_t query = 0; query < attention.num_queries(); ++query) {
            const std::span<const float> row = attention.row(head, query);
            for (std::size_t t = 0; t < row.size(); ++t) {
                sums[t] += row[t];
            }
        }
    }
}

} // namespace v0
} // namespace kvcrush
