// SPDX-License-Identifier: Apache-2.0
/// @file
/// KeyDiff in double, one obvious loop each.
#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace kvcrush::reference {

/// -cos of each key with the mean of all unit keys; 0 where a length is 0.
/// @param keys  [tokens][key_dim], finite
[[nodiscard]] inline std::vector<double> key_diff(const std::vector<std::vector<double>>& keys) {
    const auto length = [](const std::vector<double>& row) {
        double sum = 0.0;
        for (const double x : row) {
            sum += x * x;
        }
        return std::sqrt(sum);
    };
    std::vector<double> mean(keys.empty() ? 0 : keys[0].size(), 0.0);
    for (const std::vector<double>& key : keys) {
        for (std::size_t c = 0; c < key.size(); ++c) {
            mean[c] +=
                length(key) > 0.0 ? key[c] / length(key) / static_cast<double>(keys.size()) : 0.0;
        }
    }
    std::vector<double> scores;
    for (const std::vector<double>& key : keys) {
        double dot = 0.0;
        for (std::size_t c = 0; c < key.size(); ++c) {
            dot += key[c] * mean[c];
        }
        const double lengths = length(key) * length(mean);
        scores.push_back(lengths > 0.0 ? -dot / lengths : 0.0);
    }
    return scores;
}

} // namespace kvcrush::reference
