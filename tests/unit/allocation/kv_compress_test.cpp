// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/allocation/fixed_counts.hpp>
#include <kvcrush/allocation/kv_compress.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/select/top_k.hpp>

#include "reference/kv_compress.hpp"
#include "support/cache_data.hpp"
#include "unit/simd/scores.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

using counts = std::vector<std::size_t>;
using rows = std::vector<std::vector<float>>;
using tokens = std::vector<token_index>;
using moves = std::vector<row_move>;

constexpr float inf = std::numeric_limits<float>::infinity();

counts free_blocks(const kv_compress& method,
                   const rows& metrics,
                   const area_sizes& sizes,
                   std::size_t wanted,
                   std::size_t* freed = nullptr) {
    const std::vector<std::span<const float>> views(metrics.begin(), metrics.end());
    counts kept(metrics.size(), 12345);
    const std::size_t done = method.free_blocks(views, sizes, wanted, kept);
    if (freed != nullptr) {
        *freed = done;
    }
    return kept;
}

moves moves_of(const tokens& kept) {
    moves all(kept.size());
    all.resize(hole_moves(kept, all));
    return all;
}

tokens best(const std::vector<float>& metric, std::size_t count, const area_sizes& sizes) {
    const areas area(sizes, metric.size());
    selection out;
    out.reserve(1, metric.size());
    const const_head_scores scores(metric, 1, metric.size());
    const counts wanted{count};
    top_k_selector{}.select({scores, scores, area, wanted, {}}, out);
    return {out.kept(0).begin(), out.kept(0).end()};
}

TEST(KvCompress, KnownAnswer) {
    const rows metrics{{inf, 5, 1, 4, 2, 3, 9, inf}, {inf, 8, 7, 6, 1, inf}};
    const kv_compress method{.block_size = 4};
    EXPECT_EQ(free_blocks(method, metrics, {0, 0}, 1), (counts{4, 6}));
    EXPECT_EQ(free_blocks(method, metrics, {0, 0}, 2), (counts{4, 4}));
    std::size_t freed = 0;
    EXPECT_EQ(free_blocks(method, metrics, {0, 0}, 9, &freed), (counts{4, 4}));
    EXPECT_EQ(freed, 2U) << "the others hold protected tokens";

    // Areas protect as an infinite metric does, and the same tokens go.
    const rows finite{{0, 5, 1, 4, 2, 3, 9, 0}, {0, 8, 7, 6, 1, 0}};
    EXPECT_EQ(free_blocks(method, finite, {1, 1}, 2), (counts{4, 4}));
    const tokens first = best(finite[0], 4, {1, 1});
    const tokens second = best(finite[1], 4, {1, 1});
    EXPECT_EQ(first, (tokens{0, 1, 6, 7})) << "2, 3, 4 and 5 are evicted";
    EXPECT_EQ(second, (tokens{0, 1, 2, 5})) << "3 and 4 are evicted";
    EXPECT_EQ(moves_of(first), (moves{{7, 2}, {6, 3}}));
    EXPECT_EQ(moves_of(second), (moves{{5, 3}}));

    tokens positions{0, 1, 2, 3, 4, 5, 6, 7};
    move_values(std::span(positions), std::span<const row_move>(moves_of(first)));
    positions.resize(4);
    EXPECT_EQ(positions, (tokens{0, 1, 7, 6}));
}

TEST(KvCompress, EqualCostsFreeTheEarlierHeads) {
    const rows metrics(3, std::vector<float>(8, 1.0F));
    EXPECT_EQ(free_blocks({.block_size = 4}, metrics, {0, 0}, 3), (counts{0, 4, 8}));
}

TEST(KvCompress, AgreesWithSortingEverything) {
    std::uint64_t seed = 0;
    for (const reference::score_kind kind : reference::all_score_kinds) {
        for (const std::size_t block_size : std::initializer_list<std::size_t>{1, 3, 16, 64}) {
            for (const std::size_t heads : std::initializer_list<std::size_t>{0, 1, 5, 12}) {
                ++seed;
                rows metrics(heads);
                std::size_t held = 0;
                const kv_compress method{.block_size = block_size};
                for (std::size_t head = 0; head < heads; ++head) {
                    metrics[head].resize(random_bits(seed, 3, head) % 300);
                    reference::fill_scores(metrics[head], kind, seed + 1000 * head);
                    held += method.blocks_of(metrics[head].size());
                }
                for (const std::size_t wanted :
                     {std::size_t{0}, std::size_t{1}, held / 4, held / 2, held, held + 5}) {
                    for (const area_sizes sizes : {area_sizes{0, 0}, area_sizes{4, 32}}) {
                        ASSERT_EQ(free_blocks(method, metrics, sizes, wanted),
                                  reference::kv_compress(metrics,
                                                         sizes.num_sink_tokens,
                                                         sizes.num_recent_tokens,
                                                         block_size,
                                                         wanted))
                            << static_cast<int>(kind) << ", blocks of " << block_size << ", "
                            << heads << " heads, " << wanted << " of " << held;
                    }
                }
            }
        }
    }
}

TEST(KvCompress, AModelHoldsExactlyTheBlocksOfItsBudget) {
    const std::size_t seq_len = 333;
    std::vector<std::vector<float>> memory(6, std::vector<float>(3 * seq_len));
    std::vector<const_head_scores> layers;
    for (std::size_t l = 0; l < memory.size(); ++l) {
        reference::fill_scores(memory[l], reference::score_kind::softmax_mass, l);
        layers.emplace_back(memory[l], 3, seq_len);
    }
    const kv_compress method;
    for (const double ratio : {0.15, 0.25, 0.5, 0.9, 1.0}) {
        const budget wanted = budget::keep_ratio(ratio);
        const head_counts kept = method.counts(layers, wanted);
        EXPECT_EQ(kept.model(), (model_heads{6, 3}));
        std::size_t blocks = 0;
        for (const std::size_t count : kept.values()) {
            blocks += method.blocks_of(count);
            EXPECT_LE(count, seq_len);
            EXPECT_GE(count, 36U);
        }
        EXPECT_EQ(
            blocks,
            (std::min)(std::size_t{18 * 21}, method.blocks_of(18 * wanted.tokens_for(seq_len))));
    }
    layers.emplace_back(memory[0], 1, 3 * seq_len);
    EXPECT_THROW(static_cast<void>(method.counts(layers, budget::tokens(100))),
                 std::invalid_argument);
    EXPECT_THROW((kv_compress{.block_size = 0}.validate()), std::invalid_argument);
    EXPECT_EQ(method.counts({}, budget::tokens(100)).total(), 0U);
}

TEST(HoleMoves, FillHolesFromTheEnd) {
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        const std::size_t seq_len = random_bits(seed, 0, 0) % 100;
        tokens kept;
        for (std::size_t t = 0; t < seq_len; ++t) {
            if (random_bits(seed, 1, t) % 10 < seed % 11) {
                kept.push_back(static_cast<token_index>(t));
            }
        }
        tokens positions(seq_len);
        std::iota(positions.begin(), positions.end(), 0U);
        const moves all = moves_of(kept);
        EXPECT_LE(all.size(), (std::min)(kept.size(), seq_len - kept.size()));
        for (std::size_t i = 1; i < all.size(); ++i) {
            EXPECT_LT(all[i].from, all[i - 1].from);
            EXPECT_GT(all[i].to, all[i - 1].to);
        }
        move_values(std::span(positions), std::span<const row_move>(all));
        positions.resize(kept.size());
        std::sort(positions.begin(), positions.end());
        EXPECT_EQ(positions, kept) << seed;
    }
}

} // namespace
} // namespace kvcrush
