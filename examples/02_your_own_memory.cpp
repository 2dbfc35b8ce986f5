// SPDX-License-Identifier: Apache-2.0
// You will know how an engine that keeps its own memory, and attends with kernels that show no weights, lets kvcrush say
// which tokens stay: a view of the memory, the queries of the last tokens, one call per layer, rows moved in place.
#include <kvcrush/kvcrush.hpp>

#include <cstdio>
#include <numeric>
#include <span>
#include <vector>

using namespace kvcrush;
constexpr std::size_t num_layers = 3, num_q_heads = 8, num_kv_heads = 2, dim = 64, capacity = 2048;

/// What an engine has anyway: K and V of a layer, [num_kv_heads, capacity, dim].
struct layer_memory {
    std::vector<f16> keys = std::vector<f16>(num_kv_heads * capacity * dim);
    std::vector<f16> values = std::vector<f16>(num_kv_heads * capacity * dim);
};

/// A row of a pretended model; wanted keys lie where the queries look.
void fill(std::span<f16> row, std::uint64_t seed, bool wanted) {
    for (std::size_t c = 0; c < row.size(); ++c) {
        row[c] = to_f16(wanted ? 0.5F : random_unit(seed, 0, c) - 0.5F);
    }
}

int main() {
    constexpr std::size_t seen = 1500; // tokens of the prompt
    std::vector<layer_memory> layers(num_layers);
    for (std::size_t l = 0; l < num_layers; ++l) {
        for (std::size_t row = 0; row < num_kv_heads * capacity; ++row) {
            fill(std::span(layers[l].keys).subspan(row * dim, dim),
                 2 * row + l,
                 row % capacity % 97 == 50);
            fill(std::span(layers[l].values).subspan(row * dim, dim), 2 * row + l + 9000, false);
        }
    }

    // Once: policies are values, and plan() takes all memory that select() will work in.
    compressor crush(snapkv_scorer{}, kvcrush_selector<>{});
    const kv_shape shape{
        .num_kv_heads = num_kv_heads, .seq_len = seen, .key_dim = dim, .value_dim = dim};
    crush.plan({shape, num_q_heads}, budget::keep_ratio(0.25));

    // Flash attention shows no weights: keep the queries, after RoPE, in f32, of as many of the last tokens as this says.
    const std::size_t window = crush.num_queries(seen);
    const std::vector<float> queries(num_q_heads * window * dim, 0.5F);

    std::vector<token_index> positions(capacity); // in the text, of what a head of one layer keeps
    std::iota(positions.begin(), positions.end(), token_index{0});
    std::size_t stored = 0;
    for (layer_memory& layer : layers) {
        const kv_view kv(
            std::span(layer.keys), std::span(layer.values), shape, hnd{.capacity = capacity});
        const selection& kept = crush.select(kv, query_view(queries, num_q_heads, window, dim));
        compact(kv, kept); // the rows of head h are now tokens 0 .. stored - 1 of the same memory
        stored = kept.longest();
        if (&layer == &layers.back()) {
            compact_values(std::span(positions), kept.kept(0));
        }
    }
    std::size_t found = 0;
    std::size_t looked_at = 0;
    for (std::size_t t = 0; t < stored; ++t) {
        const bool wanted = positions[t] % 97 == 50;
        found += wanted ? 1U : 0U;
        looked_at += wanted && to_float(layers.back().keys[t * dim]) == 0.5F ? 1U : 0U;
    }
    std::printf("%zu of %zu tokens stay, asked for %zu queries\n", stored, seen, window);
    std::printf(
        "%zu of 15 keys that the queries look at are among them, their rows moved along: %zu\n",
        found,
        looked_at);
    std::printf(
        "the next token is number %zu of the text (RoPE), row %zu of the memory\n", seen, stored);
    return stored == seen / 4 && found >= 15 && looked_at == found ? 0 : 1;
}
