// SPDX-License-Identifier: Apache-2.0
#include "query_watch.hpp"

#include "error.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <exception>
#include <ggml-backend.h>
#include <string_view>

namespace client {
namespace {

constexpr int longest_chain = 16;

/// The tensor of a cache that a node reads, through views and casts; nullptr if it is none.
[[nodiscard]] const ggml_tensor* cache_behind(const ggml_tensor* node, std::string_view prefix) {
    for (int i = 0; i < longest_chain && node != nullptr; ++i) {
        if (node->view_src == nullptr && node->op == GGML_OP_NONE) {
            return std::string_view(node->name).starts_with(prefix) ? node : nullptr;
        }
        node = node->view_src != nullptr ? node->view_src : node->src[0];
    }
    return nullptr;
}

[[nodiscard]] int layer_of(const ggml_tensor& cache, std::string_view prefix) {
    const std::string_view digits = std::string_view(cache.name).substr(prefix.size());
    int layer = -1;
    std::from_chars(digits.data(), digits.data() + digits.size(), layer);
    return layer;
}

/// Channels that are turned together by the product with a Hadamard matrix, if queries come from one.
[[nodiscard]] std::size_t rotation_of(const ggml_tensor* queries) {
    for (int i = 0; i < longest_chain && queries != nullptr; ++i) {
        for (const ggml_tensor* source : queries->src) {
            if (source != nullptr && std::string_view(source->name).find("attn_inp_k_rot") == 0) {
                return static_cast<std::size_t>(source->ne[0]);
            }
        }
        if (queries->op == GGML_OP_ROPE) {
            return 0;
        }
        queries = queries->src[0] != nullptr ? queries->src[0] : queries->view_src;
    }
    return 0;
}

[[nodiscard]] attention_facts facts_of(const ggml_tensor& node, const ggml_tensor& keys) {
    attention_facts facts;
    const ggml_tensor& queries = *node.src[0];
    facts.num_q_heads = static_cast<std::size_t>(queries.ne[2]);
    facts.num_kv_heads = static_cast<std::size_t>(node.src[1]->ne[2]);
    facts.key_dim = static_cast<std::size_t>(queries.ne[0]);
    facts.value_dim = static_cast<std::size_t>(node.src[2]->ne[0]);
    facts.cache_cells = static_cast<std::size_t>(keys.ne[1]);
    std::memcpy(&facts.scale, node.op_params, sizeof facts.scale);
    facts.rotated_channels = rotation_of(&queries);
    facts.shares_rows = cache_behind(node.src[2], "cache_v_l") == nullptr;
    return facts;
}

} // namespace

bool query_watch::callback(ggml_tensor* node, bool ask, void* self) noexcept {
    auto& watch = *static_cast<query_watch*>(self);
    if (!watch.watches_ || node->op != GGML_OP_FLASH_ATTN_EXT) {
        return !ask;
    }
    if (!ask) {
        try {
            watch.look(*node);
        } catch (const std::exception& error) {
            watch.trouble_ = error.what();
        }
    }
    return true;
}

void query_watch::begin(std::size_t at_least, std::size_t cells) {
    watches_ = true;
    at_least_ = at_least;
    cells_ = cells;
    facts_.clear();
    rows_.clear();
    trouble_.clear();
}

void query_watch::look(const ggml_tensor& node) {
    constexpr std::string_view prefix = "cache_k_l";
    const ggml_tensor* const keys = cache_behind(node.src[1], prefix);
    const int layer = keys == nullptr ? -1 : layer_of(*keys, prefix);
    const ggml_tensor& queries = *node.src[0];
    if (layer < 0) {
        lab::fail("a layer's attention reads no cache of keys, but ",
                  lab::in_quotes(node.src[1]->name));
    }
    if (queries.type != GGML_TYPE_F32 || queries.ne[3] != 1) {
        lab::fail("the queries of layer ",
                  layer,
                  " are ",
                  ggml_type_name(queries.type),
                  " of ",
                  queries.ne[3],
                  " streams; allowed: f32 of 1");
    }
    const attention_facts facts = facts_of(node, *keys);
    facts_.emplace(layer, facts);
    if (facts.cache_cells == cells_ && at_least_ > 0) {
        remember(layer, facts, queries);
    }
}

void query_watch::remember(int layer, const attention_facts& facts, const ggml_tensor& queries) {
    const ggml_backend_buffer_t buffer =
        queries.view_src != nullptr ? queries.view_src->buffer : queries.buffer;
    if (buffer != nullptr && !ggml_backend_buffer_is_host(buffer)) {
        lab::fail("the queries of layer ", layer, " do not lie in memory of the CPU");
    }
    const std::size_t width = facts.num_q_heads * facts.key_dim;
    const auto count = static_cast<std::size_t>(queries.ne[1]);
    std::vector<float>& rows = rows_[layer];
    // Old ones go now and then, since moving the rest costs.
    if (rows.size() > 2 * at_least_ * width) {
        rows.erase(rows.begin(), rows.end() - static_cast<std::ptrdiff_t>(at_least_ * width));
    }
    const std::size_t added = std::min(count, at_least_);
    const auto* const data = static_cast<const char*>(queries.data);
    for (std::size_t t = count - added; t < count; ++t) {
        for (std::size_t head = 0; head < facts.num_q_heads; ++head) {
            const auto* const row =
                reinterpret_cast<const float*>(data + t * queries.nb[1] + head * queries.nb[2]);
            rows.insert(rows.end(), row, row + facts.key_dim);
        }
    }
}

std::span<const float> query_watch::queries(int layer, std::size_t count) const {
    const auto rows = rows_.find(layer);
    const auto facts = facts_.find(layer);
    if (rows == rows_.end() || facts == facts_.end()) {
        return {};
    }
    const std::size_t floats = count * facts->second.num_q_heads * facts->second.key_dim;
    const std::span<const float> all(rows->second);
    return all.last(std::min(floats, all.size()));
}

void query_watch::check() const {
    if (!trouble_.empty()) {
        lab::fail(trouble_);
    }
    if (facts_.empty()) {
        lab::fail("no attention was seen: this llama.cpp does not compute it as FLASH_ATTN_EXT");
    }
}

} // namespace client
