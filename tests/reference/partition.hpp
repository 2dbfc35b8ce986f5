// SPDX-License-Identifier: Apache-2.0
/// @file
/// Partition-wise selection, written to be read.
#pragma once

#include "top_k.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace kvcrush::reference {

/// Shares in proportion to the lengths, by largest remainder, ties to the earlier one.
[[nodiscard]] inline std::vector<std::size_t>
largest_remainder(const std::vector<std::size_t>& lengths, std::size_t budget) {
    const std::size_t total = std::accumulate(lengths.begin(), lengths.end(), std::size_t{0});
    std::vector<std::size_t> shares;
    std::vector<std::size_t> remainders;
    std::vector<std::size_t> order;
    std::size_t left = budget;
    for (const std::size_t length : lengths) {
        order.push_back(order.size());
        shares.push_back(budget * length / total);
        remainders.push_back(budget * length % total);
        left -= shares.back();
    }
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return remainders[a] > remainders[b];
    });
    for (std::size_t i = 0; i < left; ++i) {
        ++shares[order[i]];
    }
    return shares;
}

/// The tokens of one head that stay, ascending.
[[nodiscard]] inline std::vector<std::uint32_t> partition_wise(std::span<const float> scores,
                                                               std::size_t middle_begin,
                                                               std::size_t middle_end,
                                                               std::size_t lag,
                                                               std::size_t budget) {
    std::vector<std::size_t> lengths;
    for (std::size_t first = middle_begin; first < middle_end; first += lag) {
        lengths.push_back((std::min)(lag, middle_end - first));
    }
    std::vector<std::uint32_t> kept;
    for (std::size_t t = 0; t < middle_begin; ++t) {
        kept.push_back(static_cast<std::uint32_t>(t));
    }
    const std::vector<std::size_t> shares = largest_remainder(lengths, budget);
    for (std::size_t p = 0; p < lengths.size(); ++p) {
        const std::size_t first = middle_begin + p * lag;
        for (const std::uint32_t t : top_k(scores.subspan(first, lengths[p]), shares[p])) {
            kept.push_back(static_cast<std::uint32_t>(first) + t);
        }
    }
    for (std::size_t t = middle_end; t < scores.size(); ++t) {
        kept.push_back(static_cast<std::uint32_t>(t));
    }
    return kept;
}

} // namespace kvcrush::reference
