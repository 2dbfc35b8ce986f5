// SPDX-License-Identifier: Apache-2.0
/// @file
/// Which logged queries belong to the rows of a layer's cache.
#pragma once

#include <kvcrush/core/query_view.hpp>

#include "error.hpp"
#include "kv_cache.hpp"
#include "weights.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace lab {

/// A view has one length: policies that gave heads different ones cannot run again.
template <kvcrush::Element T>
void require_even(const layer_cache<T>& layer) {
    for (std::size_t head = 1; head < layer.num_kv_heads(); ++head) {
        if (layer.rows(head) != layer.rows(0)) {
            fail("the kv heads hold ",
                 layer.rows(0),
                 " and ",
                 layer.rows(head),
                 " tokens: a cache whose heads keep different numbers of them is not compressed a "
                 "second time");
        }
    }
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

/// The last `count` queries of a layer's log, [tokens, num_q_heads, head_dim].
[[nodiscard]] inline kvcrush::query_view
queries_of(std::span<const float> log, const model_config& config, std::size_t count) {
    const std::size_t width = config.num_q_heads * config.head_dim;
    const std::size_t logged = width == 0 ? 0 : log.size() / width;
    return kvcrush::query_view(
               log, config.num_q_heads, logged, config.head_dim, {config.head_dim, width, 1})
        .last(count);
}

} // namespace lab
