// SPDX-License-Identifier: Apache-2.0
/// @file
/// Looks over llama.cpp's shoulder while it reads: the queries of every layer, and how its attention is computed.
#pragma once

#include <cstddef>
#include <ggml.h>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace client {

/// How one layer attends, read off its FLASH_ATTN_EXT node.
struct attention_facts {
    std::size_t num_q_heads = 0;
    std::size_t num_kv_heads = 0;
    std::size_t key_dim = 0;
    std::size_t value_dim = 0;
    /// Cells of the cache that the layer reads; sliding-window layers have one of their own.
    std::size_t cache_cells = 0;
    /// What products of queries and keys are multiplied by.
    float scale = 1.0F;
    /// Channels that llama.cpp turns together (Hadamard) before rows are stored; 0 for none.
    std::size_t rotated_channels = 0;
    /// Whether values are the keys again (MLA).
    bool shares_rows = false;

    friend bool operator==(const attention_facts&, const attention_facts&) = default;
};

/// The callback of a context (cb_eval): it sees the queries as attention itself does, after RoPE, norms and whatever else
/// a model does to them, whichever names it gives its nodes.
/// It runs inside C frames, where nothing may be thrown: what goes wrong is kept, and said by check().
class query_watch {
public:
    /// For llama_context_params::cb_eval; `self` is a query_watch.
    static bool callback(ggml_tensor* node, bool ask, void* self) noexcept;

    /// Watches from now on, and forgets what it saw. Only layers whose cache has `cells` cells are remembered.
    /// @param at_least  the newest queries to keep, of each layer; older ones may go
    void begin(std::size_t at_least, std::size_t cells);
    void end() noexcept { watches_ = false; }

    /// By number of layer; of all layers, also those whose queries are not kept.
    [[nodiscard]] const std::map<int, attention_facts>& layers() const noexcept { return facts_; }
    /// [queries, num_q_heads, key_dim], the oldest first, at most the newest `count`.
    [[nodiscard]] std::span<const float> queries(int layer, std::size_t count) const;
    /// @throws lab::input_error if something could not be seen
    void check() const;

private:
    void look(const ggml_tensor& node);
    void remember(int layer, const attention_facts& facts, const ggml_tensor& queries);

    bool watches_ = false;
    std::size_t at_least_ = 0;
    std::size_t cells_ = 0;
    std::map<int, attention_facts> facts_;
    std::map<int, std::vector<float>> rows_;
    std::string trouble_;
};

} // namespace client
