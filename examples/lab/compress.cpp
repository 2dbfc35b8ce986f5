// SPDX-License-Identifier: Apache-2.0
#include "compress.hpp"

#include "layer_view.hpp"
#include "stopwatch.hpp"

#include <algorithm>
#include <cstdint>
#include <span>
#include <variant>

namespace lab {
namespace {

/// Layers draw apart: one seed for all would keep the same random tokens everywhere.
template <typename Scorer>
[[nodiscard]] Scorer for_layer(Scorer scorer, std::size_t layer) {
    if constexpr (requires { scorer.seed; }) {
        scorer.seed = kvcrush::random_bits(scorer.seed, 1, layer);
    }
    return scorer;
}

/// The newest rows that are neighbours in the text, in every head: only their queries know which rows are older.
template <kvcrush::Element T>
[[nodiscard]] std::size_t contiguous_tail(const layer_cache<T>& layer) {
    std::size_t shortest = layer.rows(0);
    for (std::size_t head = 0; head < layer.num_kv_heads(); ++head) {
        const std::span<const std::uint32_t> positions = layer.positions(head);
        std::size_t tail = positions.empty() ? 0 : 1;
        while (tail < positions.size() &&
               positions[positions.size() - tail - 1] + 1 == positions[positions.size() - tail]) {
            ++tail;
        }
        shortest = (std::min)(shortest, tail);
    }
    return shortest;
}

[[nodiscard]] kvcrush::query_view queries_of(std::span<const float> log,
                                             std::size_t num_q_heads,
                                             std::size_t head_dim,
                                             std::size_t count) {
    const std::size_t width = num_q_heads * head_dim;
    const std::size_t logged = width == 0 ? 0 : log.size() / width;
    return kvcrush::query_view(log, num_q_heads, logged, head_dim, {head_dim, width, 1})
        .last(count);
}

template <kvcrush::Element T>
void compress_layer(layer_cache<T>& layer,
                    std::span<const float> log,
                    std::size_t num_q_heads,
                    std::size_t layer_index,
                    const policy& how,
                    const kvcrush::budget& budget,
                    compression& result) {
    const layer_view<T> view(layer);
    std::visit(
        [&](const auto& scorer) {
            kvcrush::compressor crush(for_layer(scorer, layer_index),
                                      how.selector.for_layer(layer_index));
            crush.plan({view.shape(), num_q_heads}, budget);
            const kvcrush::query_view queries =
                queries_of(log, num_q_heads, layer.head_dim(), contiguous_tail(layer));
            const stopwatch watch;
            const kvcrush::selection& kept = crush.select(view, queries);
            result.select_ms += watch.milliseconds();
            result.kept.push_back(kept);
        },
        how.scorer);

    const kvcrush::selection& kept = result.kept.back();
    const stopwatch watch;
    kvcrush::compact(view, kept);
    for (std::size_t head = 0; head < layer.num_kv_heads(); ++head) {
        kvcrush::compact_values(layer.positions(head), kept.kept(head));
        layer.keep_first(head, kept.kept(head).size());
    }
    result.compact_ms += watch.milliseconds();
}

} // namespace

kvcrush::budget budget_for(const policy& how, double keep_ratio, std::size_t context) {
    const kvcrush::budget budget = kvcrush::budget::keep_ratio(keep_ratio, how.areas);
    static_cast<void>(budget.tokens_for(context)); // throws here rather than after the prefill
    return budget;
}

compression compress(kv_cache& cache,
                     const query_log& queries,
                     std::size_t num_q_heads,
                     const policy& how,
                     const kvcrush::budget& budget) {
    compression result;
    std::size_t rows = 0;
    std::size_t heads = 0;
    std::size_t position_bytes = 0;
    cache.visit([&](auto& layers) {
        for (std::size_t l = 0; l < layers.size(); ++l) {
            if (!how.full) {
                compress_layer(
                    layers[l], queries.layers.at(l), num_q_heads, l, how, budget, result);
                position_bytes += layers[l].position_bytes_held();
            }
            for (std::size_t head = 0; head < layers[l].num_kv_heads(); ++head) {
                rows += layers[l].rows(head);
                ++heads;
            }
        }
    });
    result.kept_tokens_mean =
        heads == 0 ? 0.0 : static_cast<double>(rows) / static_cast<double>(heads);
    result.bytes_held = cache.bytes_held() + position_bytes;
    return result;
}

} // namespace lab
