// SPDX-License-Identifier: Apache-2.0
/// @file
/// Attention of one or a few new tokens over rows as they are stored: dense, encoded, selected, in pages, another number
/// of them per kv head, keys and values of different codecs.
#pragma once

#include <kvcrush/attend/detail/running_softmax.hpp>
#include <kvcrush/attend/partial_attention.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/executor.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/simd/exp.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// A run of rows of one kv head that are stored alike.
struct attend_segment {
    std::size_t count = 0;
    stored_rows keys{};
    const row_kernels* key_kernels = nullptr;
    stored_rows values{};
    const row_kernels* value_kernels = nullptr;
    /// What was subtracted from the keys before they were encoded, [key_dim]; nullptr for nothing.
    const float* key_mean = nullptr;
};

/// The segments of one kv head in the order of the sequence, such as sinks, encoded rows, recent rows. May be empty.
using attend_head = std::span<const attend_segment>;

struct attend_options {
    /// Of the logits; 0 stands for 1 / sqrt(head_dim).
    float scale = 0.0F;
    /// If not empty, receives the attention weights [num_q_heads, num_queries, weights_stride]: a row per query, one
    /// weight per row of its kv head, 0 for rows it must not see, nothing behind. For scorers that accumulate attention.
    std::span<float> weights{};
    std::size_t weights_stride = 0;
    /// If not empty, receives the logarithm of the sum of e^logit, [num_q_heads, num_queries], for engines that merge
    /// with attention of their own.
    std::span<float> log_sum_exp{};
    /// Pieces of work that may run side by side. The answer is the same, bit for bit, for any number.
    std::size_t num_lanes = 1;
};

namespace detail {

/// Rows that one piece of work covers: fixed, so that sums are formed in the same order at any number of lanes.
inline constexpr std::size_t attend_part = 1024;
/// Query rows that share a pass over the rows.
inline constexpr std::size_t attend_query_rows = 64;

[[nodiscard]] constexpr std::size_t parts_of(std::size_t count) noexcept {
    return (count + attend_part - 1) / attend_part;
}

[[nodiscard]] inline std::size_t rows_of(attend_head head) noexcept {
    std::size_t rows = 0;
    for (const attend_segment& segment : head) {
        rows += segment.count;
    }
    return rows;
}

[[nodiscard]] inline std::size_t parts_of(attend_head head) noexcept {
    std::size_t parts = 0;
    for (const attend_segment& segment : head) {
        parts += parts_of(segment.count);
    }
    return parts;
}

/// What one call works on, and where its memory lies.
struct attend_work {
    query_view queries;
    std::span<const attend_head> heads;
    std::size_t value_dim;
    attend_options options;
    float scale;
    std::size_t group;       ///< query heads per kv head
    std::size_t query_block; ///< queries that share a pass
    std::span<float> memory;
    std::size_t lane_size; ///< floats
    std::size_t part_size; ///< floats
    std::size_t num_lanes;
    simd::isa rung;
};

/// Some rows of one segment, for some queries of one kv head.
struct attend_piece {
    std::size_t head;
    const attend_segment& segment;
    std::size_t first;  ///< row of the segment
    std::size_t count;  ///< rows
    std::size_t before; ///< rows of the head before `first`
    std::size_t
        asked_end; ///< rows of the segment before this one are what the same lane reads next
};

/// Tokens whose queries share a pass over the rows.
struct query_run {
    std::size_t first;
    std::size_t count;
};

/// Queries of a block as rows [heads of the group, queries]: scaled, contiguous.
inline void gather_queries(const attend_work& work,
                           std::size_t head,
                           std::size_t first_query,
                           std::size_t num_queries,
                           float* out) noexcept {
    const std::size_t dim = work.queries.head_dim();
    for (std::size_t h = 0; h < work.group; ++h) {
        for (std::size_t q = 0; q < num_queries; ++q) {
            const float* from = work.queries.row(head * work.group + h, first_query + q);
            for (std::size_t c = 0; c < dim; ++c) {
                *out++ = work.scale * from[c];
            }
        }
    }
}

/// What all pieces of a segment share, in the memory of a lane.
struct segment_queries {
    float* prepared; ///< as the codec of the keys wants them
    float* logits;   ///< [rows][attend_tile]
    float* scratch;
    float bias[attend_query_rows]; ///< what the mean of the keys adds to the logits of each row

    segment_queries(const attend_work& work,
                    std::size_t head,
                    const attend_segment& segment,
                    query_run run,
                    std::span<float> lane) noexcept
        : bias{} {
        const std::size_t num_rows = work.group * run.count;
        const std::size_t key_dim = work.queries.head_dim();
        const row_kernels& keys = *segment.key_kernels;
        float* const gathered = lane.data();
        prepared = gathered + num_rows * key_dim;
        logits = prepared + keys.prepared_size(num_rows, key_dim);
        scratch = logits + num_rows * attend_tile;

        gather_queries(work, head, run.first, run.count, gathered);
        keys.prepare(keys, gathered, num_rows, key_dim, prepared);
        if (segment.key_mean != nullptr) {
            for (std::size_t r = 0; r < num_rows; ++r) {
                for (std::size_t c = 0; c < key_dim; ++c) {
                    bias[r] += gathered[r * key_dim + c] * segment.key_mean[c];
                }
            }
        }
    }
};

/// Puts logits in place of the weights that the caller wants; they are made weights when the sum of all is known.
inline void keep_logits(const attend_work& work,
                        std::size_t head,
                        query_run run,
                        const segment_queries& from,
                        const std::size_t* seen,
                        std::size_t before,
                        std::size_t count) noexcept {
    for (std::size_t r = 0; r < work.group * run.count; ++r) {
        const std::size_t row = (head * work.group + r / run.count) * work.queries.num_queries() +
                                run.first + r % run.count;
        const std::span<float> kept =
            work.options.weights.subspan(row * work.options.weights_stride + before, count);
        for (std::size_t t = 0; t < seen[r]; ++t) {
            kept[t] = from.logits[r * attend_tile + t] + from.bias[r];
        }
        std::fill(kept.begin() + static_cast<std::ptrdiff_t>(seen[r]),
                  kept.end(),
                  -std::numeric_limits<float>::infinity());
    }
}

/// Adds to `partial` what the rows of a piece contribute. Values stay in the basis of their codec.
inline void attend_rows(const attend_work& work,
                        const attend_piece& piece,
                        query_run run,
                        const segment_queries& queries,
                        const partial_attention& partial) noexcept {
    const attend_segment& segment = piece.segment;
    const row_kernels& keys = *segment.key_kernels;
    const row_kernels& values = *segment.value_kernels;
    const std::size_t key_dim = work.queries.head_dim();
    const std::size_t num_rows = work.group * run.count;
    const std::size_t total = rows_of(work.heads[piece.head]);

    const std::size_t first_rows = (std::min)(attend_tile, piece.count);
    tile_rows key_rows[2];
    tile_rows value_rows[2];
    locate_rows(segment.keys, keys.group_size, piece.first, first_rows, key_rows[0]);
    locate_rows(segment.values, values.group_size, piece.first, first_rows, value_rows[0]);
    for (std::size_t done = 0, turn = 0; done < piece.count; done += attend_tile, turn ^= 1) {
        tile_rows& now_keys = key_rows[turn];
        tile_rows& now_values = value_rows[turn];
        const std::size_t count = now_keys.count;
        const std::size_t next = piece.first + done + count;
        now_keys.next = nullptr;
        now_values.next = nullptr;
        if (next < piece.asked_end) {
            const std::size_t next_count = (std::min)(attend_tile, piece.asked_end - next);
            locate_rows(segment.keys, keys.group_size, next, next_count, key_rows[turn ^ 1]);
            locate_rows(segment.values, values.group_size, next, next_count, value_rows[turn ^ 1]);
            now_keys.next = &key_rows[turn ^ 1];
            now_values.next = &value_rows[turn ^ 1];
        }
        keys.dots(
            keys, now_keys, queries.prepared, num_rows, key_dim, queries.logits, queries.scratch);
        const std::size_t before = piece.before + done;
        std::size_t seen[attend_query_rows];
        for (std::size_t q = 0; q < run.count; ++q) {
            // The last query sees all rows, each one before it a row less.
            const std::size_t hidden = work.queries.num_queries() - 1 - (run.first + q);
            const std::size_t visible = total > hidden ? total - hidden : 0;
            const std::size_t here = visible > before ? (std::min)(count, visible - before) : 0;
            for (std::size_t r = q; r < num_rows; r += run.count) {
                seen[r] = here;
            }
        }
        if (!work.options.weights.empty()) {
            keep_logits(work, piece.head, run, queries, seen, before, count);
        }
        softmax_tile({.logits = queries.logits,
                      .num_rows = num_rows,
                      .seen = seen,
                      .bias = queries.bias,
                      .largest = partial.largest.data(),
                      .sum = partial.sum.data(),
                      .values = partial.values.data(),
                      .value_dim = work.value_dim},
                     work.rung);
        values.accumulate(values,
                          now_values,
                          queries.logits,
                          num_rows,
                          work.value_dim,
                          partial.values.data(),
                          queries.scratch);
    }
    values.finish(values, partial.values.data(), num_rows, work.value_dim);
}

/// The parts of all heads that one lane works on: neighbours, about as many rows as any other lane.
/// @param partials  one for each part of all heads
inline void attend_lane(const attend_work& work,
                        std::size_t lane,
                        query_run run,
                        std::span<float> partials) noexcept {
    const std::span<float> memory = work.memory.subspan(lane * work.lane_size, work.lane_size);
    const std::size_t num_rows = work.group * run.count;
    std::size_t all_rows = 0;
    for (const attend_head head : work.heads) {
        all_rows += rows_of(head);
    }
    const auto is_mine = [&](std::size_t row) { return row * work.num_lanes / all_rows == lane; };
    std::size_t part = 0; // of all heads
    std::size_t row = 0;  // of all heads
    for (std::size_t head = 0; head < work.heads.size(); ++head) {
        std::size_t before = 0;
        for (const attend_segment& segment : work.heads[head]) {
            const std::size_t parts = parts_of(segment.count);
            std::size_t first = 0;
            while (first < parts && !is_mine(row + first * attend_part)) {
                ++first;
            }
            std::size_t end = first;
            while (end < parts && is_mine(row + end * attend_part)) {
                ++end;
            }
            if (first < end) {
                const segment_queries queries(work, head, segment, run, memory);
                const std::size_t end_row = (std::min)(end * attend_part, segment.count);
                for (; first < end; ++first) {
                    const partial_attention partial(
                        partials.subspan((part + first) * work.part_size,
                                         partial_attention::size(num_rows, work.value_dim)),
                        num_rows);
                    partial.clear();
                    const std::size_t at = first * attend_part;
                    const std::size_t count = (std::min)(attend_part, segment.count - at);
                    attend_rows(work,
                                {head, segment, at, count, before + at, end_row},
                                run,
                                queries,
                                partial);
                }
            }
            part += parts;
            row += segment.count;
            before += segment.count;
        }
    }
}

/// Floats that one lane works in.
[[nodiscard]] inline std::size_t lane_size(const attend_work& work) noexcept {
    const std::size_t num_rows = work.group * work.query_block;
    const std::size_t key_dim = work.queries.head_dim();
    std::size_t prepared = 0;
    std::size_t scratch = 0;
    for (const attend_head head : work.heads) {
        for (const attend_segment& segment : head) {
            prepared = (std::max)(prepared, segment.key_kernels->prepared_size(num_rows, key_dim));
            scratch =
                (std::max)({scratch,
                            kernel_scratch(segment.key_kernels->group_size, key_dim),
                            kernel_scratch(segment.value_kernels->group_size, work.value_dim)});
        }
    }
    return num_rows * (key_dim + attend_tile) + prepared + scratch;
}

[[nodiscard]] inline attend_work plan_attend(const query_view& queries,
                                             std::span<const attend_head> heads,
                                             std::size_t value_dim,
                                             const attend_options& options,
                                             simd::isa rung) noexcept {
    KVCRUSH_ASSERT(heads.empty() ? queries.num_q_heads() == 0
                                 : queries.num_q_heads() % heads.size() == 0);
    const std::size_t group = heads.empty() ? 0 : queries.num_q_heads() / heads.size();
    KVCRUSH_ASSERT(group <= attend_query_rows);
    attend_work work{
        .queries = queries,
        .heads = heads,
        .value_dim = value_dim,
        .options = options,
        .scale = options.scale == 0.0F ? 1.0F / std::sqrt(static_cast<float>(queries.head_dim()))
                                       : options.scale,
        .group = group,
        .query_block = group == 0
                           ? 0
                           : (std::min)(queries.num_queries(),
                                        (std::max)(std::size_t{1}, attend_query_rows / group)),
        .memory = {},
        .lane_size = 0,
        .part_size = 0,
        .num_lanes = (std::max)(options.num_lanes, std::size_t{1}),
        .rung = rung};
    work.lane_size = lane_size(work);
    work.part_size = partial_attention::size(group * work.query_block, value_dim);
    return work;
}

[[nodiscard]] inline std::size_t total_parts(std::span<const attend_head> heads) noexcept {
    std::size_t parts = 0;
    for (const attend_head head : heads) {
        parts += parts_of(head);
    }
    return parts;
}

} // namespace detail

/// Floats of memory that attend() needs.
[[nodiscard]] inline std::size_t attend_workspace(const query_view& queries,
                                                  std::span<const attend_head> heads,
                                                  std::size_t value_dim,
                                                  const attend_options& options = {}) noexcept {
    const detail::attend_work work =
        detail::plan_attend(queries, heads, value_dim, options, simd::isa::scalar);
    return work.num_lanes * work.lane_size + (detail::total_parts(heads) + 1) * work.part_size;
}

/// Softmax attention of the queries over all rows of their kv head.
///
///     output[h, i] = sum over rows r of softmax over r of (scale * q[h, i] . key[r]) * value[r]
///
/// The queries are the last tokens of the sequence, whose own rows are the last ones: query i of n sees all rows but the
/// last n - 1 - i. A head without rows gives zeros. Products and sums are formed in fp32, each row is read once for all
/// queries of its kv head, and the softmax runs along with the rows. Rows are taken in parts of fixed length, whose
/// results are put together in order.
/// @param[in]  queries    [num_q_heads, num_queries, key_dim], after RoPE, unscaled
/// @param[in]  heads      [num_kv_heads]
/// @param[out] output     [num_q_heads, num_queries, value_dim]
/// @param      workspace  attend_workspace(...) floats
/// @param      execute    runs `options.num_lanes` pieces of work
/// @note O(num_q_heads * num_queries * rows * head_dim)
template <Executor E = serial_executor>
void attend(const query_view& queries,
            std::span<const attend_head> heads,
            std::size_t value_dim,
            std::span<float> output,
            std::span<float> workspace,
            const attend_options& options = {},
            E&& execute = {},
            simd::isa at_most = simd::best()) noexcept {
    const std::size_t num_queries = queries.num_queries();
    KVCRUSH_ASSERT(output.size() == queries.num_q_heads() * num_queries * value_dim);
    KVCRUSH_ASSERT(workspace.size() >= attend_workspace(queries, heads, value_dim, options));
    detail::attend_work work =
        detail::plan_attend(queries, heads, value_dim, options, simd::usable(at_most));
    work.memory = workspace;
    const std::size_t num_parts = detail::total_parts(heads);
    const std::span<float> partials = workspace.subspan(work.num_lanes * work.lane_size);
    for (std::size_t query = 0; query < num_queries; query += work.query_block) {
        const std::size_t count = (std::min)(work.query_block, num_queries - query);
        const std::size_t num_rows = work.group * count;
        const auto lane_task = [&](std::size_t lane) noexcept {
            detail::attend_lane(work, lane, {query, count}, partials);
        };
        execute(work.num_lanes, lane_task);
        std::size_t p = 0;
        const partial_attention whole(
            partials.subspan(num_parts * work.part_size,
                             partial_attention::size(num_rows, value_dim)),
            num_rows);
        for (std::size_t head = 0; head < heads.size(); ++head) {
            whole.clear();
            for (const std::size_t end = p + detail::parts_of(heads[head]); p < end; ++p) {
                whole.merge({partials.subspan(p * work.part_size,
                                              partial_attention::size(num_rows, value_dim)),
                             num_rows});
            }
            for (std::size_t r = 0; r < num_rows; ++r) {
                const std::size_t row =
                    (head * work.group + r / count) * num_queries + query + r % count;
                whole.output(r, output.subspan(row * value_dim, value_dim));
                if (!options.log_sum_exp.empty()) {
                    options.log_sum_exp[row] = whole.log_sum_exp(r);
                }
                if (!options.weights.empty() && whole.sum[r] > 0.0F) {
                    const std::span<float> weights = options.weights.subspan(
                        row * options.weights_stride, detail::rows_of(heads[head]));
                    const float shift = whole.log_sum_exp(r);
                    for (float& weight : weights) {
                        weight -= shift;
                    }
                    simd::exp_many(weights, weights, work.rung);
                }
            }
        }
    }
}

} // namespace v0
} // namespace kvcrush
