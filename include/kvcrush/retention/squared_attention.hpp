// SPDX-License-Identifier: Apache-2.0
/// @file
/// Squared attention of the last queries: the metric by which blocks are freed.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_range.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/math/window_attention.hpp>
#include <kvcrush/simd/pool.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Sums squares, so that one query that looks hard outweighs many that glance.
///
///     metric[k, j] = sum over the query heads of kv head k of
///                        max pool over j of sum over the last queries of attention[h, i, j]^2
/// @note O(num_q_heads * window * seq_len * head_dim) from queries; the weights of one group of query heads are held at
///       a time
/// @see  KV-Compress, arXiv:2410.00161: 32 queries, pooled over 7. Later steps add the squares of their own row, see
///       attention_square_sum.
struct squared_attention_scorer {
    static constexpr std::string_view name = "squared_attention";
    static constexpr std::string_view about = "what the last queries look hard at";
    static constexpr bool needs_attention = true;
    static constexpr bool scores_directly = true;

    /// Queries that count, from the end. 32 in the authors' code.
    std::size_t window = 32;
    /// Tokens over which the maximum is taken, odd; 1 for none. 7 in the authors' code.
    std::size_t pooling_kernel_size = 7;

    static constexpr auto parameters() {
        return parameter_list{parameter{"window",
                                        &squared_attention_scorer::window,
                                        "queries that count, from the end"},
                              parameter{"kernel",
                                        &squared_attention_scorer::pooling_kernel_size,
                                        "tokens to pool over, odd; 1 = none"}};
    }

    /// @throws std::invalid_argument if window is 0 or pooling_kernel_size even
    void validate() const {
        using detail::require;
        require(window >= 1, "squared_attention: window is 0; one query at least must look");
        require(pooling_kernel_size % 2 == 1,
                "squared_attention: pooling_kernel_size is ",
                pooling_kernel_size,
                "; it must be odd");
    }

    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return (std::min)(window, seq_len);
    }
    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        const std::size_t heads = size.kv.num_kv_heads;
        const std::size_t group = heads == 0 ? 0 : size.num_q_heads / heads;
        const std::size_t queries = num_queries(size.kv.seq_len);
        kv_shape one = size.kv;
        one.num_kv_heads = (std::min)(heads, std::size_t{1});
        return scratch::bytes<float>(group * queries * size.kv.seq_len) +
               scratch::bytes<float>(window_attention_workspace(one, group, queries)) +
               2 * scratch::bytes<float>(size.kv.seq_len);
    }

    /// @param[in]  kv       keys [num_kv_heads, seq_len, head_dim]
    /// @param[in]  queries  [num_q_heads, num_queries, head_dim], after RoPE, the last ones of the sequence
    /// @param[out] metric   [num_kv_heads, seq_len]
    template <KvSource Kv>
    void score(const Kv& kv,
               const query_view& queries,
               head_scores metric,
               scratch memory) const noexcept {
        const std::size_t heads = metric.num_heads();
        const std::size_t seq_len = metric.seq_len();
        const std::size_t group = heads == 0 ? 0 : queries.num_q_heads() / heads;
        const std::size_t count = window_queries(queries.num_queries(), seq_len, window);
        const std::span<float> weights = memory.take<float>(group * count * seq_len);
        for (std::size_t head = 0; head < heads; ++head) {
            const head_range<Kv> own(kv, head, 1);
            scratch rest = memory;
            window_attention(
                queries.heads(head * group, group),
                own,
                count,
                weights,
                rest.take<float>(window_attention_workspace(own.shape(), group, count)));
            add_group(weights, group, count, metric.row(head), memory);
        }
    }

    /// For engines that have the weights.
    /// @param[in]  attention  [num_q_heads, num_queries, seq_len]
    /// @param[out] metric     [num_kv_heads, seq_len]
    /// @param      memory     scratch_bytes(size)
    void score(const attention_view& attention, head_scores metric, scratch memory) const noexcept {
        const attention_view last = attention.last(window);
        const std::size_t heads = metric.num_heads();
        const std::size_t group = heads == 0 ? 0 : last.num_q_heads() / heads;
        const std::span<float> squares = memory.take<float>(metric.seq_len());
        const std::span<float> pooled = memory.take<float>(metric.seq_len());
        for (std::size_t head = 0; head < heads; ++head) {
            const std::span<float> out = metric.row(head);
            std::fill(out.begin(), out.end(), 0.0F);
            for (std::size_t q_head = head * group; q_head < (head + 1) * group; ++q_head) {
                std::fill(squares.begin(), squares.end(), 0.0F);
                for (std::size_t query = 0; query < last.num_queries(); ++query) {
                    add_squares(last.row(q_head, query), squares);
                }
                add_pooled(squares, pooled, out);
            }
        }
    }

private:
    void add_group(std::span<const float> weights,
                   std::size_t group,
                   std::size_t count,
                   std::span<float> out,
                   scratch memory) const noexcept {
        const std::span<float> squares = memory.take<float>(out.size());
        const std::span<float> pooled = memory.take<float>(out.size());
        std::fill(out.begin(), out.end(), 0.0F);
        for (std::size_t q_head = 0; q_head < group; ++q_head) {
            std::fill(squares.begin(), squares.end(), 0.0F);
            for (std::size_t query = 0; query < count; ++query) {
                add_squares(weights.subspan((q_head * count + query) * out.size(), out.size()),
                            squares);
            }
            add_pooled(squares, pooled, out);
        }
    }

    static void add_squares(std::span<const float> row, std::span<float> sums) noexcept {
        for (std::size_t t = 0; t < row.size(); ++t) {
            sums[t] += row[t] * row[t];
        }
    }

    void add_pooled(std::span<const float> squares,
                    std::span<float> pooled,
                    std::span<float> out) const noexcept {
        simd::max_pool(squares, pooled, pooling_kernel_size);
        for (std::size_t t = 0; t < out.size(); ++t) {
            out[t] += pooled[t];
        }
    }
};

} // namespace v0
} // namespace kvcrush
