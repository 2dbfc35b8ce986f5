// SPDX-License-Identifier: Apache-2.0
/// @file
/// A small cache of four layers for tests of what looks at a whole model.
#pragma once

#include <kvcrush/cache/kv_cache.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/recipe/recipe.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace kvcrush {

inline constexpr std::size_t num_layers = 4;
inline constexpr std::size_t num_kv_heads = 2;
inline constexpr std::size_t num_q_heads = 4;
inline constexpr std::size_t head_dim = 16;
inline constexpr area_sizes few{2, 6};

inline model_shape shape_of_model() {
    return {.num_layers = num_layers,
            .num_q_heads = num_q_heads,
            .num_kv_heads = num_kv_heads,
            .head_dim = head_dim};
}

/// Feeds `count` tokens more: random keys and values; heads of odd numbers look around, the others at what is near.
inline void feed(kv_cache& cache, std::size_t count) {
    const std::size_t first = cache.tokens_seen();
    for (std::size_t l = 0; l < num_layers; ++l) {
        const auto numbers = [&](std::size_t width, std::uint64_t what, float scale) {
            std::vector<float> rows(count * width);
            for (std::size_t i = 0; i < rows.size(); ++i) {
                rows[i] = scale * (random_unit(7 + l, what, first * width + i) - 0.5F);
            }
            return rows;
        };
        const std::vector<float> keys = numbers(num_kv_heads * head_dim, 1, 4.0F);
        const std::vector<float> values = numbers(num_kv_heads * head_dim, 2, 1.0F);
        std::vector<float> queries = numbers(num_q_heads * head_dim, 3, 4.0F);
        for (std::size_t i = 0; i < queries.size();
             ++i) { // the layers differ in how sharp they look
            queries[i] *= 1.0F + static_cast<float>(l + i / head_dim % num_q_heads);
        }
        EXPECT_TRUE(cache.append(l, keys, values));
        cache.observe(l, queries);
    }
}

inline kv_cache filled(recipe how, std::size_t count = 200) {
    how.areas = few;
    kv_cache cache(shape_of_model(), std::move(how));
    feed(cache, count);
    return cache;
}

/// Rows of all layers and heads together, or of one.
inline std::size_t rows_of(const kv_cache& cache) {
    return static_cast<std::size_t>(
        std::lround(cache.mean_rows() * static_cast<double>(num_layers * num_kv_heads)));
}
inline std::size_t rows_of(const kv_cache& cache, std::size_t layer, std::size_t head) {
    return cache.layer(layer).heads()[head].rows();
}
inline std::size_t rows_of_layer(const kv_cache& cache, std::size_t layer) {
    return rows_of(cache, layer, 0) + rows_of(cache, layer, 1);
}

} // namespace kvcrush
