// SPDX-License-Identifier: Apache-2.0
#include "model_layout.hpp"

#include <kvcrush/attend/ggml_type.hpp>

#include "error.hpp"

#include <array>
#include <cmath>
#include <cstdlib>
#include <ggml.h>

namespace client {
namespace {

using lab::fail;

/// Layers that read the large cache; the rest slide.
[[nodiscard]] attention_facts
find_layers(const query_watch& watch, std::size_t cells, model_layout& layout) {
    attention_facts common;
    for (const auto& [layer, facts] : watch.layers()) {
        if (facts.shares_rows) {
            fail("layer ",
                 layer,
                 " has no values of its own (MLA); such models are not evicted from");
        }
        if (facts.cache_cells != cells) {
            ++layout.num_sliding_layers;
            continue;
        }
        if (layout.layers.empty()) {
            common = facts;
        } else if (!(facts == common)) {
            fail("layer ",
                 layer,
                 " has ",
                 facts.num_kv_heads,
                 " kv heads of ",
                 facts.key_dim,
                 " channels, layer ",
                 layout.layers.front(),
                 " has ",
                 common.num_kv_heads,
                 " of ",
                 common.key_dim,
                 "; allowed: layers that are alike");
        }
        layout.layers.push_back(layer);
    }
    if (layout.layers.empty()) {
        fail("all ",
             layout.num_sliding_layers,
             " layers have a sliding window; there is nothing to evict");
    }
    return common;
}

/// As llama.cpp decides: 64 channels of values, where they are quantised.
[[nodiscard]] std::size_t rotated_values(int type, std::size_t value_dim) {
    const char* const off = std::getenv("LLAMA_ATTN_ROT_DISABLE");
    const bool rotates = (off == nullptr || std::atoi(off) == 0) &&
                         ggml_is_quantized(static_cast<ggml_type>(type)) && value_dim % 64 == 0;
    return rotates ? 64 : 0;
}

[[nodiscard]] kvcrush::rope angles_of(const engine& engine, std::size_t head_dim) {
    kvcrush::rope angles;
    angles.theta = engine.number("rope.freq_base").value_or(angles.theta);
    const auto turning =
        static_cast<std::size_t>(engine.number("rope.dimension_count").value_or(0.0));
    angles.rotary_dim = turning < head_dim ? turning / 2 * 2 : 0;
    angles.pairing = llama_model_rope_type(&engine.model()) == LLAMA_ROPE_TYPE_NORM
                         ? kvcrush::rope_pairs::interleaved
                         : kvcrush::rope_pairs::half_split;
    return angles;
}

} // namespace

std::size_t least_cells(const engine& engine) {
    const std::size_t window = engine.sliding_window();
    return window == 0 ? 0 : context::rounded(window + context::batch_size) + 256;
}

model_layout probe(const engine& engine, context& cells, query_watch& watch) {
    watch.begin(0, cells.cells());
    const std::array<llama_token, 1> token{0};
    cells.decode(token, 0);
    cells.clear();
    watch.end();
    watch.check();

    model_layout layout;
    const attention_facts facts = find_layers(watch, cells.cells(), layout);
    layout.cell_type = cells.options().type;
    layout.cells = *kvcrush::codec_of_ggml_type(layout.cell_type);
    layout.cells.validate_for(facts.key_dim);
    layout.cells.validate_for(facts.value_dim);
    layout.shape = {.num_layers = layout.layers.size(),
                    .num_q_heads = facts.num_q_heads,
                    .num_kv_heads = facts.num_kv_heads,
                    .head_dim = facts.key_dim,
                    .value_dim = facts.value_dim,
                    .angles = angles_of(engine, facts.key_dim)};
    layout.query_scale = facts.scale * std::sqrt(static_cast<float>(facts.key_dim));
    layout.rotated_key_channels = facts.rotated_channels;
    layout.rotated_value_channels = rotated_values(layout.cell_type, facts.value_dim);
    return layout;
}

void require_layout(const state_blob& blob, const model_layout& layout) {
    const blob_cache& cache = blob.caches.front();
    if (cache.num_layers() != layout.layers.size()) {
        fail("the state has ",
             cache.num_layers(),
             " layers with full attention; the model has ",
             layout.layers.size());
    }
    const std::size_t heads = layout.shape.num_kv_heads;
    for (std::size_t l = 0; l < cache.num_layers(); ++l) {
        const blob_rows& keys = cache.keys[l];
        const blob_rows& values = cache.values[l];
        if (keys.type != layout.cell_type || values.type != layout.cell_type) {
            fail("layer ",
                 l,
                 " of the state has rows of ggml types ",
                 keys.type,
                 " and ",
                 values.type,
                 "; allowed: ",
                 layout.cell_type);
        }
        if (keys.row_bytes != heads * layout.key_row_bytes() ||
            values.row_bytes != heads * layout.value_row_bytes()) {
            fail("layer ",
                 l,
                 " of the state has rows of ",
                 keys.row_bytes,
                 " and ",
                 values.row_bytes,
                 " bytes; the model's have ",
                 heads * layout.key_row_bytes(),
                 " and ",
                 heads * layout.value_row_bytes());
        }
    }
}

} // namespace client
