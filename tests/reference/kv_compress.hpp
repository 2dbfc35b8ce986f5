// SPDX-License-Identifier: Apache-2.0
/// @file
/// KV-Compress by sorting every token and every block.
#pragma once

#include "reference/top_k.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>
#include <vector>

namespace kvcrush::reference {

/// Tokens that each head keeps when the `wanted` cheapest blocks are freed. `first` and `last` tokens of each row are
/// protected, and so is a metric of +inf.
inline std::vector<std::size_t> kv_compress(const std::vector<std::vector<float>>& metrics,
                                            std::size_t first,
                                            std::size_t last,
                                            std::size_t block_size,
                                            std::size_t wanted) {
    struct block {
        float cost;
        std::size_t head;
        std::size_t gone;
    };
    const auto cheaper = [](float a, float b) {
        return std::isnan(a) ? !std::isnan(b) : (!std::isnan(b) && a < b);
    };
    std::vector<block> blocks;
    std::vector<std::size_t> counts;
    for (std::size_t head = 0; head < metrics.size(); ++head) {
        const std::vector<float>& row = metrics[head];
        counts.push_back(row.size());
        std::vector<float> order;
        for (std::size_t i = first; i + last < row.size(); ++i) {
            if (!(std::isinf(row[i]) && row[i] > 0.0F)) {
                order.push_back(row[i]);
            }
        }
        std::sort(order.begin(), order.end(), cheaper);
        if (row.empty()) {
            continue;
        }
        for (std::size_t gone = (row.size() - 1) % block_size + 1; gone <= order.size();
             gone += block_size) {
            blocks.push_back({order[gone - 1], head, gone});
        }
    }
    std::stable_sort(blocks.begin(), blocks.end(), [&](const block& a, const block& b) {
        return cheaper(a.cost, b.cost);
    });
    blocks.resize((std::min)(wanted, blocks.size()));
    for (const block& freed : blocks) {
        counts[freed.head] =
            (std::min)(counts[freed.head], metrics[freed.head].size() - freed.gone);
    }
    return counts;
}

} // namespace kvcrush::reference
