// SPDX-License-Identifier: Apache-2.0
/// @file
/// This library's cache beside llama.cpp's: it is fed with the rows of states and the queries of attention, says which
/// rows stay, and writes the state that is left.
#pragma once

#include <kvcrush/cache/kv_cache.hpp>

#include "model_layout.hpp"

#include <cstddef>
#include <vector>

namespace client {

/// A cache for rows of such a model, that keeps everything until it is told a recipe.
[[nodiscard]] kvcrush::kv_cache make_cache(const model_layout& layout);

/// Adds the rows of the newest cells of a state, those of tokens that the cache has not seen, and the queries that were
/// watched since.
/// @throws lab::input_error if the state is not that of such a model, or does not go on where the cache ends
void take_rows(kvcrush::kv_cache& cache,
               const state_blob& blob,
               const model_layout& layout,
               const query_watch& watch);

/// The state with nothing but the chosen rows, per layer and kv head, as the bytes that they were. Their cells are labelled
/// with the newest positions: so the next token goes on where it would have, and positions stay dense.
/// @throws lab::input_error if the state is not that of such a model, or heads keep different numbers of rows: llama.cpp
///         has one number for all
[[nodiscard]] state_draft evict(const state_blob& blob,
                                const model_layout& layout,
                                const std::vector<kvcrush::layer_choice>& choice);

/// Writes the rows of a cache into the state, as far as its codecs kept them.
/// @param draft  of evict(), with as many cells as each head of the cache has rows
/// @throws lab::input_error if the cells cannot hold a row
void write_rows(const kvcrush::kv_cache& cache, const model_layout& layout, state_draft& draft);

} // namespace client
