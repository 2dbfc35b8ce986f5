// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tokens that queries still to come will probably look at.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/rope.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/math/row_batches.hpp>
#include <kvcrush/math/row_norm.hpp>
#include <kvcrush/retention/query_statistics.hpp>
#include <kvcrush/simd/logits.hpp>
#include <kvcrush/simd/norm.hpp>
#include <kvcrush/simd/softmax.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Scores a token by the attention that the next `num_future` queries can be expected to pay it, if they are spread like
/// the queries given, times the length of its value.
///
///     mu, Sigma        = mean and covariance of the given queries of head h without their RoPE
///     mu', Sigma'      = R mu, R Sigma R^T, R = mean of the rotations at positions n .. n + num_future - 1
///     logit[h, j]      = key[j] . mu' / sqrt(d) + key[j]^T Sigma' key[j] / (2 d)
///     importance[k, j] = (mean over the group of softmax over j of logit[h, j] + epsilon) * ||value[j]||
///
/// The first num_sink_tokens tokens take no part: their queries are left out, the softmax passes them over, and they
/// score as high as the best token. Queries come after RoPE, as for every scorer; query_statistics turns them.
/// @note  O(num_q_heads * (queries + seq_len) * head_dim^2), with covariance = diagonal or none * head_dim.
/// @note  Fewer queries than channels leave the covariance without full rank, which does no harm here. Logits of the
///        quadratic term may be large: tokens far behind the best one weigh 0, and then the earlier token wins.
/// @see   Expected Attention, arXiv:2510.00636, and NVIDIA kvpress. Deviations: rotations in closed form (a mean of
///        num_future matrices there); queries are those given, after RoPE (all hidden states of the prompt there).
struct expected_attention_scorer {
    static constexpr std::string_view name = "expected_attention";
    static constexpr std::string_view about = "what queries to come will probably attend to";
    static constexpr bool needs_attention = true;
    static constexpr bool scores_directly = true;

    /// Positions ahead over which attention is expected. 512 in kvpress.
    std::size_t num_future = 512;
    /// Only the last this many queries count; 0 means all that are given. 0 in kvpress.
    std::size_t last = 0;
    /// Tokens at the start that take no part. 4 in kvpress.
    std::size_t num_sink_tokens = 4;
    query_covariance covariance = query_covariance::full;
    /// Multiply by the length of the value.
    bool value_norms = true;
    /// Added before that: how much the length alone counts. 0 in kvpress.
    double epsilon = 0.0;

    /// The model's.
    kvcrush::rope rope{};

    static constexpr auto parameters() {
        using self = expected_attention_scorer;
        return parameter_list{
            parameter{"future", &self::num_future, "positions ahead that are looked at"},
            parameter{"last", &self::last, "queries that count, from the end; 0 = all"},
            parameter{"scorer_sinks", &self::num_sink_tokens, "first tokens that take no part"},
            parameter{"covariance", &self::covariance, "how much of the spread of queries counts"},
            parameter{"value_norms", &self::value_norms, "multiply by the length of the value"},
            parameter{"epsilon", &self::epsilon, "how much that length counts alone"}};
    }

    /// @throws std::invalid_argument if future is 0, epsilon is negative, or from rope
    void validate() const {
        detail::require(num_future > 0,
                        "expected_attention: future is 0; it must be at least 1 position");
        detail::require(epsilon >= 0.0 && epsilon <= 1e30,
                        "expected_attention: epsilon is ",
                        epsilon,
                        "; it must lie in [0, 1e30]");
        rope.validate();
    }

    /// @throws std::invalid_argument if more channels turn than keys have
    void validate_for(const problem_size& size) const { rope.validate_for(size.kv.key_dim); }

    /// Queries to hand over for a sequence of this length: as many as the prompt has with last = 0.
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return last == 0 ? seq_len : (std::min)(last, seq_len);
    }

    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        const std::size_t dim = size.kv.key_dim;
        const std::size_t heads = size.num_q_heads;
        const std::size_t group = size.kv.num_kv_heads == 0 ? 0 : heads / size.kv.num_kv_heads;
        return query_statistics::held_bytes(covariance, heads, dim) +
               (std::max)(query_statistics::working_bytes(heads, dim),
                          buffers::bytes(size.kv, group));
    }

    /// @param[in]  kv       [num_kv_heads, seq_len, head_dim]
    /// @param[in]  queries  [num_q_heads, num_queries, head_dim], after RoPE, the last ones of the sequence
    /// @param[out] scores   [num_kv_heads, seq_len]
    template <KvSource Kv>
    void score(const Kv& kv,
               const query_view& queries,
               head_scores scores,
               scratch memory) const noexcept {
        const kv_shape shape = kv.shape();
        const query_view given = queries.last(num_queries(shape.seq_len));
        const std::size_t group =
            shape.num_kv_heads == 0 ? 0 : given.num_q_heads() / shape.num_kv_heads;
        KVCRUSH_ASSERT(given.head_dim() == shape.key_dim);
        KVCRUSH_ASSERT(group * shape.num_kv_heads == given.num_q_heads());
        const query_statistics statistics({.num_future = num_future,
                                           .num_sink_tokens = num_sink_tokens,
                                           .covariance = covariance,
                                           .rope = rope},
                                          given,
                                          shape.seq_len,
                                          memory);
        const buffers room(shape, group, memory);
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            expect(kv, head, group, statistics, room, scores.row(head));
        }
    }

private:
    /// Tokens at a time.
    static constexpr std::size_t tile = simd::key_tile;
    /// Rows of a covariance that share a look at the keys; the columns behind them are skipped.
    static constexpr std::size_t rows_at_once = 32;

    /// What keys are read and multiplied with.
    struct buffers {
        std::size_t dim;
        std::span<float> rows;    ///< [tile, dim]
        std::span<float> columns; ///< [dim, tile]
        std::span<float> product; ///< [dim, tile]
        std::span<float> logits;  ///< [group + 1, seq_len]

        buffers(const kv_shape& shape, std::size_t group, scratch memory) noexcept
            : dim(shape.key_dim),
              rows(memory.take<float>(tile * dim)),
              columns(memory.take<float>(tile * dim)),
              product(memory.take<float>(tile * dim)),
              logits(memory.take<float>((group + 1) * shape.seq_len)) {}

        [[nodiscard]] static std::size_t bytes(const kv_shape& shape, std::size_t group) noexcept {
            return 3 * scratch::bytes<float>(tile * shape.key_dim) +
                   scratch::bytes<float>((group + 1) * shape.seq_len);
        }
    };

    template <KvSource Kv>
    void expect(const Kv& kv,
                std::size_t head,
                std::size_t group,
                const query_statistics& statistics,
                const buffers& room,
                std::span<float> out) const noexcept {
        const std::size_t dim = room.dim;
        const std::span<float> logits = room.logits;
        for (std::size_t first = 0; first < out.size(); first += tile) {
            const std::size_t num = (std::min)(tile, out.size() - first);
            std::array<const float*, tile> rows;
            for (std::size_t t = 0; t < num; ++t) {
                rows[t] =
                    detail::as_floats(kv.key(head, first + t), room.rows.subspan(t * dim, dim));
            }
            simd::pack_key_tile(std::span(rows).first(num), dim, room.columns.data());
            for (std::size_t i = 0; i < group; ++i) {
                std::array<float, tile> sums;
                add_logits(statistics, head * group + i, room, sums);
                std::copy_n(sums.begin(), num, logits.begin() + offset(i * out.size() + first));
            }
        }
        const std::size_t sinks = (std::min)(num_sink_tokens, out.size());
        std::fill(out.begin(), out.end(), 0.0F);
        for (std::size_t i = 0; i < group; ++i) {
            simd::softmax_add(logits.subspan(i * out.size() + sinks, out.size() - sinks),
                              out.subspan(sinks));
        }
        const std::span<float> norms = logits.subspan(group * out.size(), out.size());
        if (value_norms) {
            squared_norms([&](std::size_t t) { return kv.value(head, t); }, norms);
            simd::scale_roots(norms);
        }
        const float share = group == 0 ? 0.0F : 1.0F / static_cast<float>(group);
        float best = 0.0F;
        for (std::size_t t = sinks; t < out.size(); ++t) {
            out[t] = value_norms ? (out[t] * share + static_cast<float>(epsilon)) * norms[t]
                                 : out[t] * share;
            best = out[t] > best ? out[t] : best;
        }
        std::fill_n(out.begin(), sinks, best);
    }

    [[nodiscard]] static std::ptrdiff_t offset(std::size_t i) noexcept {
        return static_cast<std::ptrdiff_t>(i);
    }

    /// Logits of the keys in room.columns for one query head.
    void add_logits(const query_statistics& statistics,
                    std::size_t q_head,
                    const buffers& room,
                    std::array<float, tile>& sums) const noexcept {
        const std::size_t dim = room.dim;
        const float* const means = statistics.mean(q_head).data();
        const float* const spread = statistics.spread(q_head).data();
        constexpr std::size_t width = 16;
        sums.fill(0.0F);
        for (std::size_t first = 0; first < dim; first += rows_at_once) {
            const std::size_t num = (std::min)(rows_at_once, dim - first);
            if (covariance == query_covariance::full) {
                simd::tile_logits(spread + first * dim,
                                  dim,
                                  num,
                                  room.columns.data(),
                                  first + num,
                                  1.0F,
                                  room.product.data(),
                                  tile,
                                  tile);
            }
            const float* const keys = room.columns.data() + first * tile;
            for (std::size_t t = 0; t < tile; t += width) {
                float part[width]; // stays in registers
                std::copy_n(sums.data() + t, width, part);
                for (std::size_t r = 0; r < num; ++r) {
                    const float mean = means[first + r];
                    const float* const key = keys + r * tile + t;
                    if (covariance == query_covariance::full) {
                        const float* const product = room.product.data() + r * tile + t;
                        for (std::size_t i = 0; i < width; ++i) {
                            part[i] += key[i] * (product[i] + mean);
                        }
                    } else {
                        const float square =
                            covariance == query_covariance::diagonal ? spread[first + r] : 0.0F;
                        for (std::size_t i = 0; i < width; ++i) {
                            part[i] += key[i] * (square * key[i] + mean);
                        }
                    }
                }
                std::copy_n(part, width, sums.data() + t);
            }
        }
    }
};

} // namespace v0
} // namespace kvcrush
