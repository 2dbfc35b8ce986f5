// SPDX-License-Identifier: Apache-2.0
/// @file
/// The k best tokens by sorting all of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

namespace kvcrush::reference {

/// Whether the first of two tokens is the better one: larger score first, NaN last, the earlier
/// token among equals.
template <typename Float>
bool is_better(std::span<const Float> scores, std::size_t left, std::size_t right) {
    const bool left_nan = std::isnan(scores[left]);
    const bool right_nan = std::isnan(scores[right]);
    if (left_nan != right_nan) {
        return right_nan;
    }
    if (!left_nan && scores[left] != scores[right]) {
        return scores[left] > scores[right];
    }
    return left < right;
}

/// Indices of the min(k, scores.size()) best tokens, ascending.
template <typename Float>
std::vector<std::uint32_t> top_k(std::span<const Float> scores, std::size_t k) {
    std::vector<std::uint32_t> order(scores.size());
    std::iota(order.begin(), order.end(), 0U);
    std::sort(order.begin(), order.end(), [&](std::uint32_t left, std::uint32_t right) {
        return is_better(scores, left, right);
    });
    order.resize((std::min)(k, order.size()));
    std::sort(order.begin(), order.end());
    return order;
}

} // namespace kvcrush::reference
