// SPDX-License-Identifier: Apache-2.0
/// @file
/// Attention weights of the last queries from queries and keys alone, for engines that keep none: row by row, or folded
/// into one row per query head. Computed in fp32 by the kernels of math/attention_mass.hpp; no matrix of
/// [seq_len, seq_len] exists at any time.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/math/attention_mass.hpp>
#include <kvcrush/math/divide_by_reach.hpp>
#include <kvcrush/simd/exp.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/logits.hpp>
#include <kvcrush/simd/softmax.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// What the weights of several queries become.
enum class window_fold {
    sum,
    /// Over all queries of the window, whether they could see the token or not.
    mean,
    /// Over the queries of the window that could see the token.
    reach
};

template <>
struct enum_names<window_fold> {
    static constexpr named_value<window_fold> values[] = {
        {"sum", window_fold::sum}, {"mean", window_fold::mean}, {"reach", window_fold::reach}};
};

/// Queries that a window of `window` really has: no more than given, and no more than tokens.
[[nodiscard]] constexpr std::size_t
window_queries(std::size_t num_queries, std::size_t seq_len, std::size_t window) noexcept {
    return (std::min)({num_queries, seq_len, window});
}

/// Floats of scratch memory that window_attention needs; never less for more tokens or a longer window.
[[nodiscard]] constexpr std::size_t window_attention_workspace(const kv_shape& shape,
                                                               std::size_t num_q_heads,
                                                               std::size_t window) noexcept {
    return attention_mass_workspace(shape, num_q_heads, (std::min)(window, shape.seq_len));
}

namespace detail {

/// Second pass over the weights of a block: scales them and writes them row by row.
/// @param[out] weights  [num_q_heads, num_queries, seq_len], zero before
inline void store_weights(const attention_block& block,
                          const attention_buffers& buffers,
                          tile_factors& scaled,
                          std::span<float> weights,
                          std::size_t num_queries,
                          std::size_t seq_len,
                          simd::isa rung) noexcept {
    const std::size_t rows = block.rows();
    for (std::size_t t = 0; t < block.num_tiles(); ++t) {
        const std::span<const float> factors = scaled.of(t);
        for (std::size_t r = 0; r < rows; ++r) {
            const std::size_t row =
                (block.head + r / block.count) * num_queries + block.query + r % block.count;
            simd::add_tile(
                buffers.weights + (t * rows + r) * simd::key_tile,
                factors.subspan(r, 1),
                weights.subspan(row * seq_len + t * simd::key_tile, block.visible_in(t, r)),
                rung);
        }
    }
}

} // namespace detail

/// What each of the last queries pays to each token.
///
///     weights[h, i, j] = softmax(scale * q[h, i] k[h / group_size, 0 .. n - W + i])[j]        0 for j > n - W + i
///
/// with n = seq_len and W = window_queries(queries.num_queries(), n, window): query i is token n - W + i and sees the
/// keys up to itself. The softmax runs over all keys that the query sees, those of the window included.
/// attention_view(weights, num_q_heads, W, n) reads the result.
///
/// Keys whose logit is NaN weigh nothing, queries with a logit of +inf pay nothing; so weights are finite.
/// @param[in]  queries    [num_q_heads, >= W, key_dim], after RoPE, the last ones of the sequence
/// @param[in]  kv         keys [num_kv_heads, seq_len, key_dim] of any layout and element type; V is not read
/// @param      window     the last this many queries; a longer one than there are queries or tokens means all
/// @param[out] weights    [num_q_heads, W, seq_len], written whole
/// @param      workspace  at least window_attention_workspace(...) floats
/// @param      scale      of the dot products, 1 / sqrt(head_dim) in all common models
/// @pre   num_q_heads is a multiple of num_kv_heads
/// @note  O(num_q_heads * W * seq_len * head_dim), allocates nothing
template <KvSource Kv>
void window_attention(const query_view& queries,
                      const Kv& kv,
                      std::size_t window,
                      std::span<float> weights,
                      std::span<float> workspace,
                      float scale,
                      simd::isa at_most = simd::best()) noexcept {
    const std::size_t seq_len = kv.shape().seq_len;
    const query_view last = queries.last((std::min)(window, seq_len));
    const std::size_t num_queries = last.num_queries();
    KVCRUSH_ASSERT(weights.size() == queries.num_q_heads() * num_queries * seq_len);
    std::fill(weights.begin(), weights.end(), 0.0F);
    detail::for_each_attention_block(
        kv,
        last,
        workspace,
        scale,
        at_most,
        [&](const detail::attention_block& block,
            const detail::attention_buffers& buffers,
            detail::tile_factors& factors) noexcept {
            detail::store_weights(block, buffers, factors, weights, num_queries, seq_len, at_most);
        });
}

/// The same with scale = 1 / sqrt(head_dim).
template <KvSource Kv>
void window_attention(const query_view& queries,
                      const Kv& kv,
                      std::size_t window,
                      std::span<float> weights,
                      std::span<float> workspace,
                      simd::isa at_most = simd::best()) noexcept {
    window_attention(queries,
                     kv,
                     window,
                     weights,
                     workspace,
                     1.0F / std::sqrt(static_cast<float>(queries.head_dim())),
                     at_most);
}

/// The same weights folded over the queries of the window, without a row per query.
/// @param[out] scores  [num_q_heads, seq_len], written whole; finite, 0 where nobody looks
template <KvSource Kv>
void window_attention(const query_view& queries,
                      const Kv& kv,
                      std::size_t window,
                      window_fold fold,
                      head_scores scores,
                      std::span<float> workspace,
                      float scale,
                      simd::isa at_most = simd::best()) noexcept {
    const std::size_t seq_len = kv.shape().seq_len;
    KVCRUSH_ASSERT(scores.num_heads() == queries.num_q_heads() && scores.seq_len() == seq_len);
    const query_view last = queries.last((std::min)(window, seq_len));
    const std::size_t num_queries = last.num_queries();
    attention_mass(kv, last, scores.values(), workspace, scale, at_most);
    if (fold == window_fold::sum || num_queries == 0) {
        return;
    }
    if (fold == window_fold::reach) {
        divide_by_reach(scores, num_queries);
        return;
    }
    for (float& score : scores.values()) {
        score /= static_cast<float>(num_queries);
    }
}

/// The same with scale = 1 / sqrt(head_dim).
template <KvSource Kv>
void window_attention(const query_view& queries,
                      const Kv& kv,
                      std::size_t window,
                      window_fold fold,
                      head_scores scores,
                      std::span<float> workspace,
                      simd::isa at_most = simd::best()) noexcept {
    window_attention(queries,
                     kv,
                     window,
                     fold,
                     scores,
                     workspace,
                     1.0F / std::sqrt(static_cast<float>(queries.head_dim())),
                     at_most);
}

} // namespace v0
} // namespace kvcrush
