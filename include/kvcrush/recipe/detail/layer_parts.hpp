// SPDX-License-Identifier: Apache-2.0
/// @file
/// The kv heads of a layer, those together that hold as many rows.
#pragma once

#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/math/any_source.hpp>
#include <kvcrush/recipe/layer_access.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Calls visit(first_head, source, queries) for all kv heads at once where they hold as many rows, otherwise for one
/// after the other. `queries` are those of the query heads of these kv heads.
/// @param num_q_heads  of the model
/// @throws std::bad_alloc
template <typename Visit>
void for_each_part(const layer_access& layer, std::size_t num_q_heads, const Visit& visit) {
    const std::size_t all = layer.shape().num_kv_heads;
    const std::size_t together = layer.heads_are_even() ? all : 1;
    const std::size_t group = all == 0 ? 0 : num_q_heads / all;
    std::vector<std::byte> memory;
    for (std::size_t first = 0; first < all; first += together) {
        const heads_reader reader(layer, first, together, layer.rows(first));
        memory.resize((std::max)(memory.size(), any_source::scratch_bytes(reader.shape())));
        scratch room{std::span(memory)};
        visit(first,
              any_source(reader, room),
              layer.queries(first, together).heads(first * group, together * group));
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
