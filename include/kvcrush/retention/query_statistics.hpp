// SPDX-License-Identifier: Apache-2.0
/// @file
/// How queries are spread, seen from positions still to come.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/rope.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/simd/dot.hpp>
#include <kvcrush/simd/logits.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <string_view>

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
    static constexpr named_value<query_covariance> values[] = {
        {"full", query_covariance::full},
        {"diagonal", query_covariance::diagonal},
        {"none", query_covariance::none}};
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

/// Mean and covariance of the queries of each head, turned to the next positions of the sequence.
///
///     q'    = R_i q, R_i = mean of the rotations from the position of query i to n, ..., n + num_future - 1
///     mu    = mean of q'
///     Sigma = mean of (q' - mu)(q' - mu)^T
///
/// Rotations add up, so each query is turned from its own place to the middle of the future at once, and only the
/// distance counts: no position is needed, and the rotations of num_future positions cost as much as one.
class query_statistics {
public:
    struct options {
        /// Positions ahead.
        std::size_t num_future = 1;
        /// Queries of so many first tokens of the sequence are left out.
        std::size_t num_sink_tokens = 0;
        query_covariance covariance = query_covariance::full;
        kvcrush::rope rope = {};
    };

    /// Numbers that the spread of one head has.
    [[nodiscard]] static constexpr std::size_t spread_size(query_covariance covariance,
                                                           std::size_t head_dim) noexcept {
        return covariance == query_covariance::full       ? head_dim * head_dim
               : covariance == query_covariance::diagonal ? head_dim
                                                          : 0;
    }

    /// Memory that the statistics stay in [bytes].
    [[nodiscard]] static std::size_t held_bytes(query_covariance covariance,
                                                std::size_t num_q_heads,
                                                std::size_t head_dim) noexcept {
        return scratch::bytes<float>(num_q_heads * head_dim) +
               scratch::bytes<float>(num_q_heads * spread_size(covariance, head_dim));
    }

    /// Memory that making them needs besides [bytes].
    [[nodiscard]] static std::size_t working_bytes(std::size_t num_q_heads,
                                                   std::size_t head_dim) noexcept {
        return 3 * scratch::bytes<double>(head_dim / 2) +
               2 * scratch::bytes<float>(tile * (head_dim / 2)) +
               3 * scratch::bytes<float>(tile * head_dim) + scratch::bytes<float>(tile * tile) +
               scratch::bytes<double>(num_q_heads * head_dim);
    }

    /// @param queries  [num_q_heads, num_queries, head_dim], after RoPE, the last ones of the sequence
    /// @param memory   held_bytes() are taken; working_bytes() behind them are free again afterwards
    /// @pre   queries.num_queries() <= seq_len; wanted.rope.validate_for(head_dim) does not throw
    /// @note  O(num_q_heads * num_queries * head_dim^2), without the full covariance * head_dim
    query_statistics(const options& wanted,
                     const query_view& queries,
                     std::size_t seq_len,
                     scratch& memory) noexcept
        : covariance_(wanted.covariance),
          dim_(queries.head_dim()),
          means_(memory.take<float>(queries.num_q_heads() * dim_)),
          spreads_(
              memory.take<float>(queries.num_q_heads() * spread_size(wanted.covariance, dim_))) {
        const workspace room(wanted, queries, memory);
        learn(wanted, queries, seq_len, room);
    }

    /// mu / sqrt(head_dim), [head_dim]: what a key is multiplied with.
    [[nodiscard]] std::span<const float> mean(std::size_t q_head) const noexcept {
        return std::span<const float>(means_).subspan(q_head * dim_, dim_);
    }

    /// Sigma / (2 head_dim), [spread_size]: its diagonal, or all of it with what is below the diagonal doubled and what
    /// is above it 0, so that
    ///
    ///     key^T Sigma key / (2 head_dim) = sum over r of key_r * (sum over c <= r of spread[r, c] * key_c)
    [[nodiscard]] std::span<const float> spread(std::size_t q_head) const noexcept {
        const std::size_t size = spread_size(covariance_, dim_);
        return std::span<const float>(spreads_).subspan(q_head * size, size);
    }

private:
    /// Queries at a time.
    static constexpr std::size_t tile = simd::key_tile;

    struct workspace {
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

        workspace(const options& wanted, const query_view& queries, scratch memory) noexcept
            : dim(queries.head_dim()), num_pairs(wanted.rope.num_pairs(dim)) {
            KVCRUSH_ASSERT(num_pairs <= dim / 2);
            angles = memory.take<double>(dim / 2).first(num_pairs);
            step_cos = memory.take<double>(dim / 2).first(num_pairs);
            step_sin = memory.take<double>(dim / 2).first(num_pairs);
            cos = memory.take<float>(tile * (dim / 2));
            sin = memory.take<float>(tile * (dim / 2));
            rows = memory.take<float>(tile * dim);
            columns = memory.take<float>(tile * dim);
            product = memory.take<float>(tile * dim);
            block = memory.take<float>(tile * tile);
            sums = memory.take<double>(queries.num_q_heads() * dim);
            wanted.rope.write_frequencies(angles);
            for (std::size_t i = 0; i < num_pairs; ++i) {
                step_cos[i] = std::cos(angles[i]);
                step_sin[i] = -std::sin(angles[i]); // the next query is one position nearer
            }
        }
    };

    /// Mean and covariance of the turned queries of all heads, multiplied by what the logits multiply them by.
    void learn(const options& wanted,
               const query_view& queries,
               std::size_t seq_len,
               const workspace& room) noexcept {
        const std::size_t dim = room.dim;
        const std::size_t total = queries.num_queries();
        const std::size_t before = seq_len - total; // tokens without a query
        const std::size_t first = (std::min)(
            total, wanted.num_sink_tokens > before ? wanted.num_sink_tokens - before : 0);
        const auto count = static_cast<double>((std::max)(total - first, std::size_t{1}));
        std::fill(room.sums.begin(), room.sums.end(), 0.0);
        std::fill(spreads_.begin(), spreads_.end(), 0.0F);
        for (std::size_t begin = first; begin < total; begin += tile) {
            const std::size_t num = (std::min)(tile, total - begin);
            find_turns(wanted.num_future, total - begin, num, room);
            for (std::size_t head = 0; head < queries.num_q_heads(); ++head) {
                turn(wanted.rope.pairing, queries, head, begin, num, room);
                add_sums(num, room, room.sums.subspan(head * dim, dim));
            }
        }
        for (double& sum : room.sums) {
            sum /= count;
        }
        const auto scale = static_cast<float>(1.0 / (2.0 * static_cast<double>(dim) * count));
        for (std::size_t begin = first; begin < total && !spreads_.empty(); begin += tile) {
            const std::size_t num = (std::min)(tile, total - begin);
            find_turns(wanted.num_future, total - begin, num, room);
            for (std::size_t head = 0; head < queries.num_q_heads(); ++head) {
                turn(wanted.rope.pairing, queries, head, begin, num, room);
                centre(num, room, room.sums.subspan(head * dim, dim));
                const std::size_t size = spread_size(covariance_, dim);
                add_spread(num, room, scale, spreads_.subspan(head * size, size));
            }
        }
        const double root = std::sqrt(static_cast<double>(dim));
        for (std::size_t i = 0; i < means_.size(); ++i) {
            means_[i] = static_cast<float>(room.sums[i] / root);
        }
        if (covariance_ == query_covariance::full) {
            // k^T S k = sum over rows of k_r (S_rr k_r + 2 sum over c < r of S_rc k_c)
            for (std::size_t i = 0; i < spreads_.size(); ++i) {
                const std::size_t row = i / dim % dim;
                spreads_[i] *= i % dim < row ? 2.0F : i % dim == row ? 1.0F : 0.0F;
            }
        }
    }

    /// How far each of some queries turns: from its place, `distance` and less before the end, to the middle of what
    /// comes.
    static void find_turns(std::size_t num_future,
                           std::size_t distance,
                           std::size_t num,
                           const workspace& room) noexcept {
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
    static void turn(rope_pairs pairing,
                     const query_view& queries,
                     std::size_t head,
                     std::size_t begin,
                     std::size_t num,
                     const workspace& room) noexcept {
        constexpr std::size_t step = 8; // a fixed count, so that -O2 makes vectors of it
        const std::size_t pairs = room.num_pairs;
        for (std::size_t q = 0; q < num; ++q) {
            const float* const in = queries.row(head, begin + q);
            const float* const cos = room.cos.data() + q * pairs;
            const float* const sin = room.sin.data() + q * pairs;
            float* const out = room.rows.data() + q * room.dim;
            std::size_t i = 0;
            if (pairing == rope_pairs::half_split) {
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
                const bool together = pairing == rope_pairs::interleaved;
                const std::size_t x = together ? 2 * i : i;
                const std::size_t y = together ? 2 * i + 1 : pairs + i;
                out[x] = cos[i] * in[x] - sin[i] * in[y];
                out[y] = sin[i] * in[x] + cos[i] * in[y];
            }
            std::copy(in + 2 * pairs, in + room.dim, out + 2 * pairs);
        }
    }

    [[nodiscard]] static std::array<const float*, tile>
    row_pointers(const workspace& room) noexcept {
        std::array<const float*, tile> rows;
        for (std::size_t q = 0; q < tile; ++q) {
            rows[q] = room.rows.data() + q * room.dim;
        }
        return rows;
    }

    static void add_sums(std::size_t num, const workspace& room, std::span<double> sums) noexcept {
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
    centre(std::size_t num, const workspace& room, std::span<const double> means) noexcept {
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
                    const workspace& room,
                    float scale,
                    std::span<float> spread) const noexcept {
        const std::size_t dim = room.dim;
        if (covariance_ == query_covariance::diagonal) {
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

    query_covariance covariance_;
    std::size_t dim_;
    std::span<float> means_;   // [num_q_heads, dim]
    std::span<float> spreads_; // [num_q_heads, spread_size]
};

} // namespace v0
} // namespace kvcrush
