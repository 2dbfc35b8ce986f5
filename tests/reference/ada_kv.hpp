// SPDX-License-Identifier: Apache-2.0
/// @file
/// Ada-KV by sorting the tokens of all heads.
#pragma once

#include "reference/top_k.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvcrush::reference {

/// How many of the `best` best scores of all rows each row has.
inline std::vector<std::size_t> pooled_counts(const std::vector<std::vector<float>>& rows,
                                              std::size_t best) {
    std::vector<float> all;
    std::vector<std::size_t> owner;
    for (std::size_t head = 0; head < rows.size(); ++head) {
        all.insert(all.end(), rows[head].begin(), rows[head].end());
        owner.insert(owner.end(), rows[head].size(), head);
    }
    std::vector<std::size_t> counts(rows.size());
    for (const std::uint32_t i : top_k(std::span<const float>(all), best)) {
        ++counts[owner[i]];
    }
    return counts;
}

/// The form with safe tokens: `even` middle tokens per head, `safe` of them for every head.
inline std::vector<std::size_t>
ada_kv_pooled(const std::vector<std::vector<float>>& rows, std::size_t even, std::size_t safe) {
    std::vector<std::vector<float>> others(rows.size());
    for (std::size_t head = 0; head < rows.size(); ++head) {
        std::vector<bool> is_safe(rows[head].size());
        for (const std::uint32_t i : top_k(std::span<const float>(rows[head]), safe)) {
            is_safe[i] = true;
        }
        for (std::size_t i = 0; i < rows[head].size(); ++i) {
            if (!is_safe[i]) {
                others[head].push_back(rows[head][i]);
            }
        }
    }
    std::vector<std::size_t> counts = pooled_counts(others, rows.size() * (even - safe));
    for (std::size_t& count : counts) {
        count += safe;
    }
    return counts;
}

/// The rounding of the authors' code.
inline std::vector<std::size_t>
ada_kv_published(const std::vector<std::vector<float>>& rows, std::size_t even, double floor) {
    std::vector<std::size_t> counts = pooled_counts(rows, rows.size() * even);
    for (std::size_t& count : counts) {
        count =
            static_cast<std::size_t>(std::nearbyint(static_cast<double>(count) * (1.0 - floor) +
                                                    std::floor(static_cast<double>(even) * floor)));
    }
    return counts;
}

} // namespace kvcrush::reference
