// SPDX-License-Identifier: Apache-2.0
/// @file
/// Frees whole blocks of a paged cache where they cost least, over all layers and kv heads together.
#pragma once

#include <kvcrush/allocation/head_counts.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/bitmap.hpp>
#include <kvcrush/simd/ordered_key.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Evicts exactly as many tokens of a head as free a block. A head of `len` tokens in blocks of b:
///
///     hanging = (len - 1) mod b + 1              tokens in its last block
///     the n-th block is free when hanging + (n - 1) * b tokens are gone
///     cost of it      = the metric of the best of those tokens, the cheapest being evicted first
///
/// and of the blocks of all layers and heads the cheapest are freed; of equal costs those of the earlier head. Which
/// tokens stay is top_k by the same metric, so of equal tokens the later ones go.
///
///     const kv_compress crush_blocks{.block_size = 16};
///     const head_counts counts = crush_blocks.counts(metrics, tokens);    // metrics: const_head_scores of every layer
///     for each layer: select with fixed_counts{counts.layer(l)}, then move rows by hole_moves()
///
/// The metric of the paper is squared_attention_scorer, or attention_square_sum where the engine observes every step; any
/// score that means the same in every layer and head will do.
/// @note  Linear: no token is sorted. The search takes a counting pass over the metrics for each bit that it needs of
///        the cost, about 20 and at most 34; no memory but 512 bytes of stack.
/// @see   KV-Compress, arXiv:2410.00161: blocks of 16, 64 protected recent tokens. Deviations: NaN is the lowest metric;
///        of equal metrics the earlier token stays. A metric of +inf is never evicted, as there.
struct kv_compress {
    static constexpr std::string_view name = "kv_compress";
    static constexpr std::string_view about =
        "the best tokens of all layers and heads together, block by block";

    /// Tokens per block of the cache. 16 in the authors' code.
    std::size_t block_size = 16;

    static constexpr auto parameters() {
        return parameter_list{
            parameter{"block_size", &kv_compress::block_size, "tokens per block of the cache"}};
    }

    /// @throws std::invalid_argument if block_size is 0
    void validate() const {
        detail::require(block_size >= 1, "kv_compress: block_size is 0; it must be 1 or more");
    }

    /// Blocks that a head of `count` tokens holds.
    [[nodiscard]] constexpr std::size_t blocks_of(std::size_t count) const noexcept {
        return count / block_size + (count % block_size != 0 ? 1U : 0U);
    }

    /// Frees blocks of heads of any length, without taking memory.
    /// @param[in]  metrics  one row per head, layer by layer
    /// @param      sizes    what is protected at both ends of each row
    /// @param      wanted   blocks to free
    /// @param[out] counts   [metrics.size()] tokens that each head keeps
    /// @return     blocks that are freed: fewer than wanted only if the rest is protected
    /// @pre        block_size is not 0
    std::size_t free_blocks(std::span<const std::span<const float>> metrics,
                            const area_sizes& sizes,
                            std::size_t wanted,
                            std::span<std::size_t> counts) const noexcept {
        return free_cheapest(
            [metrics](std::size_t row) noexcept { return metrics[row]; }, sizes, wanted, counts);
    }

    /// Tokens per head of a model whose heads are equally long. The blocks that remain are
    /// ceil(heads * tokens / block_size), more only if that many are protected.
    /// @param metrics  one [num_kv_heads, seq_len] for each layer
    /// @param tokens   the average over all heads
    /// @throws std::invalid_argument from validate(), if layers differ in size, or if the budget does not hold sinks and
    ///         recent tokens; std::bad_alloc
    [[nodiscard]] head_counts counts(std::span<const const_head_scores> metrics,
                                     const budget& tokens) const {
        validate();
        if (metrics.empty()) {
            return {};
        }
        const std::size_t heads = metrics.front().num_heads();
        const std::size_t seq_len = metrics.front().seq_len();
        for (std::size_t l = 0; l < metrics.size(); ++l) {
            detail::require(metrics[l].num_heads() == heads && metrics[l].seq_len() == seq_len,
                            "kv_compress: layer ",
                            l,
                            " has ",
                            metrics[l].num_heads(),
                            " heads of ",
                            metrics[l].seq_len(),
                            " tokens, layer 0 has ",
                            heads,
                            " of ",
                            seq_len,
                            ": use free_blocks() for rows of different lengths");
        }
        const std::size_t rows = metrics.size() * heads;
        const std::size_t held = rows * blocks_of(seq_len);
        const std::size_t allowed = blocks_of(rows * tokens.tokens_for(seq_len));
        std::vector<std::size_t> counts(rows);
        free_cheapest(
            [&](std::size_t row) noexcept { return metrics[row / heads].row(row % heads); },
            tokens.protected_areas(),
            held - (std::min)(held, allowed),
            counts);
        return head_counts({metrics.size(), heads}, std::move(counts));
    }

private:
    static constexpr std::uint32_t infinite =
        simd::ordered_key(std::numeric_limits<float>::infinity());

    /// Blocks that are free when `gone` of `len` tokens are.
    [[nodiscard]] std::size_t freed_by(std::size_t gone, std::size_t len) const noexcept {
        if (len == 0) {
            return 0;
        }
        const std::size_t hanging = (len - 1) % block_size + 1;
        return gone < hanging ? 0 : (gone - hanging) / block_size + 1;
    }

    /// Tokens whose metric has a key below this one.
    [[nodiscard]] static std::size_t count_below(std::span<const float> row,
                                                 std::uint32_t key) noexcept {
        if (key == 0) {
            return 0;
        }
        constexpr std::size_t piece = 4096;
        std::array<std::uint64_t, simd::bitmap_words(piece)> marks;
        std::size_t not_below = 0;
        for (std::size_t begin = 0; begin < row.size(); begin += piece) {
            const std::span<const float> part =
                row.subspan(begin, (std::min)(piece, row.size() - begin));
            const std::span<std::uint64_t> words =
                std::span(marks).first(simd::bitmap_words(part.size()));
            simd::mark_inside(part, {key - 1, 0}, words);
            for (const std::uint64_t word : words) {
                not_below += static_cast<std::size_t>(std::popcount(word));
            }
        }
        return row.size() - not_below;
    }

    /// The cost of the dearest block to free is found by bisection: how many blocks a limit would free is the sum over
    /// heads, and each head needs only to count its tokens below the limit.
    template <typename RowOf>
    std::size_t free_cheapest(const RowOf& row_of,
                              const area_sizes& sizes,
                              std::size_t wanted,
                              std::span<std::size_t> counts) const noexcept {
        KVCRUSH_ASSERT(block_size > 0);
        const auto freed_below = [&](std::size_t row, std::uint32_t key) noexcept {
            const std::span<const float> all = row_of(row);
            return freed_by(count_below(areas(sizes, all.size()).middle(all), key), all.size());
        };
        const auto all_freed_below = [&](std::uint32_t key) noexcept {
            std::size_t freed = 0;
            for (std::size_t row = 0; row < counts.size(); ++row) {
                freed += freed_below(row, key);
            }
            return freed;
        };
        wanted = (std::min)(wanted, all_freed_below(infinite));
        // Limits up to `low` free fewer blocks than wanted or just as many, limits from `high` as many or more.
        std::uint32_t low = 0;
        std::uint32_t high = infinite;
        while (high - low > 1 && wanted > 0) {
            const std::uint32_t middle = low + (high - low) / 2;
            const std::size_t freed = all_freed_below(middle);
            (freed <= wanted ? low : high) = middle;
            if (freed == wanted) {
                break;
            }
        }
        std::size_t left = wanted;
        for (std::size_t row = 0; row < counts.size(); ++row) {
            counts[row] = freed_below(row, low); // blocks, until the end
            left -= counts[row];
        }
        for (std::size_t row = 0; row < counts.size() && left > 0; ++row) { // equal costs
            const std::size_t more = (std::min)(left, freed_below(row, low + 1) - counts[row]);
            counts[row] += more;
            left -= more;
        }
        for (std::size_t row = 0; row < counts.size(); ++row) {
            const std::size_t len = row_of(row).size();
            counts[row] = counts[row] == 0
                              ? len
                              : len - ((len - 1) % block_size + 1) - (counts[row] - 1) * block_size;
        }
        return wanted;
    }
};

/// One row that changes its place.
struct row_move {
    token_index from;
    token_index to;

    friend constexpr bool operator==(const row_move&, const row_move&) = default;
};

/// Compaction with the fewest moves: kept rows from the end fill the holes, the first hole first. The kept rows then lie
/// in [0, kept.size()), no longer in order, so positions have to be moved with them.
/// @param[in]  kept   tokens that one head keeps, ascending
/// @param[out] moves  room for min(kept.size(), evicted rows) moves
/// @return     moves written
inline std::size_t hole_moves(std::span<const token_index> kept,
                              std::span<row_move> moves) noexcept {
    std::size_t count = 0;
    std::size_t from = kept.size();
    std::size_t next = 0; // first kept token that is not yet known to lie before `hole`
    for (std::size_t hole = 0; hole < kept.size(); ++hole) {
        if (next < kept.size() && kept[next] == hole) {
            ++next;
            continue;
        }
        --from;
        KVCRUSH_ASSERT(count < moves.size());
        moves[count++] = {kept[from], static_cast<token_index>(hole)};
    }
    return count;
}

/// Applies moves to one value per row: positions, metrics, scales.
template <typename T>
void move_values(std::span<T> values, std::span<const row_move> moves) noexcept {
    for (const row_move move : moves) {
        KVCRUSH_ASSERT(move.from < values.size() && move.to < move.from);
        values[move.to] = values[move.from];
    }
}

} // namespace v0
} // namespace kvcrush
