// SPDX-License-Identifier: Apache-2.0
/// @file
/// Accumulated attention with noise on the logits, so that tokens that were never quite the best stay in the race.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/math/fold_heads.hpp>
#include <kvcrush/math/window_logits.hpp>
#include <kvcrush/simd/softmax.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Scores a token by a softmax whose logits carry Gumbel noise and are divided by a temperature, summed over queries.
///
///     mass[h, j]       = sum over queries i >= j of softmax((q k / sqrt(head_dim) + noise) / temperature)[h, i, j]
///     noise[h, i, j]   = -ln(-ln(u)), u uniform in (0, 1), drawn from (seed, head, position of query, token)
///     importance[k, j] = mean of mass over the query heads of kv head k
///
/// A logit has the same noise whether queries come all at once or one by one. Weights of attention do as well as
/// queries: their logarithms are the logits but for a constant that no softmax sees.
/// @note O(num_q_heads * queries * seq_len * head_dim); drawing the noise, two logarithms per logit, outweighs the
///       rest. With last = 0 it is quadratic in the prompt.
/// @note While generating, the authors raise the temperature: temperature = 1 + step * delta, from 1 to 2. The engine
///       sets it for each call.
/// @see  Keyformer, arXiv:2403.09054. Deviations: one set per kv head (the authors keep one per query head); the
///       last 256 queries are summed (the authors sum all: last = 0); a seed (theirs is torch's global state). Their 30
///       % of recent tokens are the recent area's business.
struct keyformer_scorer {
    static constexpr std::string_view name = "keyformer";
    static constexpr std::string_view about =
        "what queries attend to when logits carry Gumbel noise";
    static constexpr bool needs_attention = true;
    // Not observes_heads_alone: noise depends on the number of the head in its layer.

    /// 1 for a prompt in the authors' code (tau_init).
    double temperature = 1.0;
    /// Only the last this many queries count; 0 means all that are given, as in the paper.
    std::size_t last = 256;
    /// Give each layer a seed of its own.
    std::uint64_t seed = 0;
    /// Without noise it is accumulated attention at a temperature.
    bool noise = true;

    static constexpr auto parameters() {
        using self = keyformer_scorer;
        return parameter_list{
            parameter{"temperature", &self::temperature, "divides the logits; 1 to 2"},
            parameter{"last", &self::last, "queries that count, from the end; 0 = all"},
            parameter{"seed", &self::seed, "another seed, another noise"},
            parameter{"noise", &self::noise, "Gumbel noise on the logits"}};
    }

    /// @throws std::invalid_argument unless the temperature lies in [0.01, 100]
    void validate() const {
        detail::require(temperature >= 0.01 && temperature <= 100.0,
                        "keyformer: temperature is ",
                        temperature,
                        "; it must lie in [0.01, 100]");
    }

    /// Queries to hand over for a sequence of this length: as many as the prompt has with last = 0.
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return last == 0 ? seq_len : (std::min)(last, seq_len);
    }
    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        const std::size_t group_size =
            size.kv.num_kv_heads == 0 ? 0 : size.num_q_heads / size.kv.num_kv_heads;
        const std::size_t rows =
            group_size * (std::min)(queries_at_once(group_size), num_queries(size.kv.seq_len));
        return scratch::bytes<float>(window_logits_workspace(size.kv.key_dim)) +
               scratch::bytes<float>((std::max)(rows, std::size_t{1}) * size.kv.seq_len);
    }

    /// @param[in]  kv       [num_kv_heads, seq_len, head_dim]
    /// @param[in]  queries  [num_q_heads, num_queries, head_dim], after RoPE, the last ones of the sequence
    /// @param[out] mass     [num_q_heads, seq_len]
    template <KvSource Kv>
    void observe(const Kv& kv,
                 const query_view& queries,
                 head_scores mass,
                 scratch memory) const noexcept {
        const kv_shape shape = kv.shape();
        const query_view window = queries.last(num_queries(shape.seq_len));
        const std::size_t asking = window.num_queries();
        const std::size_t group_size =
            shape.num_kv_heads == 0 ? 0 : mass.num_heads() / shape.num_kv_heads;
        const float scale = 1.0F / std::sqrt(static_cast<float>(shape.key_dim));
        const std::size_t step = (std::min)(queries_at_once(group_size), asking);
        std::fill(mass.values().begin(), mass.values().end(), 0.0F);
        const std::span<float> workspace =
            memory.take<float>(window_logits_workspace(shape.key_dim));
        const std::span<float> rows = memory.take<float>(group_size * step * shape.seq_len);
        for (std::size_t kv_head = 0; kv_head < shape.num_kv_heads; ++kv_head) {
            for (std::size_t first = 0; first < asking; first += step) {
                const std::size_t count = (std::min)(step, asking - first);
                // Position of the block's first query; it sees the keys up to itself.
                const std::size_t position = shape.seq_len - asking + first;
                const logits_block block{.kv_head = kv_head,
                                         .head = kv_head * group_size,
                                         .num_heads = group_size,
                                         .query = first,
                                         .num_queries = count,
                                         .num_keys = position + count};
                const std::span<float> logits = rows.first(group_size * count * block.num_keys);
                window_logits(kv, window, block, scale, logits, workspace);
                for (std::size_t r = 0; r < group_size * count; ++r) {
                    const std::size_t query = position + r % count;
                    add_row(logits.subspan(r * block.num_keys, query + 1),
                            block.head + r / count,
                            query,
                            mass);
                }
            }
        }
    }

    /// @param[in]  attention  [num_q_heads, num_queries, seq_len] weights of the last queries
    /// @param[out] mass       [num_q_heads, seq_len]
    void observe(const attention_view& attention, head_scores mass, scratch memory) const noexcept {
        const attention_view window = attention.last(num_queries(mass.seq_len()));
        std::fill(mass.values().begin(), mass.values().end(), 0.0F);
        const std::span<float> logits = memory.take<float>(mass.seq_len());
        for (std::size_t head = 0; head < mass.num_heads(); ++head) {
            for (std::size_t i = 0; i < window.num_queries(); ++i) {
                const std::span<const float> weights = window.row(head, i);
                for (std::size_t j = 0; j < weights.size(); ++j) {
                    // A weight of 0 has no chance; rounding may also have made it of a small one.
                    logits[j] = weights[j] > 0.0F ? std::log(weights[j])
                                                  : -std::numeric_limits<float>::infinity();
                }
                add_row(logits.first(weights.size()), head, weights.size() - 1, mass);
            }
        }
    }

    /// @param[out] scores  [num_kv_heads, seq_len]
    void reduce(const_head_scores mass, head_scores scores, scratch) const noexcept {
        fold_groups(mass, head_reduction::mean, scores);
    }

    /// The noise on one logit.
    [[nodiscard]] float
    noise_of(std::size_t head, std::size_t query, std::size_t token) const noexcept {
        const std::uint64_t stream = (std::uint64_t{head} << 32) | query;
        // Half a step above the 24 random bits: neither 0 nor 1, so that both logarithms are finite.
        const double unit = static_cast<double>(random_unit(seed, stream, token)) + 0x1p-25;
        return -std::log(static_cast<float>(-std::log(unit)));
    }

private:
    /// Rows of logits at a time, whatever the group size.
    static constexpr std::size_t rows_at_once = 128;

    [[nodiscard]] static constexpr std::size_t queries_at_once(std::size_t group_size) noexcept {
        return (std::max)(rows_at_once / (std::max)(group_size, std::size_t{1}), std::size_t{1});
    }

    /// Adds the noisy softmax of what one query sees.
    void add_row(std::span<float> logits,
                 std::size_t head,
                 std::size_t query,
                 head_scores mass) const noexcept {
        const auto inverse = static_cast<float>(1.0 / temperature);
        if (noise) {
            for (std::size_t j = 0; j < logits.size(); ++j) {
                logits[j] = (logits[j] + noise_of(head, query, j)) * inverse;
            }
        } else {
            for (float& logit : logits) {
                logit *= inverse;
            }
        }
        simd::softmax_add(logits, mass.row(head).first(logits.size()));
    }
};

} // namespace v0
} // namespace kvcrush
