// SPDX-License-Identifier: Apache-2.0
/// @file
/// Logits of a few queries as rows, for scorers that change them before the softmax. attention_mass is the faster way
/// where nothing is changed.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/math/row_batches.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/logits.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {
/// Which rows of logits to compute: queries [query, query + num_queries) of the query heads [head, head + num_heads),
/// all of which read `kv_head`.
struct logits_block {
    std::size_t kv_head = 0;
    std::size_t head = 0;
    std::size_t num_heads = 0;
    std::size_t query = 0;
    std::size_t num_queries = 0;
    /// The keys [0, num_keys).
    std::size_t num_keys = 0;
};

/// Floats of scratch memory that window_logits needs.
[[nodiscard]] constexpr std::size_t window_logits_workspace(std::size_t head_dim) noexcept {
    return 2 * simd::key_tile * head_dim;
}

/// Dot products of queries with keys, in fp32; not causal.
///
///     logits[h, i, j] = scale * q[head + h, query + i] k[kv_head, j]
/// @param[in]  kv         keys of any layout and element type; V is not read
/// @param[in]  queries    [num_q_heads, num_queries, key_dim], after RoPE
/// @param[out] logits     [num_heads, num_queries, num_keys] of the block
/// @param      workspace  window_logits_workspace(key_dim) floats
/// @note  O(num_heads * num_queries * num_keys * head_dim); keys are packed once per call
template <KvSource Kv>
void window_logits(const Kv& kv,
                   const query_view& queries,
                   const logits_block& block,
                   float scale,
                   std::span<float> logits,
                   std::span<float> workspace,
                   simd::isa at_most = simd::best()) noexcept {
    const std::size_t head_dim = queries.head_dim();
    KVCRUSH_ASSERT(kv.shape().key_dim == head_dim && block.num_keys <= kv.shape().seq_len);
    KVCRUSH_ASSERT(block.query + block.num_queries <= queries.num_queries() &&
                   block.head + block.num_heads <= queries.num_q_heads());
    KVCRUSH_ASSERT(logits.size() == block.num_heads * block.num_queries * block.num_keys);
    KVCRUSH_ASSERT(workspace.size() >= window_logits_workspace(head_dim));
    float* const rows = workspace.data();
    float* const packed = rows + simd::key_tile * head_dim;
    for (std::size_t first = 0; first < block.num_keys; first += simd::key_tile) {
        const std::size_t count = (std::min)(simd::key_tile, block.num_keys - first);
        for (std::size_t t = 0; t < count; ++t) {
            detail::copy_row(kv.key(block.kv_head, first + t), rows + t * head_dim);
        }
        simd::pack_key_tile(rows, head_dim, count, head_dim, packed, at_most);
        for (std::size_t h = 0; h < block.num_heads; ++h) {
            simd::tile_logits(queries.row(block.head + h, block.query),
                              queries.query_stride(),
                              block.num_queries,
                              packed,
                              head_dim,
                              scale,
                              logits.data() + h * block.num_queries * block.num_keys + first,
                              block.num_keys,
                              count,
                              at_most);
        }
    }
}

} // namespace v0
} // namespace kvcrush
