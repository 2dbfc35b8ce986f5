// SPDX-License-Identifier: Apache-2.0
/// @file
/// One call of attend(): how its queries are cut into blocks, what memory that takes, and whether it can be done.
#pragma once

#include <kvcrush/attend/attend_options.hpp>
#include <kvcrush/attend/detail/decoded_kernels.hpp>
#include <kvcrush/attend/partial_attention.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/core/layout.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Rows that one piece of work covers: fixed, so that sums are formed in the same order at any number of lanes.
inline constexpr std::size_t attend_part = 1024;
/// From so many queries on, lanes share the queries and not the rows: no partial results lie in memory.
inline constexpr std::size_t attend_many_queries = 32;
/// Each takes memory of its own; no machine runs more of them.
inline constexpr std::size_t most_attend_lanes = 4096;
/// Query rows that share a pass over the rows at most: with few queries, as each part holds results of all of them; with
/// many, so that they stay in L2 and a decoded tile serves all of them.
inline constexpr std::size_t attend_few_rows = 64;
inline constexpr std::size_t attend_many_rows = 192;

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

[[nodiscard]] inline std::size_t total_parts(std::span<const attend_head> heads) noexcept {
    std::size_t parts = 0;
    for (const attend_head head : heads) {
        parts += parts_of(head);
    }
    return parts;
}

/// Query rows that share a pass over the rows of their kv head: row r is query r % num_queries of head r / num_queries.
struct query_block {
    std::size_t first_head; ///< within the group
    std::size_t num_heads;
    std::size_t first_query;
    std::size_t num_queries;

    [[nodiscard]] constexpr std::size_t num_rows() const noexcept {
        return num_heads * num_queries;
    }
};

/// What one call works on, and where its memory lies.
struct attend_work {
    query_view queries;
    std::span<const attend_head> heads;
    std::size_t value_dim;
    attend_options options;    ///< with everything that 0 stood for
    std::size_t group;         ///< query heads per kv head
    std::size_t block_heads;   ///< query heads of a block
    std::size_t block_queries; ///< queries of a block
    bool many_queries;
    std::span<float> memory;
    std::size_t lane_size; ///< floats
    std::size_t part_size; ///< floats
    simd::isa rung;

    [[nodiscard]] std::size_t block_rows() const noexcept { return block_heads * block_queries; }

    /// Blocks that the queries of one kv head are cut into.
    [[nodiscard]] std::size_t num_blocks() const noexcept {
        return block_rows() == 0 ? 0
                                 : head_blocks() * blocks_of(queries.num_queries(), block_queries);
    }
    [[nodiscard]] query_block block(std::size_t index) const noexcept {
        const std::size_t head = index % head_blocks() * block_heads;
        const std::size_t query = index / head_blocks() * block_queries;
        return {head,
                (std::min)(block_heads, group - head),
                query,
                (std::min)(block_queries, queries.num_queries() - query)};
    }
    /// Index of the query head and the query of a row of a block, [num_q_heads, num_queries].
    [[nodiscard]] std::size_t
    row_index(std::size_t kv_head, const query_block& block, std::size_t row) const noexcept {
        return (kv_head * group + block.first_head + row / block.num_queries) *
                   queries.num_queries() +
               block.first_query + row % block.num_queries;
    }
    /// Rows of `total` that a query may see, before a mask is asked: the last query all, each one before it a row less.
    [[nodiscard]] std::size_t visible(std::size_t total, std::size_t query) const noexcept {
        if (!options.mask.empty()) {
            return total;
        }
        const std::size_t hidden = queries.num_queries() - 1 - query;
        return total > hidden ? total - hidden : 0;
    }
    /// Rows of `total` that some query of a block sees.
    [[nodiscard]] std::size_t visible(std::size_t total, const query_block& block) const noexcept {
        return visible(total, block.first_query + block.num_queries - 1);
    }
    /// Whether something happens to logits between products and softmax.
    [[nodiscard]] bool shapes_logits() const noexcept {
        return options.soft_cap > 0.0F || !options.mask.empty();
    }
    /// Whether tiles are decoded for so many query rows. One query keeps to the kernels of the codec.
    [[nodiscard]] bool decodes(const row_kernels& kernels, std::size_t num_rows) const noexcept {
        return queries.num_queries() > 1 && num_rows >= kernels.decoding_from;
    }
    /// Floats of workspace.
    [[nodiscard]] std::size_t size() const noexcept {
        return options.num_lanes * lane_size +
               (many_queries ? 0 : (total_parts(heads) + 1) * part_size);
    }

private:
    [[nodiscard]] static constexpr std::size_t blocks_of(std::size_t count,
                                                         std::size_t size) noexcept {
        return (count + size - 1) / size;
    }
    [[nodiscard]] std::size_t head_blocks() const noexcept { return blocks_of(group, block_heads); }
};

/// Floats that one lane works in.
[[nodiscard]] inline std::size_t lane_size_of(const attend_work& work) noexcept {
    const std::size_t num_rows = work.block_rows();
    const std::size_t key_dim = work.queries.head_dim();
    std::size_t prepared = 0;
    std::size_t scratch = 0;
    for (const attend_head head : work.heads) {
        for (const attend_segment& segment : head) {
            if (segment.key_kernels == nullptr || segment.value_kernels == nullptr) {
                continue;
            }
            const row_kernels& keys = *segment.key_kernels;
            prepared = (std::max)(prepared, keys.prepared_size(num_rows, key_dim));
            scratch =
                (std::max)({scratch,
                            work.decodes(keys, num_rows) ? packing_scratch(keys.group_size, key_dim)
                                                         : kernel_scratch(keys.group_size, key_dim),
                            kernel_scratch(segment.value_kernels->group_size, work.value_dim)});
        }
    }
    // Queries, logits and biases; results of one segment and of all.
    return num_rows * (key_dim + attend_tile + 1) + prepared + scratch +
           (work.many_queries ? 2 * work.part_size : 0);
}

[[nodiscard]] inline attend_work plan_attend(const query_view& queries,
                                             std::span<const attend_head> heads,
                                             std::size_t value_dim,
                                             const attend_options& options,
                                             simd::isa rung) noexcept {
    const std::size_t num_queries = queries.num_queries();
    const std::size_t group = heads.empty() ? 0 : queries.num_q_heads() / heads.size();
    const bool many = num_queries >= attend_many_queries;
    const std::size_t most = many ? attend_many_rows : attend_few_rows;
    const std::size_t head_blocks = (std::max)(std::size_t{1}, (group + most - 1) / most);
    const std::size_t block_heads = (group + head_blocks - 1) / head_blocks;
    attend_work work{.queries = queries,
                     .heads = heads,
                     .value_dim = value_dim,
                     .options = options,
                     .group = group,
                     .block_heads = block_heads,
                     .block_queries =
                         block_heads == 0 ? 0 : (std::min)(num_queries, most / block_heads),
                     .many_queries = many,
                     .memory = {},
                     .lane_size = 0,
                     .part_size = 0,
                     .rung = rung};
    attend_options& how = work.options;
    if (how.scale == 0.0F) {
        how.scale = 1.0F / std::sqrt(static_cast<float>(queries.head_dim()));
    }
    if (how.output == kv_strides{}) {
        how.output = {num_queries * value_dim, value_dim, 1};
    }
    std::size_t longest = 0;
    for (const attend_head head : heads) {
        longest = (std::max)(longest, rows_of(head));
    }
    how.weights_stride = how.weights_stride == 0 ? longest : how.weights_stride;
    how.mask.stride = how.mask.stride == 0 ? longest : how.mask.stride;
    how.num_lanes = (std::clamp)(how.num_lanes, std::size_t{1}, most_attend_lanes);
    work.part_size = partial_attention::size(work.block_rows(), value_dim);
    work.lane_size = lane_size_of(work);
    return work;
}

/// Whether a tensor of these extents and strides lies within `size` elements, none of them over another along an axis.
[[nodiscard]] constexpr bool
holds(std::size_t size, const std::size_t (&extents)[3], const std::size_t (&strides)[3]) noexcept {
    if (extents[0] == 0 || extents[1] == 0 || extents[2] == 0) {
        return true;
    }
    for (std::size_t axis = 0; axis < 3; ++axis) {
        const std::size_t reach = saturating_multiply(extents[axis] - 1, strides[axis]);
        if (reach >= size || (reach == 0 && extents[axis] > 1)) {
            return false;
        }
        size -= reach;
    }
    return size > 0;
}

/// Whether mask, soft-cap and sinks fit. @param longest  rows of the longest head
[[nodiscard]] inline attend_status check_shaping(const attend_work& work,
                                                 std::size_t longest) noexcept {
    const attend_options& how = work.options;
    const std::size_t num_q_heads = work.queries.num_q_heads();
    if (!how.mask.empty() &&
        (how.mask.stride < longest || (!how.mask.halves.empty() && !how.mask.floats.empty()) ||
         !holds(
             how.mask.size(), {1, work.queries.num_queries(), longest}, {1, how.mask.stride, 1}))) {
        return attend_status::mask_too_small;
    }
    if ((!how.mask.slopes.empty() && how.mask.slopes.size() != num_q_heads) ||
        (!how.sinks.empty() && how.sinks.size() != num_q_heads)) {
        return attend_status::not_one_per_head;
    }
    if (!(how.soft_cap >= 0.0F && how.soft_cap <= (std::numeric_limits<float>::max)())) {
        return attend_status::soft_cap_not_finite;
    }
    return attend_status::done;
}

/// Whether a call can be done.
[[nodiscard]] inline attend_status check_attend(const attend_work& work,
                                                std::span<const float> output,
                                                std::span<const float> workspace) noexcept {
    const std::size_t num_q_heads = work.queries.num_q_heads();
    const std::size_t num_queries = work.queries.num_queries();
    if (work.group * work.heads.size() != num_q_heads) {
        return attend_status::heads_do_not_divide;
    }
    std::size_t longest = 0;
    for (const attend_head head : work.heads) {
        longest = (std::max)(longest, rows_of(head));
        for (const attend_segment& segment : head) {
            if (segment.count > 0 &&
                (segment.key_kernels == nullptr || segment.value_kernels == nullptr)) {
                return attend_status::segment_without_kernels;
            }
        }
    }
    const attend_options& how = work.options;
    if (!holds(output.size(),
               {num_q_heads, num_queries, work.value_dim},
               {how.output.head, how.output.token, how.output.dim})) {
        return attend_status::output_too_small;
    }
    const std::size_t stride = how.weights_stride;
    if (!how.weights.empty() &&
        (stride < longest || !holds(how.weights.size(),
                                    {num_q_heads, num_queries, longest},
                                    {saturating_multiply(num_queries, stride), stride, 1}))) {
        return attend_status::weights_too_small;
    }
    if (!how.log_sum_exp.empty() &&
        !holds(how.log_sum_exp.size(), {num_q_heads, num_queries, 1}, {num_queries, 1, 1})) {
        return attend_status::log_sum_exp_too_small;
    }
    const attend_status shaping = check_shaping(work, longest);
    if (shaping != attend_status::done) {
        return shaping;
    }
    return workspace.size() < work.size() ? attend_status::workspace_too_small
                                          : attend_status::done;
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
