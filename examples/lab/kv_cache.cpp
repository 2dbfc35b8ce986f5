// SPDX-License-Identifier: Apache-2.0
#include "kv_cache.hpp"

#include <kvcrush/simd/convert.hpp>

#include <type_traits>

namespace lab {
namespace {

/// Dense rows of one layer, encoded.
template <typename T>
[[nodiscard]] kvcrush::kv_sequence encode_layer(const layer_cache<T>& layer,
                                                const codec_choice& how,
                                                const std::vector<std::vector<std::uint8_t>>& tiers,
                                                std::size_t index) {
    const std::size_t dim = layer.head_dim();
    kvcrush::kv_sequence rows({.num_kv_heads = layer.num_kv_heads(),
                               .key_dim = dim,
                               .value_dim = dim,
                               .dense = {kvcrush::dense_codec<T>{}, kvcrush::dense_codec<T>{}},
                               .sinks = how.sinks,
                               .tiers = how.tiers,
                               .window = how.window,
                               .attention = how.attention});
    std::vector<float> key(dim);
    std::vector<float> value(dim);
    for (std::size_t head = 0; head < layer.num_kv_heads(); ++head) {
        for (std::size_t r = 0; r < layer.rows(head); ++r) {
            kvcrush::simd::to_float<T>(layer.keys(head).subspan(r * dim, dim), key);
            kvcrush::simd::to_float<T>(layer.values(head).subspan(r * dim, dim), value);
            if (!rows.append_row(head, key, value, layer.positions(head)[r])) {
                fail("layer ", index, ", kv head ", head, ": row ", r, " holds NaN or infinity");
            }
        }
        const std::vector<std::uint8_t> first(layer.rows(head), 0);
        if (!rows.encode(head, tiers.empty() ? first : tiers[head])) {
            fail("layer ",
                 index,
                 ", kv head ",
                 head,
                 " holds rows that the codecs of the policy cannot store");
        }
    }
    rows.shrink_to_fit();
    return rows;
}

} // namespace

void kv_cache::encode(const codec_choice& how,
                      const std::vector<std::vector<std::vector<std::uint8_t>>>& tiers) {
    if (is_coded()) {
        fail("a cache is encoded once; evict from it, or decode it first");
    }
    std::vector<kvcrush::kv_sequence> coded;
    visit([&](auto& layers) {
        for (std::size_t l = 0; l < layers.size(); ++l) {
            static const std::vector<std::vector<std::uint8_t>> one_tier;
            coded.push_back(encode_layer(layers[l], how, tiers.empty() ? one_tier : tiers[l], l));
        }
        layers.clear();
        layers.shrink_to_fit();
    });
    coded_ = std::move(coded);
}

kv_cache kv_cache::decoded() const {
    const kvcrush::sequence_options& shape = coded_.front().options();
    kv_cache result(cache_type::f32, coded_.size(), shape.num_kv_heads, shape.key_dim);
    result.tokens_seen_ = tokens_seen_;
    layers_of<float>& layers = result.layers<float>();
    for (std::size_t l = 0; l < coded_.size(); ++l) {
        for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
            const std::size_t rows = coded_[l].rows(head);
            std::vector<float> keys(rows * shape.key_dim);
            std::vector<float> values(rows * shape.value_dim);
            coded_[l].decode(head, keys, values);
            std::vector<std::uint32_t> positions;
            for (const kvcrush::row_store& store : coded_[l].stores(head)) {
                const std::vector<kvcrush::token_index> own = store.positions().values();
                positions.insert(positions.end(), own.begin(), own.end());
            }
            std::sort(positions.begin(), positions.end());
            layers[l].reserve(head, rows);
            for (std::size_t r = 0; r < rows; ++r) {
                layers[l].append(head,
                                 std::span(keys).subspan(r * shape.key_dim, shape.key_dim),
                                 std::span(values).subspan(r * shape.value_dim, shape.value_dim),
                                 positions[r]);
            }
        }
    }
    return result;
}

} // namespace lab
