// SPDX-License-Identifier: Apache-2.0
/// @file
/// Key-sign portraits, written to be read: two passes for the deviation, a full sort for the choice, vectors of bool.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

namespace kvcrush::reference {

struct key_signs {
    std::vector<std::size_t> channels;   ///< ascending
    std::vector<std::vector<bool>> bits; ///< [tokens][channels]
    std::vector<bool> anchor;            ///< [channels]
};

/// @param keys   [middle tokens][key_dim]
/// @param count  channels that make bits
[[nodiscard]] inline key_signs
key_sign(const std::vector<std::vector<double>>& keys, std::size_t key_dim, std::size_t count) {
    std::vector<double> means(key_dim, 0.0);
    std::vector<double> strengths(key_dim, 0.0);
    for (std::size_t c = 0; c < key_dim; ++c) {
        std::vector<double> values;
        for (const std::vector<double>& key : keys) {
            if (std::isfinite(key[c])) {
                values.push_back(key[c]);
            }
        }
        const auto n = static_cast<double>(values.size());
        const bool constant =
            std::all_of(values.begin(), values.end(), [&](double v) { return v == values[0]; });
        if (values.empty()) {
            continue;
        }
        means[c] = constant ? values[0] : std::accumulate(values.begin(), values.end(), 0.0) / n;
        double squares = 0.0;
        for (const double value : values) {
            squares += (value - means[c]) * (value - means[c]);
        }
        if (!constant) {
            strengths[c] = std::abs(means[c]) / std::sqrt(squares / (n - 1.0));
        } else if (means[c] != 0.0) {
            strengths[c] = std::numeric_limits<double>::infinity();
        }
    }
    std::vector<std::size_t> order(key_dim);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return strengths[a] > strengths[b];
    });
    order.resize((std::min)(count, key_dim));
    std::sort(order.begin(), order.end());

    key_signs signs;
    signs.channels = order;
    for (const std::vector<double>& key : keys) {
        signs.bits.emplace_back();
        for (const std::size_t c : order) {
            signs.bits.back().push_back(key[c] > 0.0);
        }
    }
    for (const std::size_t c : order) {
        signs.anchor.push_back(means[c] > 0.0);
    }
    return signs;
}

} // namespace kvcrush::reference
