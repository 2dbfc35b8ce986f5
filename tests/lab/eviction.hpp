// SPDX-License-Identifier: Apache-2.0
/// @file
/// Takes rows away from a cache, and looks at those that stay.
#pragma once

#include <kvcrush/cache/kv_cache.hpp>
#include <kvcrush/core/selection.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace lab_test {

/// Other rows in every layer and head, and another number of them; the first head of the first layer keeps none, the second
/// one keeps all.
inline std::vector<kvcrush::layer_choice> random_choice(const kvcrush::kv_cache& cache,
                                                        std::uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<kvcrush::layer_choice> choice(cache.num_layers());
    for (std::size_t l = 0; l < choice.size(); ++l) {
        const std::size_t heads = cache.shape().num_kv_heads;
        choice[l].kept.reserve(heads, heads * cache.longest_head());
        choice[l].tokens_seen = cache.layer(l).tokens_seen();
        for (std::size_t head = 0; head < heads; ++head) {
            const auto share = l > 0 ? random() % 101 : head == 0 ? 0U : head == 1 ? 100U : 50U;
            for (std::size_t row = 0; row < cache.layer(l).rows(head); ++row) {
                if (random() % 100 < share) {
                    choice[l].kept.extend(1)[0] = static_cast<kvcrush::token_index>(row);
                }
            }
            choice[l].kept.end_head();
        }
    }
    return choice;
}

/// Positions of the rows of a head, ascending.
inline std::vector<std::size_t>
positions_of(const kvcrush::kv_cache& cache, std::size_t layer, std::size_t head) {
    std::vector<std::size_t> positions;
    for (const auto& place : cache.layer(layer).heads()[head].by_age()) {
        positions.push_back(place.position);
    }
    return positions;
}

/// Keys or values of a head by age, decoded: [rows, dim].
inline std::vector<float>
rows_of(const kvcrush::kv_cache& cache, std::size_t layer, std::size_t head, bool keys) {
    const kvcrush::stored_head& from = cache.layer(layer).heads()[head];
    const std::size_t dim = cache.shape().head_dim;
    std::vector<float> rows(from.rows() * dim);
    std::vector<float> room(from.read_room());
    std::span<float> left(rows);
    for (const auto& place : from.by_age()) {
        keys ? from.read_key(place.row, left.first(dim), room)
             : from.read_value(place.row, left.first(dim), room);
        left = left.subspan(dim);
    }
    return rows;
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
