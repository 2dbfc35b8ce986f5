// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tokens that queries still to come will probably look at.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/math/row_batches.hpp>
#include <kvcrush/math/row_norm.hpp>
#include <kvcrush/simd/dot.hpp>
#include <kvcrush/simd/logits.hpp>
#include <kvcrush/simd/norm.hpp>
#include <kvcrush/simd/softmax.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>

namespace kvcrush {
inline namespace v0 {

/// How much of the spread of queries counts.
enum class query_covariance {
    full,     ///< O(head_dim^2) per token and query head
    diagonal, ///< channels one by one, O(head_dim)
    none      ///< the mean query alone
};

template <>
struct enum_names<query_covariance> {
    static constexpr std::array values{
        std::pair{std::string_view("full"), query_covariance::full},
        std::pair{std::string_view("diagonal"), query_covariance::diagonal},
        std::pair{std::string_view("none"), query_covariance::none}};
};

/// Which two channels RoPE turns together.
enum class rope_pairing {
    half_split, ///< i and i + rotary_dim / 2 (GPT-NeoX, Hugging Face)
    interleaved ///< 2 i and 2 i + 1 (GPT-J, the original Llama)
};

template <>
struct enum_names<rope_pairing> {
    static constexpr std::array values{
        std::pair{std::string_view("half_split"), rope_pairing::half_split},
        std::pair{std::string_view("interleaved"), rope_pairing::interleaved}};
};

/// What turning by many angles does to a pair of channels on the mean: a turn and a scale.
struct mean_turn {
    double cos = 1.0;
    double sin = 0.0;
};

/// The mean of the rotations by first * angle, (first + 1) * angle, ..., (first + count - 1) * angle.
///
///     gamma * rotation by (first + (count - 1) / 2) * angle,  gamma = sin(count angle / 2) / (count sin(angle / 2))
/// @param angle  of one position [rad]
/// @pre   count > 0
[[nodiscard]] inline mean_turn
mean_rotation(double angle, double first, std::size_t count) noexcept {
    KVCRUSH_ASSERT(count > 0);
    const auto number = static_cast<double>(count);
    const double below = number * std::sin(angle / 2.0);
    const double gamma = below == 0.0 ? 1.0 : std::sin(number * angle / 2.0) / below;
    const double middle = (first + (number - 1.0) / 2.0) * angle;
    return {gamma * std::cos(middle), gamma * std::sin(middle)};
}

/// Scores a token by the attention that the next `num_future` queries can be expected to pay it, if they are spread like
/// the queries given, times the length of its value.
///
///     mu, Sigma        = mean and covariance of the given queries of head h without their RoPE
///     mu', Sigma'      = R mu, R Sigma R^T, R = mean of the rotations at positions n .. n + num_future - 1
///     logit[h, j]      = key[j] . mu' / sqrt(d) + key[j]^T Sigma' key[j] / (2 d)
///     importance[k, j] = (mean over the group of softmax over j of logit[h, j] + epsilon) * ||value[j]||
///
/// The first num_sink_tokens tokens take no part: their queries are left out, the softmax passes them over, and they
/// score as high as the best token. Queries come after RoPE, as for every scorer. Rotations add up, so each query is
/// turned from its own place to the middle of the future at once, and only the distance counts: no position is needed,
/// and the rotations of num_future positions cost as much as one.
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

    /// Base of the angles of the model's RoPE: pair i turns by rope_theta^(-2 i / rotary_dim) a token [rad].
    double rope_theta = 10000.0;
    /// Channels that RoPE turns, from the first; 0 means all.
    std::size_t rotary_dim = 0;
    rope_pairing pairing = rope_pairing::half_split;
    /// The angles themselves, [rotary_dim / 2], for models that scale them; empty for those of rope_theta. The caller's
    /// memory: it must outlive the scorer.
    std::span<const float> inverse_frequencies = {};

    static constexpr auto parameters() {
        using self = expected_attention_scorer;
        return std::tuple{
            parameter{"future", &self::num_future, "positions ahead that are looked at"},
            parameter{"last", &self::last, "queries that count, from the end; 0 = all"},
            parameter{"scorer_sinks", &self::num_sink_tokens, "first tokens that take no part"},
            parameter{"covariance", &self::covariance, "how much of the spread of queries counts"},
            parameter{"value_norms", &self::value_norms, "multiply by the length of the value"},
            parameter{"epsilon", &self::epsilon, "how much that length counts alone"},
            parameter{"theta", &self::rope_theta, "base of the RoPE angles"},
            parameter{"rotary_dim", &self::rotary_dim, "channels that RoPE turns; 0 = all"},
            parameter{"pairing", &self::pairing, "channels that RoPE turns together"}};
    }

    /// @throws std::invalid_argument if future is 0, theta is not above 0, epsilon is negative or rotary_dim is odd
    void validate() const {
        detail::require(num_future > 0,
                        "expected_attention: future is 0; it must be at least 1 position");
        detail::require(epsilon >= 0.0 && epsilon <= 1e30,
                        "expected_attention: epsilon is ",
                        epsilon,
                        "; it must lie in [0, 1e30]");
        detail::require(rope_theta > 0.0 && std::isfinite(rope_theta),
                        "expected_attention: theta is ",
                        rope_theta,
                        "; it must be above 0");
        detail::require(rotary_dim % 2 == 0,
                        "expected_attention: rotary_dim is ",
                        rotary_dim,
                        "; it must be even");
        detail::require(inverse_frequencies.empty() || rotary_dim == 0 ||
                            inverse_frequencies.size() == rotary_dim / 2,
                        "expected_attention: there are ",
                        inverse_frequencies.size(),
                        " inverse frequencies for ",
                        rotary_dim,
                        " channels");
        for (const float frequency : inverse_frequencies) {
            detail::require(std::isfinite(frequency),
                            "expected_attention: an inverse frequency is ",
                            frequency,
                            "; it must be finite");
        }
    }

    /// Queries to hand over for a sequence of this length: as many as the prompt has with last = 0.
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return last == 0 ? seq_len : (std::min)(last, seq_len);
    }

    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        const std::size_t dim = size.kv.key_dim;
        const std::size_t heads = size.num_q_heads;
        const std::size_t group = size.kv.num_kv_heads == 0 ? 0 : heads / size.kv.num_kv_heads;
        return 3 * scratch::bytes<double>(dim / 2) + 2 * scratch::bytes<float>(tile * (dim / 2)) +
               3 * scratch::bytes<float>(tile * dim) + scratch::bytes<float>(tile * tile) +
               scratch::bytes<double>(heads * dim) + scratch::bytes<float>(heads * dim) +
               scratch::bytes<float>(heads * spread_size(dim)) +
               scratch::bytes<float>((group + 1) * size.kv.seq_len);
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
        const buffers room(*this, given, memory);
        const std::span<float> logits = memory.take<float>((group + 1) * shape.seq_len);
        learn(given, shape.seq_len, room);
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            expect(kv, head, group, room, logits, scores.row(head));
        }
    }

private:
    /// Queries and tokens at a time.
    static constexpr std::size_t tile = simd::key_tile;
    /// Rows of a covariance that share a look at the keys; the columns behind them are skipped.
    static constexpr std::size_t rows_at_once = 32;

    [[nodiscard]] std::size_t spread_size(std::size_t dim) const noexcept {
        return covariance == query_covariance::full       ? dim * dim
               : covariance == query_covariance::diagonal ? dim
                                                          : 0;
    }

    struct buffers {
        std::size_t dim;
        std::size_t num_pairs; ///< that RoPE turns
        std::span<double> angles;
        std::span<double> step_cos;
        std::span<double> step_sin;
        std::span<float> cos; ///< [tile, num_pairs]
        std::span<float> sin;
        std::span<float> rows;    ///< [tile, dim]
        std::span<float> columns; ///< [dim, tile]
        std::span<float> product; ///< [dim, tile]
        std::span<float> block;   ///< [tile, tile]
        std::span<double> sums;   ///< [num_q_heads, dim]
        std::span<float> means;   ///< [num_q_heads, dim], ready to be multiplied with keys
        std::span<float> spreads; ///< [num_q_heads, spread_size], likewise

        buffers(const expected_attention_scorer& self,
                const query_view& queries,
                scratch& memory) noexcept
            : dim(queries.head_dim()),
              num_pairs((self.rotary_dim == 0 ? dim : (std::min)(self.rotary_dim, dim)) / 2) {
            if (!self.inverse_frequencies.empty()) {
                num_pairs = (std::min)(num_pairs, self.inverse_frequencies.size());
            }
            angles = memory.take<double>(dim / 2).first(num_pairs);
            step_cos = memory.take<double>(dim / 2).first(num_pairs);
            step_sin = memory.take<double>(dim / 2).first(num_pairs);
            cos = memory.take<float>(tile * (dim / 2));
            sin = memory.take<float>(tile * (dim / 2));
            rows = memory.take<float>(tile * dim);
            columns = memory.take<float>(tile * dim);
            product = memory.take<float>(tile * dim);
            block = memory.take<float>(tile * tile);
            const std::size_t heads = queries.num_q_heads();
            sums = memory.take<double>(heads * dim);
            means = memory.take<float>(heads * dim);
            spreads = memory.take<float>(heads * self.spread_size(dim));
            for (std::size_t i = 0; i < num_pairs; ++i) {
                angles[i] = self.inverse_frequencies.empty()
                                ? std::pow(self.rope_theta,
                                           -static_cast<double>(i) / static_cast<double>(num_pairs))
                                : static_cast<double>(self.inverse_frequencies[i]);
                step_cos[i] = std::cos(angles[i]);
                step_sin[i] = -std::sin(angles[i]); // the next query is one position nearer
            }
        }
    };

    /// Mean and covariance of the turned queries of all heads, multiplied by what the logits multiply them by.
    void learn(const query_view& queries, std::size_t seq_len, const buffers& room) const noexcept {
        const std::size_t dim = room.dim;
        const std::size_t total = queries.num_queries();
        const std::size_t before = seq_len - total; // tokens without a query
        const std::size_t first =
            (std::min)(total, num_sink_tokens > before ? num_sink_tokens - before : 0);
        const auto count = static_cast<double>((std::max)(total - first, std::size_t{1}));
        std::fill(room.sums.begin(), room.sums.end(), 0.0);
        std::fill(room.spreads.begin(), room.spreads.end(), 0.0F);
        for (std::size_t begin = first; begin < total; begin += tile) {
            const std::size_t num = (std::min)(tile, total - begin);
            find_turns(total - begin, num, room);
            for (std::size_t head = 0; head < queries.num_q_heads(); ++head) {
                turn(queries, head, begin, num, room);
                add_sums(num, room, room.sums.subspan(head * dim, dim));
            }
        }
        for (double& sum : room.sums) {
            sum /= count;
        }
        const auto scale = static_cast<float>(1.0 / (2.0 * static_cast<double>(dim) * count));
        for (std::size_t begin = first; begin < total && !room.spreads.empty(); begin += tile) {
            const std::size_t num = (std::min)(tile, total - begin);
            find_turns(total - begin, num, room);
            for (std::size_t head = 0; head < queries.num_q_heads(); ++head) {
                turn(queries, head, begin, num, room);
                centre(num, room, room.sums.subspan(head * dim, dim));
                const std::size_t size = spread_size(dim);
                add_spread(num, room, scale, room.spreads.subspan(head * size, size));
            }
        }
        const double root = std::sqrt(static_cast<double>(dim));
        for (std::size_t i = 0; i < room.means.size(); ++i) {
            room.means[i] = static_cast<float>(room.sums[i] / root);
        }
        if (covariance == query_covariance::full) {
            // k^T S k = sum over rows of k_r (S_rr k_r + 2 sum over c < r of S_rc k_c)
            for (std::size_t i = 0; i < room.spreads.size(); ++i) {
                const std::size_t row = i / dim % dim;
                room.spreads[i] *= i % dim < row ? 2.0F : i % dim == row ? 1.0F : 0.0F;
            }
        }
    }

    /// How far each of some queries turns: from its place, `distance` and less before the end, to the middle of what
    /// comes.
    void find_turns(std::size_t distance, std::size_t num, const buffers& room) const noexcept {
        for (std::size_t i = 0; i < room.num_pairs; ++i) {
            mean_turn now =
                mean_rotation(room.angles[i], static_cast<double>(distance), num_future);
            for (std::size_t q = 0; q < num; ++q) {
                room.cos[q * room.num_pairs + i] = static_cast<float>(now.cos);
                room.sin[q * room.num_pairs + i] = static_cast<float>(now.sin);
                now = {now.cos * room.step_cos[i] - now.sin * room.step_sin[i],
                       now.sin * room.step_cos[i] + now.cos * room.step_sin[i]};
            }
        }
    }

    /// Turns queries [begin, begin + num) of a head into room.rows.
    void turn(const query_view& queries,
              std::size_t head,
              std::size_t begin,
              std::size_t num,
              const buffers& room) const noexcept {
        constexpr std::size_t step = 8; // a fixed count, so that -O2 makes vectors of it
        const std::size_t pairs = room.num_pairs;
        for (std::size_t q = 0; q < num; ++q) {
            const float* const in = queries.row(head, begin + q);
            const float* const cos = room.cos.data() + q * pairs;
            const float* const sin = room.sin.data() + q * pairs;
            float* const out = room.rows.data() + q * room.dim;
            std::size_t i = 0;
            if (pairing == rope_pairing::half_split) {
                for (; i + step <= pairs; i += step) {
                    float a[step];
                    float b[step];
                    for (std::size_t j = 0; j < step; ++j) {
                        a[j] = cos[i + j] * in[i + j] - sin[i + j] * in[pairs + i + j];
                    }
                    for (std::size_t j = 0; j < step; ++j) {
                        b[j] = sin[i + j] * in[i + j] + cos[i + j] * in[pairs + i + j];
                    }
                    std::copy_n(a, step, out + i);
                    std::copy_n(b, step, out + pairs + i);
                }
            }
            for (; i < pairs; ++i) {
                const bool together = pairing == rope_pairing::interleaved;
                const std::size_t x = together ? 2 * i : i;
                const std::size_t y = together ? 2 * i + 1 : pairs + i;
                out[x] = cos[i] * in[x] - sin[i] * in[y];
                out[y] = sin[i] * in[x] + cos[i] * in[y];
            }
            std::copy(in + 2 * pairs, in + room.dim, out + 2 * pairs);
        }
    }

    [[nodiscard]] static std::array<const float*, tile> row_pointers(const buffers& room) noexcept {
        std::array<const float*, tile> rows;
        for (std::size_t q = 0; q < tile; ++q) {
            rows[q] = room.rows.data() + q * room.dim;
        }
        return rows;
    }

    static void add_sums(std::size_t num, const buffers& room, std::span<double> sums) noexcept {
        std::array<float, tile> ones;
        ones.fill(1.0F);
        const std::array<const float*, tile> rows = row_pointers(room);
        const std::span<float> added = room.product.first(room.dim);
        simd::weighted_sum<float>(
            std::span(rows).first(num), std::span<const float>(ones).first(num), added);
        for (std::size_t c = 0; c < room.dim; ++c) {
            sums[c] += static_cast<double>(added[c]);
        }
    }

    static void
    centre(std::size_t num, const buffers& room, std::span<const double> means) noexcept {
        const std::span<float> mean = room.product.first(room.dim);
        for (std::size_t c = 0; c < room.dim; ++c) {
            mean[c] = static_cast<float>(means[c]);
        }
        for (std::size_t q = 0; q < num; ++q) {
            float* const row = room.rows.data() + q * room.dim;
            for (std::size_t c = 0; c < room.dim; ++c) {
                row[c] -= mean[c];
            }
        }
    }

    /// Adds the products of the channels of room.rows: those on and below the diagonal are right.
    void add_spread(std::size_t num,
                    const buffers& room,
                    float scale,
                    std::span<float> spread) const noexcept {
        const std::size_t dim = room.dim;
        if (covariance == query_covariance::diagonal) {
            for (std::size_t q = 0; q < num; ++q) {
                const float* const row = room.rows.data() + q * dim;
                for (std::size_t c = 0; c < dim; ++c) {
                    spread[c] += scale * row[c] * row[c];
                }
            }
            return;
        }
        const std::array<const float*, tile> rows = row_pointers(room);
        simd::pack_key_tile(std::span(rows).first(num), dim, room.columns.data());
        for (std::size_t first = 0; first < dim; first += tile) {
            const std::size_t width = (std::min)(tile, dim - first);
            for (std::size_t q = 0; q < num; ++q) {
                float* const out = room.block.data() + q * tile;
                std::copy_n(rows[q] + first, width, out);
                std::fill(out + width, out + tile, 0.0F);
            }
            simd::tile_logits(room.columns.data() + first * tile,
                              tile,
                              dim - first,
                              room.block.data(),
                              num,
                              scale,
                              room.product.data(),
                              tile,
                              width);
            for (std::size_t r = first; r < dim; ++r) {
                const float* const in = room.product.data() + (r - first) * tile;
                for (std::size_t c = 0; c < width; ++c) {
                    spread[r * dim + first + c] += in[c];
                }
            }
        }
    }

    /// @param logits  [group + 1, seq_len]
    template <KvSource Kv>
    void expect(const Kv& kv,
                std::size_t head,
                std::size_t group,
                const buffers& room,
                std::span<float> logits,
                std::span<float> out) const noexcept {
        const std::size_t dim = room.dim;
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
                add_logits(head * group + i, room, sums);
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
    void add_logits(std::size_t q_head,
                    const buffers& room,
                    std::array<float, tile>& sums) const noexcept {
        const std::size_t dim = room.dim;
        const std::size_t size = spread_size(dim);
        const float* const means = room.means.data() + q_head * dim;
        const float* const spread = room.spreads.data() + q_head * size;
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
