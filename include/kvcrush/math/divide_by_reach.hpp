// SPDX-License-Identifier: Apache-2.0
/// @file
/// From what queries paid to a token together to what each of those that could see it paid.
#pragma once

#include <kvcrush/core/head_scores.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Divides the mass of token j by the number of the last `num_queries` queries that could see it: min(num_queries,
/// seq_len - j), one at least.
/// @param mass  [heads, seq_len]
inline void divide_by_reach(head_scores mass, std::size_t num_queries) noexcept {
    for (std::size_t head = 0; head < mass.num_heads(); ++head) {
        const std::span<float> row = mass.row(head);
        for (std::size_t j = 0; j < row.size(); ++j) {
            row[j] /= static_cast<float>(
                (std::max)((std::min)(num_queries, row.size() - j), std::size_t{1}));
        }
    }
}

} // namespace v0
} // namespace kvcrush
