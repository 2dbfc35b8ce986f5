// SPDX-License-Identifier: Apache-2.0
#include "evicting_cache.hpp"

#include <kvcrush/cache/gather.hpp>
#include <kvcrush/codec/dense.hpp>

#include "error.hpp"
#include "hadamard.hpp"

#include <algorithm>
#include <ggml.h>
#include <numeric>
#include <span>

namespace client {
namespace {

using lab::fail;

/// The newest `count` rows as floats, [count, heads, dim], in the basis of the model.
void decode_rows(const blob_rows& from,
                 std::size_t count,
                 const kvcrush::any_codec& codec,
                 std::size_t rotated,
                 std::vector<float>& out) {
    const std::size_t width = out.size() / count;
    const std::size_t first = from.bytes.size() - count * from.row_bytes;
    for (std::size_t i = 0; i < count; ++i) {
        codec.decode(from.bytes.subspan(first + i * from.row_bytes, from.row_bytes),
                     width,
                     std::span(out).subspan(i * width, width));
    }
    hadamard(out, rotated);
}

void show_queries(kvcrush::kv_cache& cache,
                  std::size_t index,
                  std::size_t count,
                  const model_layout& layout,
                  const query_watch& watch) {
    const std::span<const float> seen = watch.queries(layout.layers[index], count);
    std::vector<float> queries(seen.begin(), seen.end());
    hadamard(queries, layout.rotated_key_channels);
    std::transform(queries.begin(), queries.end(), queries.begin(), [&](float q) {
        return q * layout.query_scale;
    });
    if (!queries.empty()) {
        cache.observe(index, queries);
    }
}

/// The same number in every head.
[[nodiscard]] std::size_t rows_of_each(const std::vector<kvcrush::layer_choice>& choice) {
    const std::size_t rows = choice.front().kept.kept(0).size();
    for (std::size_t l = 0; l < choice.size(); ++l) {
        for (std::size_t head = 0; head < choice[l].kept.num_kv_heads(); ++head) {
            if (choice[l].kept.kept(head).size() != rows) {
                fail("head ",
                     head,
                     " of layer ",
                     l,
                     " keeps ",
                     choice[l].kept.kept(head).size(),
                     " rows, head 0 of layer 0 ",
                     rows,
                     "; llama.cpp's state has one number for all");
            }
        }
    }
    if (rows == 0) {
        fail("nothing would be kept; llama.cpp's state needs a cell");
    }
    return rows;
}

} // namespace

kvcrush::kv_cache make_cache(const model_layout& layout) {
    kvcrush::recipe everything;
    if (layout.cell_type == GGML_TYPE_F32) {
        everything.rows.dense = {kvcrush::dense_codec<float>{}, kvcrush::dense_codec<float>{}};
    }
    return kvcrush::kv_cache(layout.shape, everything);
}

void take_rows(kvcrush::kv_cache& cache,
               const state_blob& blob,
               const model_layout& layout,
               const query_watch& watch) {
    require_layout(blob, layout);
    const blob_cache& from = blob.caches.front();
    const std::size_t end = static_cast<std::size_t>(from.positions.back()) + 1;
    const std::size_t seen = cache.tokens_seen();
    const std::size_t added = end - std::min(seen, end);
    if (added == 0 || added > from.num_cells() ||
        static_cast<std::size_t>(from.positions[from.num_cells() - added]) != seen) {
        fail("the state ends at position ",
             end,
             " and has ",
             from.num_cells(),
             " cells; rows from position ",
             seen,
             " on are not among them");
    }
    const kvcrush::layer_extent extent = layout.shape.extent();
    std::vector<float> keys(added * extent.num_kv_heads * extent.key_dim);
    std::vector<float> values(added * extent.num_kv_heads * extent.value_dim);
    for (std::size_t l = 0; l < layout.layers.size(); ++l) {
        decode_rows(from.keys[l], added, layout.cells, layout.rotated_key_channels, keys);
        decode_rows(from.values[l], added, layout.cells, layout.rotated_value_channels, values);
        if (!cache.append(l, keys, values)) {
            fail("layer ",
                 layout.layers[l],
                 " of the state holds a number that is not finite, or too large for f16");
        }
        show_queries(cache, l, added, layout, watch);
    }
}

state_draft evict(const state_blob& blob,
                  const model_layout& layout,
                  const std::vector<kvcrush::layer_choice>& choice) {
    require_layout(blob, layout);
    if (choice.size() != layout.layers.size()) {
        fail("there are choices of ",
             choice.size(),
             " layers; the state has ",
             layout.layers.size());
    }
    const blob_cache& from = blob.caches.front();
    const std::size_t rows = rows_of_each(choice);
    const auto last = static_cast<std::size_t>(from.positions.back());
    if (rows > last + 1) {
        fail("each head would keep ", rows, " rows of ", last + 1, " tokens");
    }
    std::vector<std::int32_t> labels(rows);
    std::iota(labels.begin(), labels.end(), static_cast<std::int32_t>(last + 1 - rows));

    state_draft draft = draft_state(blob, labels);
    const std::size_t heads = layout.shape.num_kv_heads;
    const auto move = [&](const blob_rows& source,
                          const kvcrush::selection& kept,
                          std::span<std::byte> destination) {
        using kvcrush::byte_extent;
        const std::size_t row_bytes = source.row_bytes / heads;
        kvcrush::gather(
            {source.bytes, byte_extent::token_major(heads, from.num_cells(), row_bytes)},
            kept,
            {destination, byte_extent::token_major(heads, rows, row_bytes)});
    };
    for (std::size_t l = 0; l < choice.size(); ++l) {
        move(from.keys[l], choice[l].kept, draft.keys[l]);
        move(from.values[l], choice[l].kept, draft.values[l]);
    }
    return draft;
}

void write_rows(const kvcrush::kv_cache& cache, const model_layout& layout, state_draft& draft) {
    const kvcrush::layer_extent extent = layout.shape.extent();
    const std::size_t key_bytes = layout.key_row_bytes();
    const std::size_t value_bytes = layout.value_row_bytes();
    std::vector<float> key(extent.key_dim);
    std::vector<float> value(extent.value_dim);
    for (std::size_t l = 0; l < layout.layers.size(); ++l) {
        for (std::size_t head = 0; head < extent.num_kv_heads; ++head) {
            const kvcrush::stored_head& stored = cache.layer(l).heads()[head];
            std::vector<float> room(stored.read_room());
            std::size_t cell = 0;
            for (const auto& place : stored.by_age()) {
                stored.read_key(place.row, key, room);
                stored.read_value(place.row, value, room);
                hadamard(key, layout.rotated_key_channels);
                hadamard(value, layout.rotated_value_channels);
                const std::size_t at = cell++ * extent.num_kv_heads + head;
                if (!layout.cells.encode(
                        key, extent.key_dim, draft.keys[l].subspan(at * key_bytes, key_bytes)) ||
                    !layout.cells.encode(value,
                                         extent.value_dim,
                                         draft.values[l].subspan(at * value_bytes, value_bytes))) {
                    fail("the cells of layer ",
                         layout.layers[l],
                         " cannot hold a row that a codec gives back");
                }
            }
        }
    }
}

} // namespace client
