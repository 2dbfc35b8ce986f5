// SPDX-License-Identifier: Apache-2.0
/// @file
/// The inner loop of attend(): some rows of a segment for a block of queries, a tile at a time.
#pragma once

#include <kvcrush/attend/attend_options.hpp>
#include <kvcrush/attend/detail/attend_work.hpp>
#include <kvcrush/attend/detail/decoded_kernels.hpp>
#include <kvcrush/attend/detail/running_softmax.hpp>
#include <kvcrush/attend/detail/shaped_logits.hpp>
#include <kvcrush/attend/partial_attention.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/attend/stored_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Some rows of one segment of a kv head.
struct attend_piece {
    std::size_t head;
    const attend_segment& segment;
    std::size_t first;     ///< row of the segment
    std::size_t count;     ///< rows
    std::size_t before;    ///< rows of the head before `first`
    std::size_t total;     ///< rows of the head
    std::size_t asked_end; ///< the same lane reads on up to this row of the segment
};

/// Queries of a block, scaled, as contiguous rows.
inline void gather_queries(const attend_work& work,
                           std::size_t kv_head,
                           const query_block& block,
                           float* out) noexcept {
    const std::size_t dim = work.queries.head_dim();
    const std::size_t first_head = kv_head * work.group + block.first_head;
    for (std::size_t h = 0; h < block.num_heads; ++h) {
        for (std::size_t q = 0; q < block.num_queries; ++q) {
            const float* from = work.queries.row(first_head + h, block.first_query + q);
            for (std::size_t c = 0; c < dim; ++c) {
                *out++ = work.options.scale * from[c];
            }
        }
    }
}

/// What all pieces of a segment share, in the memory of a lane.
struct segment_queries {
    float* bias;     ///< what the mean of the keys adds to the logits of each row
    float* logits;   ///< [rows][attend_tile]
    float* prepared; ///< as the codec of the keys wants them
    float* scratch;

    segment_queries(const attend_work& work,
                    std::size_t kv_head,
                    const attend_segment& segment,
                    const query_block& block,
                    std::span<float> lane) noexcept {
        const std::size_t num_rows = block.num_rows();
        const std::size_t key_dim = work.queries.head_dim();
        const row_kernels& keys = *segment.key_kernels;
        float* const gathered = lane.data();
        bias = lane.last(num_rows)
                   .data(); // an odd number of floats: not before what vectors are loaded from
        logits = gathered + num_rows * key_dim;
        prepared = logits + num_rows * attend_tile;
        scratch = prepared + keys.prepared_size(num_rows, key_dim);

        gather_queries(work, kv_head, block, gathered);
        keys.prepare(keys, gathered, num_rows, key_dim, prepared);
        std::fill_n(bias, num_rows, 0.0F);
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
/// @param seen  [rows of the block], how many of the tile's rows each sees
inline void keep_logits(const attend_work& work,
                        std::size_t kv_head,
                        const query_block& block,
                        const segment_queries& from,
                        const float* bias,
                        const std::size_t* seen,
                        std::size_t count,
                        std::size_t before) noexcept {
    for (std::size_t r = 0; r < block.num_rows(); ++r) {
        const std::size_t row = work.row_index(kv_head, block, r);
        float* const kept =
            work.options.weights.data() + row * work.options.weights_stride + before;
        for (std::size_t t = 0; t < seen[r]; ++t) {
            kept[t] = from.logits[r * attend_tile + t] + bias[r];
        }
        if (!work.options.mask.empty()) { // elsewhere nobody looks at what is not seen
            std::fill(kept + seen[r], kept + count, hidden_logit);
        }
    }
}

/// How many rows of a tile each row of the block sees, up to the last one.
/// @return whether any is seen
[[nodiscard]] inline bool find_seen(const attend_work& work,
                                    const attend_piece& piece,
                                    const query_block& block,
                                    std::size_t count,
                                    std::size_t before,
                                    std::size_t* seen) noexcept {
    std::size_t most = 0;
    for (std::size_t q = 0; q < block.num_queries; ++q) {
        const std::size_t query = block.first_query + q;
        const std::size_t visible = work.visible(piece.total, query);
        std::size_t here = visible > before ? (std::min)(count, visible - before) : 0;
        if (!work.options.mask.empty()) {
            here = last_seen(work.options.mask, query, before, here);
        }
        most = (std::max)(most, here);
        for (std::size_t r = q; r < block.num_rows(); r += block.num_queries) {
            seen[r] = here;
        }
    }
    return most > 0;
}

inline constexpr float no_bias[attend_many_rows] = {};

/// Logits of a tile, ready for their softmax, for the rows of the block that see any of it.
/// @return what is left to be added to each row of logits
[[nodiscard]] inline const float* tile_logits(const attend_work& work,
                                              const attend_piece& piece,
                                              const query_block& block,
                                              const segment_queries& queries,
                                              const tile_rows& rows,
                                              const std::size_t* seen,
                                              std::size_t before) noexcept {
    const row_kernels& keys = *piece.segment.key_kernels;
    const std::size_t num_rows = block.num_rows();
    const auto dots = work.decodes(keys, num_rows) ? dots_of_packed : keys.dots;
    dots(keys,
         rows,
         queries.prepared,
         num_rows,
         work.queries.head_dim(),
         queries.logits,
         queries.scratch);
    if (!work.shapes_logits()) {
        return queries.bias;
    }
    shape_logits(work, piece.head, block, seen, before, queries.bias, queries.logits);
    return no_bias;
}

/// One tile: logits, their softmax, values weighted with it. A tile that nobody sees is not read.
/// @param before  rows of the head before the tile
inline void attend_to_tile(const attend_work& work,
                           const attend_piece& piece,
                           const query_block& block,
                           const segment_queries& queries,
                           const tile_rows& key_rows,
                           const tile_rows& value_rows,
                           std::size_t before,
                           const partial_attention& partial) noexcept {
    std::size_t seen[attend_many_rows];
    const bool any = find_seen(work, piece, block, key_rows.count, before, seen);
    const float* const bias =
        any ? tile_logits(work, piece, block, queries, key_rows, seen, before) : no_bias;
    if (!work.options.weights.empty()) {
        keep_logits(work, piece.head, block, queries, bias, seen, key_rows.count, before);
    }
    if (!any) {
        return;
    }
    const row_kernels& values = *piece.segment.value_kernels;
    const std::size_t num_rows = block.num_rows();
    run_softmax({.logits = queries.logits,
                 .num_rows = num_rows,
                 .seen = seen,
                 .bias = bias,
                 .largest = partial.largest.data(),
                 .sum = partial.sum.data(),
                 .values = partial.values.data(),
                 .value_dim = work.value_dim},
                work.rung);
    const auto accumulate = work.decodes(values, num_rows) ? accumulate_decoded : values.accumulate;
    accumulate(values,
               value_rows,
               queries.logits,
               num_rows,
               work.value_dim,
               partial.values.data(),
               queries.scratch);
}

/// Adds to `partial` what the rows of a piece contribute. Rows that no query of the block sees are not touched.
inline void attend_rows(const attend_work& work,
                        const attend_piece& piece,
                        const query_block& block,
                        const segment_queries& queries,
                        const partial_attention& partial) noexcept {
    const attend_segment& segment = piece.segment;
    const row_kernels& keys = *segment.key_kernels;
    const row_kernels& values = *segment.value_kernels;
    const std::size_t visible = work.visible(piece.total, block);
    if (visible <= piece.before) {
        return;
    }
    const std::size_t seen = visible - piece.before;
    const std::size_t rows = (std::min)(piece.count, seen);
    const std::size_t asked = (std::min)(piece.asked_end - piece.first, seen);

    const std::size_t first_rows = (std::min)(attend_tile, rows);
    tile_rows key_rows[2];
    tile_rows value_rows[2];
    locate_rows(segment.keys, keys.group_size, piece.first, first_rows, key_rows[0]);
    locate_rows(segment.values, values.group_size, piece.first, first_rows, value_rows[0]);
    for (std::size_t done = 0, turn = 0; done < rows; done += attend_tile, turn ^= 1) {
        tile_rows& now_keys = key_rows[turn];
        tile_rows& now_values = value_rows[turn];
        const std::size_t next = done + now_keys.count;
        now_keys.next = nullptr;
        now_values.next = nullptr;
        if (next < asked) {
            const std::size_t count = (std::min)(attend_tile, asked - next);
            const std::size_t at = piece.first + next;
            locate_rows(segment.keys, keys.group_size, at, count, key_rows[turn ^ 1]);
            locate_rows(segment.values, values.group_size, at, count, value_rows[turn ^ 1]);
            now_keys.next = &key_rows[turn ^ 1];
            now_values.next = &value_rows[turn ^ 1];
        }
        attend_to_tile(
            work, piece, block, queries, now_keys, now_values, piece.before + done, partial);
    }
    values.finish(values, partial.values.data(), block.num_rows(), work.value_dim);
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
