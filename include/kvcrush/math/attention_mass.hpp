// SPDX-License-Identifier: Apache-2.0
/// @file
/// Accumulated attention from queries and keys alone, for engines that keep no attention weights.
///
/// Per kv head, up to `attention_rows` rows (the query heads of the group times a block of queries)
/// share each tile of keys: the tile is converted and transposed once, multiplied, and its logits
/// become exp(logit - largest so far) while they are in cache. Only when the last tile of the row
/// is known are the weights added up. So no matrix of [num_queries, seq_len] exists, only
/// attention_rows rows of it.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/row_view.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/convert.hpp>
#include <kvcrush/simd/exp.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/logits.hpp>
#include <kvcrush/simd/softmax.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Rows of attention under way at a time: 4 query heads of 32 queries. Packing a tile then costs 5
/// % of multiplying it; with 32 rows it would be 20 % (128 channels, Zen 4).
inline constexpr std::size_t attention_rows = 128;

/// How one layer is cut into blocks of rows.
struct attention_blocks {
    std::size_t head_dim;
    std::size_t seq_len;
    std::size_t num_tiles;
    std::size_t group_size;
    /// Query heads per block; all of a group unless it has more than attention_rows.
    std::size_t heads;
    /// Queries per block.
    std::size_t queries;
    /// Tiles that stay packed: all of a kv head, or 1 where a single block looks at each of them.
    std::size_t kept_tiles;

    constexpr attention_blocks(const kv_shape& shape,
                               std::size_t num_q_heads,
                               std::size_t num_queries) noexcept
        : head_dim(shape.key_dim),
          seq_len(shape.seq_len),
          num_tiles((shape.seq_len + simd::key_tile - 1) / simd::key_tile),
          group_size(shape.num_kv_heads == 0 ? 0 : num_q_heads / shape.num_kv_heads),
          heads((std::min)(group_size, attention_rows)),
          queries(0),
          kept_tiles(0) {
        if (heads == 0 || num_queries == 0) {
            return;
        }
        const std::size_t most = attention_rows / heads;
        queries = (std::min)(num_queries, most);
        kept_tiles = num_queries <= most && group_size <= attention_rows ? 1 : num_tiles;
    }

    [[nodiscard]] constexpr std::size_t rows() const noexcept { return heads * queries; }
    [[nodiscard]] constexpr std::size_t tile_floats() const noexcept {
        return head_dim * simd::key_tile;
    }
};

/// The pieces of the workspace.
struct attention_buffers {
    static constexpr std::size_t alignment = 64 / sizeof(float); // floats per cache line

    float* packed;  ///< [kept_tiles, head_dim, key_tile]
    float* staging; ///< [key_tile, head_dim], keys as floats
    float* weights; ///< [num_tiles, rows, key_tile], logits, then exp(logit - largest)
    float* queries; ///< [rows, head_dim]
    float* largest; ///< [num_tiles, rows], what was subtracted

    static constexpr std::size_t size(const attention_blocks& blocks) noexcept {
        return blocks.kept_tiles == 0
                   ? 0
                   : alignment + (blocks.kept_tiles + 1) * blocks.tile_floats() +
                         blocks.rows() *
                             (blocks.num_tiles * (simd::key_tile + 1) + blocks.head_dim);
    }

    attention_buffers(std::span<float> workspace, const attention_blocks& blocks) noexcept {
        const auto address = reinterpret_cast<std::uintptr_t>(workspace.data()) / sizeof(float);
        packed = workspace.data() + (alignment - address % alignment) % alignment;
        staging = packed + blocks.kept_tiles * blocks.tile_floats();
        weights = staging + blocks.tile_floats();
        queries = weights + blocks.num_tiles * blocks.rows() * simd::key_tile;
        largest = queries + blocks.rows() * blocks.head_dim;
    }
};

/// The key as contiguous floats: where it lies, or copied to `staging`.
template <Element T>
[[nodiscard]] const float*
float_row(const row_view<T>& row, float* staging, simd::isa rung) noexcept {
    if (!row.contiguous()) {
        for (std::size_t k = 0; k < row.size(); ++k) {
            staging[k] = to_float(row[k]);
        }
        return staging;
    }
    if constexpr (std::is_same_v<std::remove_const_t<T>, float>) {
        // Packing walks along several rows at once, which hardware prefetchers do not follow:
        // reading the rows one after the other first makes it two to three times as fast from DRAM.
        constexpr std::size_t line = 64 / sizeof(float);
        float touched = 0.0F;
        for (std::size_t k = 0; k < row.size(); k += line) {
            touched += row[k];
        }
        *staging = touched;
        return row.data();
    } else {
        simd::to_float(std::span<const std::remove_const_t<T>>(row.elements()),
                       std::span<float>(staging, row.size()),
                       rung);
        return staging;
    }
}

/// Tokens [tile * key_tile, ...) of a kv head, channel by channel.
template <KvSource Kv>
void pack_keys(const Kv& kv,
               std::size_t kv_head,
               std::size_t tile,
               float* packed,
               float* staging,
               const attention_blocks& blocks,
               simd::isa rung) noexcept {
    std::array<const float*, simd::key_tile> rows;
    const std::size_t first = tile * simd::key_tile;
    const std::size_t count = (std::min)(simd::key_tile, blocks.seq_len - first);
    for (std::size_t t = 0; t < count; ++t) {
        rows[t] = float_row(kv.key(kv_head, first + t), staging + t * blocks.head_dim, rung);
    }
    simd::pack_key_tile(
        std::span<const float* const>(rows.data(), count), blocks.head_dim, packed, rung);
}

/// Asks for the keys of tokens [begin, end). Inlined by force: GCC 12 takes a function that does nothing but prefetch for
/// one without effects, and drops its calls.
template <KvSource Kv>
[[gnu::always_inline]] inline void
prefetch_keys(const Kv& kv, std::size_t kv_head, std::size_t begin, std::size_t end) noexcept {
#if defined(__GNUC__)
    for (std::size_t t = begin; t < end; ++t) {
        const auto row = kv.key(kv_head, t);
        constexpr std::size_t line = 64 / sizeof(*row.data());
        const std::size_t size = row.contiguous() ? row.size() : 0;
        for (std::size_t k = 0; k < size; k += line) {
            __builtin_prefetch(row.data() + k, 0, 2);
        }
    }
#else
    static_cast<void>(kv), static_cast<void>(kv_head);
    static_cast<void>(begin), static_cast<void>(end);
#endif
}

/// Dot products of `rows` queries with a packed tile. Meanwhile the keys of the next tile come into L2: packing would
/// wait for them, a quarter of the time that multiplying takes (f32 keys in DRAM, Zen 4).
/// @param queries  [rows, head_dim]
/// @param out      [rows, key_tile]
template <KvSource Kv>
void multiply_tile(const Kv& kv,
                   std::size_t kv_head,
                   std::size_t tile,
                   const float* queries,
                   std::size_t rows,
                   const float* packed,
                   float scale,
                   float* out,
                   const attention_blocks& blocks,
                   bool next_is_packed,
                   simd::isa rung) noexcept {
    constexpr std::size_t slice = 24; // whole register blocks
    const std::size_t first = (tile + 1) * simd::key_tile;
    const std::size_t count = next_is_packed || first >= blocks.seq_len
                                  ? 0
                                  : (std::min)(simd::key_tile, blocks.seq_len - first);
    for (std::size_t r = 0; r < rows; r += slice) {
        const std::size_t end = (std::min)(r + slice, rows);
        prefetch_keys(kv, kv_head, first + r * count / rows, first + end * count / rows);
        simd::tile_logits(queries + r * blocks.head_dim,
                          blocks.head_dim,
                          end - r,
                          packed,
                          blocks.head_dim,
                          scale,
                          out + r * simd::key_tile,
                          simd::key_tile,
                          simd::key_tile,
                          rung);
    }
}

/// One block of rows: queries [query, query + count) of query heads [head, head + heads), head by
/// head.
struct attention_block {
    std::size_t kv_head;
    std::size_t head;
    std::size_t heads;
    std::size_t query;
    std::size_t count;
    /// Keys that the first query sees; each later query sees one more.
    std::size_t visible;

    [[nodiscard]] constexpr std::size_t rows() const noexcept { return heads * count; }
    [[nodiscard]] constexpr std::size_t num_keys() const noexcept { return visible + count - 1; }
    [[nodiscard]] constexpr std::size_t num_tiles() const noexcept {
        return (num_keys() + simd::key_tile - 1) / simd::key_tile;
    }
    /// Keys of a tile that the query of a row sees.
    [[nodiscard]] constexpr std::size_t visible_in(std::size_t tile,
                                                   std::size_t row) const noexcept {
        const std::size_t first = tile * simd::key_tile;
        const std::size_t seen = visible + row % count;
        return seen > first ? (std::min)(seen - first, simd::key_tile) : 0;
    }
};

/// First pass over the keys: weights relative to the largest logit so far.
/// @param[in,out] num_packed  tiles of this kv head that buffers.packed already holds
template <KvSource Kv>
void weigh_keys(const Kv& kv,
                const query_view& queries,
                float scale,
                const attention_block& block,
                const attention_blocks& blocks,
                const attention_buffers& buffers,
                std::size_t& num_packed,
                std::span<simd::softmax_state> states,
                simd::isa rung) noexcept {
    const std::size_t dim = blocks.head_dim;
    const std::size_t rows = block.rows();
    for (std::size_t r = 0; r < rows; ++r) {
        const float* const query =
            queries.row(block.head + r / block.count, block.query + r % block.count);
        std::copy_n(query, dim, buffers.queries + r * dim);
        states[r] = {};
    }
    for (std::size_t t = 0; t < block.num_tiles(); ++t) {
        float* const packed = buffers.packed + (t % blocks.kept_tiles) * blocks.tile_floats();
        if (t >= num_packed) {
            pack_keys(kv, block.kv_head, t, packed, buffers.staging, blocks, rung);
            num_packed = t + 1;
        }
        float* const tile = buffers.weights + t * rows * simd::key_tile;
        const std::span<float> largest(buffers.largest + t * rows, rows);
        multiply_tile(kv,
                      block.kv_head,
                      t,
                      buffers.queries,
                      rows,
                      packed,
                      scale,
                      tile,
                      blocks,
                      t + 1 < num_packed,
                      rung);
        if (block.visible_in(t, 0) == simd::key_tile) {
            simd::softmax_tile(tile, simd::key_tile, states, largest, rung);
            continue;
        }
        for (std::size_t r = 0; r < rows; ++r) {
            simd::softmax_tile(tile + r * simd::key_tile,
                               block.visible_in(t, r),
                               states.subspan(r, 1),
                               largest.subspan(r, 1),
                               rung);
        }
    }
}

/// What the weights of a block have to be multiplied with once its whole rows are known: tiles were weighed against
/// the largest logit that they had themselves.
class tile_factors {
public:
    tile_factors(const attention_buffers& buffers,
                 std::span<const simd::softmax_state> states,
                 simd::isa rung) noexcept
        : buffers_(&buffers), states_(states), rung_(rung) {
        for (std::size_t r = 0; r < states.size(); ++r) {
            inverse_[r] = states[r].inverse_sum();
        }
    }

    /// One factor per row of the block; valid until the next call.
    [[nodiscard]] std::span<const float> of(std::size_t tile) noexcept {
        const std::size_t rows = states_.size();
        const std::span<float> factors(factors_.data(), rows);
        for (std::size_t r = 0; r < rows; ++r) {
            factors[r] = buffers_->largest[tile * rows + r] - states_[r].largest;
        }
        simd::exp_many(factors, factors, rung_);
        for (std::size_t r = 0; r < rows; ++r) {
            factors[r] *= inverse_[r];
        }
        return factors;
    }

private:
    const attention_buffers* buffers_;
    std::span<const simd::softmax_state> states_;
    simd::isa rung_;
    std::array<float, attention_rows> inverse_;
    std::array<float, attention_rows> factors_;
};

/// Second pass over the weights: scales and adds them up per query head.
inline void add_weights(const attention_block& block,
                        const attention_buffers& buffers,
                        tile_factors& scaled,
                        std::span<float> mass,
                        std::size_t seq_len,
                        simd::isa rung) noexcept {
    const std::size_t rows = block.rows();
    for (std::size_t t = 0; t < block.num_tiles(); ++t) {
        const std::span<const float> factors = scaled.of(t);
        const std::size_t first = t * simd::key_tile;
        const std::size_t width = (std::min)(simd::key_tile, block.num_keys() - first);
        for (std::size_t h = 0; h < block.heads; ++h) {
            simd::add_tile(buffers.weights + (t * rows + h * block.count) * simd::key_tile,
                           factors.subspan(h * block.count, block.count),
                           mass.subspan((block.head + h) * seq_len + first, width),
                           rung);
        }
    }
}

/// Weighs the keys for all queries, block by block, and hands each block to a second pass: finish(block, buffers,
/// factors). The queries are the last ones of the sequence, each sees the keys up to itself.
/// @param workspace  attention_buffers::size(attention_blocks(...)) floats
template <KvSource Kv, typename Finish>
void for_each_attention_block(const Kv& kv,
                              const query_view& queries,
                              std::span<float> workspace,
                              float scale,
                              simd::isa rung,
                              const Finish& finish) noexcept {
    const kv_shape shape = kv.shape();
    const std::size_t num_queries = queries.num_queries();
    const std::size_t num_q_heads = queries.num_q_heads();
    KVCRUSH_ASSERT(queries.head_dim() == shape.key_dim && num_queries <= shape.seq_len);
    KVCRUSH_ASSERT(shape.num_kv_heads == 0 ? num_q_heads == 0
                                           : num_q_heads % shape.num_kv_heads == 0);
    const attention_blocks blocks(shape, num_q_heads, num_queries);
    KVCRUSH_ASSERT(workspace.size() >= attention_buffers::size(blocks));
    if (blocks.kept_tiles == 0) {
        return;
    }
    const attention_buffers buffers(workspace, blocks);
    std::array<simd::softmax_state, attention_rows> all_states;
    // Blocks of equal height: 33 queries are 17 + 16, not 32 + 1.
    const std::size_t num_blocks = (num_queries + blocks.queries - 1) / blocks.queries;
    const std::size_t height = (num_queries + num_blocks - 1) / num_blocks;
    for (std::size_t kv_head = 0; kv_head < shape.num_kv_heads; ++kv_head) {
        std::size_t num_packed = 0;
        for (std::size_t query = 0; query < num_queries; query += height) {
            for (std::size_t first = 0; first < blocks.group_size; first += blocks.heads) {
                const attention_block block{.kv_head = kv_head,
                                            .head = kv_head * blocks.group_size + first,
                                            .heads =
                                                (std::min)(blocks.heads, blocks.group_size - first),
                                            .query = query,
                                            .count = (std::min)(height, num_queries - query),
                                            .visible = shape.seq_len - num_queries + query + 1};
                const std::span<simd::softmax_state> states(all_states.data(), block.rows());
                weigh_keys(kv, queries, scale, block, blocks, buffers, num_packed, states, rung);
                tile_factors factors(buffers, states, rung);
                finish(block, buffers, factors);
            }
        }
    }
}

} // namespace detail

/// Floats of scratch memory that attention_mass needs; never less for more tokens or more queries.
[[nodiscard]] constexpr std::size_t attention_mass_workspace(const kv_shape& shape,
                                                             std::size_t num_q_heads,
                                                             std::size_t num_queries) noexcept {
    return detail::attention_buffers::size(
        detail::attention_blocks(shape, num_q_heads, num_queries));
}

/// Adds up what the last queries of a sequence pay to each token, per query head, in fp32.
///
///     mass[h, j] = sum over i of softmax(scale * q[h, i] k[h / group_size, 0 .. n - W + i])[j]
///
/// with n = seq_len and W = num_queries: query i is token n - W + i and sees the keys up to itself.
/// Keys whose logit is NaN weigh nothing, queries with a logit of +inf pay nothing; so masses are
/// finite, and 0 where nobody looks.
/// @param[in]  kv         keys [num_kv_heads, seq_len, key_dim] of any layout and element type; V
///                        is not read
/// @param[in]  queries    [num_q_heads, num_queries, key_dim], after RoPE
/// @param[out] mass       [num_q_heads, seq_len], written whole
/// @param      workspace  at least attention_mass_workspace(...) floats
/// @param      scale      of the dot products, 1 / sqrt(head_dim) in all common models
/// @pre   num_q_heads is a multiple of num_kv_heads, num_queries <= seq_len
/// @note  O(num_q_heads * num_queries * seq_len * head_dim); tiles behind the last visible key are
///        not computed
template <KvSource Kv>
void attention_mass(const Kv& kv,
                    const query_view& queries,
                    std::span<float> mass,
                    std::span<float> workspace,
                    float scale,
                    simd::isa at_most = simd::best()) noexcept {
    const std::size_t seq_len = kv.shape().seq_len;
    KVCRUSH_ASSERT(mass.size() == queries.num_q_heads() * seq_len);
    std::fill(mass.begin(), mass.end(), 0.0F);
    detail::for_each_attention_block(kv,
                                     queries,
                                     workspace,
                                     scale,
                                     at_most,
                                     [&](const detail::attention_block& block,
                                         const detail::attention_buffers& buffers,
                                         detail::tile_factors& factors) noexcept {
                                         detail::add_weights(
                                             block, buffers, factors, mass, seq_len, at_most);
                                     });
}

/// The same with scale = 1 / sqrt(head_dim).
template <KvSource Kv>
void attention_mass(const Kv& kv,
                    const query_view& queries,
                    std::span<float> mass,
                    std::span<float> workspace,
                    simd::isa at_most = simd::best()) noexcept {
    attention_mass(kv,
                   queries,
                   mass,
                   workspace,
                   1.0F / std::sqrt(static_cast<float>(queries.head_dim())),
                   at_most);
}

} // namespace v0
} // namespace kvcrush
