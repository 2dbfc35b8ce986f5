// SPDX-License-Identifier: Apache-2.0
/// @file
/// How the lanes of attend() share its work: with few queries each takes some of the rows, with many some of the queries.
/// What a lane computes never depends on how many there are.
#pragma once

#include <kvcrush/attend/attend_options.hpp>
#include <kvcrush/attend/detail/attend_rows.hpp>
#include <kvcrush/attend/detail/attend_work.hpp>
#include <kvcrush/attend/partial_attention.hpp>
#include <kvcrush/core/executor.hpp>
#include <kvcrush/simd/exp.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace detail {

[[nodiscard]] inline partial_attention
partial_in(std::span<float> memory, const attend_work& work, const query_block& block) noexcept {
    return {memory.first(partial_attention::size(block.num_rows(), work.value_dim)),
            block.num_rows()};
}

/// Turns kept logits of one query into weights. @param seen  rows that it sees
inline void finish_weights(std::span<float> row,
                           std::size_t seen,
                           float log_sum_exp,
                           bool has_weights,
                           simd::isa rung) noexcept {
    const std::span<float> kept = row.first(has_weights ? seen : 0);
    for (float& weight : kept) {
        weight -= log_sum_exp;
    }
    simd::exp_many(kept, kept, rung);
    std::fill(row.begin() + static_cast<std::ptrdiff_t>(kept.size()), row.end(), 0.0F);
}

/// Writes what the caller wants to know of a block whose rows have all been seen.
inline void store_block(const attend_work& work,
                        std::size_t kv_head,
                        const query_block& block,
                        const partial_attention& whole,
                        std::span<float> output) noexcept {
    const attend_options& how = work.options;
    const std::size_t num_queries = work.queries.num_queries();
    const std::size_t total = rows_of(work.heads[kv_head]);
    for (std::size_t r = 0; r < block.num_rows(); ++r) {
        const std::size_t row = work.row_index(kv_head, block, r);
        const std::size_t query = row % num_queries;
        if (!how.sinks.empty()) {
            whole.add_mass(r, how.sinks[row / num_queries]);
        }
        whole.output(r,
                     output.subspan(row / num_queries * how.output.head + query * how.output.token),
                     how.output.dim);
        const float log_sum_exp = whole.log_sum_exp(r);
        if (!how.log_sum_exp.empty()) {
            how.log_sum_exp[row] = log_sum_exp;
        }
        if (!how.weights.empty()) {
            finish_weights(how.weights.subspan(row * how.weights_stride, total),
                           work.visible(total, query),
                           log_sum_exp,
                           whole.sum[r] > 0.0F,
                           work.rung);
        }
    }
}

/// The parts of all heads that one lane works on: neighbours, about as many rows as any other lane.
/// @param partials  one for each part of all heads
inline void attend_parts(const attend_work& work,
                         std::size_t lane,
                         const query_block& block,
                         std::span<float> partials) noexcept {
    const std::span<float> memory = work.memory.subspan(lane * work.lane_size, work.lane_size);
    std::size_t all_rows = 0;
    for (const attend_head head : work.heads) {
        all_rows += rows_of(head);
    }
    const auto is_mine = [&](std::size_t row) {
        return row * work.options.num_lanes / all_rows == lane;
    };
    std::size_t part = 0; // of all heads
    std::size_t row = 0;  // of all heads
    for (std::size_t head = 0; head < work.heads.size(); ++head) {
        const std::size_t total = rows_of(work.heads[head]);
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
                const segment_queries queries(work, head, segment, block, memory);
                const std::size_t end_row = (std::min)(end * attend_part, segment.count);
                for (; first < end; ++first) {
                    const partial_attention partial =
                        partial_in(partials.subspan((part + first) * work.part_size), work, block);
                    partial.clear();
                    const std::size_t at = first * attend_part;
                    const std::size_t count = (std::min)(attend_part, segment.count - at);
                    attend_rows(work,
                                {head, segment, at, count, before + at, total, end_row},
                                block,
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

/// Block after block: lanes share the rows, then parts are put together in order.
template <Executor E>
void attend_few(const attend_work& work, std::span<float> output, E&& execute) noexcept {
    const std::size_t num_parts = total_parts(work.heads);
    const std::span<float> partials = work.memory.subspan(work.options.num_lanes * work.lane_size);
    for (std::size_t b = 0; b < work.num_blocks(); ++b) {
        const query_block block = work.block(b);
        const auto lane_task = [&](std::size_t lane) noexcept {
            attend_parts(work, lane, block, partials);
        };
        execute(work.options.num_lanes, lane_task);
        const partial_attention whole =
            partial_in(partials.subspan(num_parts * work.part_size), work, block);
        std::size_t part = 0;
        for (std::size_t head = 0; head < work.heads.size(); ++head) {
            whole.clear();
            for (const std::size_t end = part + parts_of(work.heads[head]); part < end; ++part) {
                whole.merge(partial_in(partials.subspan(part * work.part_size), work, block));
            }
            store_block(work, head, block, whole, output);
        }
    }
}

/// All rows of a kv head for one block of its queries.
inline void attend_block(const attend_work& work,
                         std::size_t kv_head,
                         const query_block& block,
                         std::span<float> memory,
                         std::span<float> output) noexcept {
    const partial_attention whole = partial_in(memory, work, block);
    const partial_attention part = partial_in(memory.subspan(work.part_size), work, block);
    whole.clear();
    const std::size_t total = rows_of(work.heads[kv_head]);
    std::size_t before = 0;
    for (const attend_segment& segment : work.heads[kv_head]) {
        if (segment.count > 0) {
            const segment_queries queries(
                work, kv_head, segment, block, memory.subspan(2 * work.part_size));
            part.clear();
            attend_rows(work,
                        {kv_head, segment, 0, segment.count, before, total, segment.count},
                        block,
                        queries,
                        part);
            whole.merge(part);
        }
        before += segment.count;
    }
    store_block(work, kv_head, block, whole, output);
}

/// Lanes share the blocks: neighbours go to different lanes, as later queries see more rows.
template <Executor E>
void attend_many(const attend_work& work, std::span<float> output, E&& execute) noexcept {
    const std::size_t num_heads = work.heads.size();
    const auto lane_task = [&](std::size_t lane) noexcept {
        const std::span<float> memory = work.memory.subspan(lane * work.lane_size, work.lane_size);
        for (std::size_t i = lane; i < num_heads * work.num_blocks(); i += work.options.num_lanes) {
            attend_block(work, i % num_heads, work.block(i / num_heads), memory, output);
        }
    };
    execute(work.options.num_lanes, lane_task);
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
