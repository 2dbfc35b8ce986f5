// SPDX-License-Identifier: Apache-2.0
/// @file
/// Takes rows away from a cache in two ways that must agree: hidden where they are, and really removed.
#pragma once

#include "kv_cache.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace lab_test {

/// Evicts other rows in every layer and head, and another number of them; the first head of the first layer keeps
/// none, the second one keeps all.
inline void evict_at_random(lab::kv_cache& masked, lab::kv_cache& compacted, std::uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<std::vector<std::vector<std::uint8_t>>> hidden; // [layer][head][row]
    masked.visit([&](auto& layers) {
        for (auto& layer : layers) {
            hidden.emplace_back();
            for (std::size_t head = 0; head < layer.num_kv_heads(); ++head) {
                const auto share = hidden.size() > 1 ? random() % 101
                                   : head == 0       ? 100U
                                   : head == 1       ? 0U
                                                     : 50U;
                std::vector<std::uint8_t> mask(layer.rows(head));
                for (auto& row : mask) {
                    row = static_cast<std::uint8_t>(random() % 100 < share);
                }
                layer.hidden(head) = mask;
                hidden.back().push_back(mask);
            }
        }
    });
    compacted.visit([&](auto& layers) {
        for (std::size_t i = 0; i < layers.size(); ++i) {
            auto& layer = layers[i];
            for (std::size_t head = 0; head < layer.num_kv_heads(); ++head) {
                const auto dim = static_cast<std::ptrdiff_t>(layer.head_dim());
                std::size_t kept = 0;
                for (std::size_t row = 0; row < hidden[i][head].size(); ++row) {
                    if (hidden[i][head][row] != 0) {
                        continue;
                    }
                    const auto from = static_cast<std::ptrdiff_t>(row) * dim;
                    const auto to = static_cast<std::ptrdiff_t>(kept) * dim;
                    std::copy_n(
                        layer.keys(head).begin() + from, dim, layer.keys(head).begin() + to);
                    std::copy_n(
                        layer.values(head).begin() + from, dim, layer.values(head).begin() + to);
                    layer.positions(head)[kept++] = layer.positions(head)[row];
                }
                layer.keep_first(head, kept);
            }
        }
    });
}

/// The largest difference of two equally long lists; infinite if one holds a NaN.
template <typename A, typename B>
double largest_difference(const A& a, const B& b) {
    double largest = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
        largest = difference <= largest ? largest : std::isnan(difference) ? INFINITY : difference;
    }
    return largest;
}

} // namespace lab_test
