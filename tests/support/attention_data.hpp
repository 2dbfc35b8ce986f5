// SPDX-License-Identifier: Apache-2.0
/// @file
/// Attention rows of the specification's known answers.
#pragma once

#include <cstddef>
#include <vector>

namespace kvcrush::test {

/// Weights [num_q_heads, num_queries, seq_len] from rows of whole numbers, each divided by its sum.
[[nodiscard]] inline std::vector<float> normalised(const std::vector<std::vector<float>>& rows) {
    std::vector<float> weights;
    for (const std::vector<float>& row : rows) {
        float sum = 0.0F;
        for (const float value : row) {
            sum += value;
        }
        for (const float value : row) {
            weights.push_back(value / sum);
        }
    }
    return weights;
}

/// Two query heads, two window queries, six tokens before the window.
[[nodiscard]] inline std::vector<float> snapkv_known_weights() {
    return normalised({{1, 2, 8, 1, 2, 1, 1, 0},
                       {1, 1, 6, 1, 1, 1, 4, 1},
                       {4, 1, 1, 1, 6, 1, 2, 0},
                       {8, 1, 1, 1, 2, 1, 1, 1}});
}

/// One query head, five queries over five tokens.
[[nodiscard]] inline std::vector<float> h2o_known_weights() {
    return {1, 0, 0,    0,    0,    0.5F, 0.5F, 0,    0,    0,    0.5F, 0.25F, 0.25F,
            0, 0, 0.1F, 0.6F, 0.1F, 0.2F, 0,    0.1F, 0.1F, 0.5F, 0.1F, 0.2F};
}

} // namespace kvcrush::test
