// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a model's state looks like to this library.
#pragma once

#include <kvcrush/attend/any_codec.hpp>
#include <kvcrush/cache/kv_cache.hpp>

#include "engine.hpp"
#include "query_watch.hpp"
#include "state_blob.hpp"

#include <cstddef>
#include <vector>

namespace client {

/// The layers with full attention, whose rows can be evicted, and how their rows are stored.
struct model_layout {
    std::vector<int> layers; ///< their numbers in the model, ascending
    std::size_t num_sliding_layers = 0;
    kvcrush::model_shape shape{};
    kvcrush::any_codec cells{}; ///< element type of the cache, keys and values alike
    int cell_type = 0;          ///< enum ggml_type
    float query_scale =
        1.0F; ///< makes softmax(q k / sqrt(head_dim)) of the library what llama.cpp computes
    std::size_t rotated_key_channels = 0;   ///< Hadamard blocks, 0 for none
    std::size_t rotated_value_channels = 0; ///< likewise

    /// Caches that a state holds.
    [[nodiscard]] std::size_t num_caches() const noexcept { return num_sliding_layers > 0 ? 2 : 1; }
    [[nodiscard]] std::size_t key_row_bytes() const noexcept {
        return cells.group_bytes(shape.head_dim);
    }
    [[nodiscard]] std::size_t value_row_bytes() const noexcept {
        return cells.group_bytes(shape.extent().value_dim);
    }
};

/// Cells that a context must have so that its sliding layers can be told from the others.
[[nodiscard]] std::size_t least_cells(const engine& engine);

/// Reads a token and looks how it was done; the context is empty afterwards, and before.
/// @param cells  its context's element type and number of cells; watch is the one it was made with
/// @throws lab::input_error if the library cannot evict from such a model: all layers slide, layers of different shapes,
///         MLA, head widths that a cell type cannot hold
[[nodiscard]] model_layout probe(const engine& engine, context& cells, query_watch& watch);

/// @throws lab::input_error unless the first cache of a state has these layers with these rows
void require_layout(const state_blob& blob, const model_layout& layout);

} // namespace client
