// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/select/chunk_kv.hpp>

#include "reference/chunk_kv.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

static_assert(Selector<chunk_kv_selector>);

using tokens = std::vector<token_index>;
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float inf = std::numeric_limits<float>::infinity();

selection select(const chunk_kv_selector& policy,
                 const std::vector<float>& scores,
                 std::size_t heads,
                 const area_sizes& sizes,
                 std::vector<std::size_t> counts) {
    policy.validate();
    const std::size_t n = scores.size() / heads;
    counts.resize(heads, counts.empty() ? 0 : counts.back());
    test::owned_scratch memory(policy.scratch_bytes({{heads, n, 0, 0}, heads}));
    selection out;
    out.reserve(heads, heads * n);
    policy.select({const_head_scores(scores, heads, n), {}, areas(sizes, n), counts, memory.get()},
                  out);
    return out;
}

TEST(ChunkKvSelector, ReproducesTheKnownAnswer) {
    // Known answer 11 of the specification: chunk scores 14/3, 6, 8.
    const std::vector<float> scores{1, 1, 9, 1, 2, 2, 8, 1, 1, 1, 1, 6, 6, 0};
    const chunk_kv_selector policy{.chunk_size = 3};
    const areas area({0, 0}, 7);
    std::vector<float> sums(7);
    sum_middle_scores(const_head_scores(scores, 2, 7), area, sums);
    test::owned_scratch memory(token_chunks::scratch_bytes(7, 3));
    scratch own = memory.get();
    const token_chunks chunks(sums, 3, own);
    ASSERT_EQ(chunks.num_chunks(), 3U);
    EXPECT_FLOAT_EQ(chunks.mean_score(0), 14.0F / 3.0F);
    EXPECT_FLOAT_EQ(chunks.mean_score(1), 6.0F);
    EXPECT_FLOAT_EQ(chunks.mean_score(2), 8.0F);
    const selection kept = select(policy, scores, 2, {0, 0}, {4});
    EXPECT_EQ(test::list(kept.kept(0)), (tokens{3, 4, 5, 6}));
    EXPECT_EQ(test::list(kept.kept(1)), (tokens{3, 4, 5, 6}));
}

TEST(ChunkKvSelector, KeepsWholeChunksWhereAskedTo) {
    const std::vector<float> scores{1, 1, 9, 1, 2, 2, 8}; // chunks of 3: means 11/3, 5/3, 8
    const chunk_kv_selector policy{.chunk_size = 3, .whole = true};
    EXPECT_EQ(test::list(select(policy, scores, 1, {0, 0}, {5}).kept(0)), (tokens{0, 1, 2, 6}))
        << "3 chunks * 5 / 7 tokens";
    EXPECT_EQ(test::list(select(policy, scores, 1, {0, 0}, {1}).kept(0)), (tokens{6}))
        << "one at least";
    EXPECT_TRUE(select(policy, scores, 1, {0, 0}, {0}).kept(0).empty());
    EXPECT_EQ(select(policy, scores, 1, {0, 0}, {7}).total(), 7U);
}

TEST(ChunkKvSelector, CutsTheLastChunkToItsBestTokens) {
    const std::vector<float> scores{1, 1, 9, 1, 8, 7, 8};
    EXPECT_EQ(test::list(select({.chunk_size = 3}, scores, 1, {0, 0}, {3}).kept(0)),
              (tokens{4, 5, 6}))
        << "the short last chunk first, then the two best of the next";
    EXPECT_EQ(test::list(select({.chunk_size = 3}, scores, 1, {0, 0}, {5}).kept(0)),
              (tokens{2, 3, 4, 5, 6}));
}

TEST(ChunkKvSelector, HeadsMayHaveChunksOfTheirOwn) {
    const std::vector<float> scores{9, 9, 0, 0, 1, 1, 0, 0, 3, 3, 2, 2};
    const selection own =
        select({.chunk_size = 2, .sets = chunk_sets::per_head}, scores, 2, {0, 0}, {2});
    EXPECT_EQ(test::list(own.kept(0)), (tokens{0, 1}));
    EXPECT_EQ(test::list(own.kept(1)), (tokens{2, 3}));
    const selection shared = select({.chunk_size = 2}, scores, 2, {0, 0}, {2, 3});
    EXPECT_EQ(test::list(shared.kept(0)), (tokens{0, 1}));
    EXPECT_EQ(test::list(shared.kept(1)), (tokens{0, 1, 2})) << "more of the same order";
}

TEST(ChunkKvSelector, ChunksBeginBehindTheSinks) {
    const std::vector<float> scores{0, 5, 0, 4, 4, 0, 9, 9};
    EXPECT_EQ(test::list(select({.chunk_size = 2}, scores, 1, {1, 2}, {5}).kept(0)),
              (tokens{0, 3, 4, 6, 7}));
}

TEST(ChunkKvSelector, NanAndInfinityAreData) {
    EXPECT_EQ(
        test::list(select({.chunk_size = 2}, {nan, nan, -5, nan, -6, -6}, 1, {0, 0}, {4}).kept(0)),
        (tokens{2, 3, 4, 5}))
        << "what is NaN neither helps nor harms its chunk";
    EXPECT_EQ(test::list(
                  select({.chunk_size = 2}, {1, 1, inf, -inf, -inf, -inf}, 1, {0, 0}, {4}).kept(0)),
              (tokens{0, 1, 4, 5}))
        << "infinities of both signs have no mean";
    EXPECT_EQ(test::list(select({.chunk_size = 2}, {nan, nan, nan}, 1, {0, 0}, {2}).kept(0)),
              (tokens{0, 1}));
}

TEST(ChunkKvSelector, RefusesEmptyChunks) {
    EXPECT_THROW(chunk_kv_selector{.chunk_size = 0}.validate(), std::invalid_argument);
}

TEST(ChunkKvSelector, AgreesWithSortedLists) {
    for (const std::size_t n : std::initializer_list<std::size_t>{0, 1, 9, 63, 64, 65, 200, 641}) {
        for (const std::size_t chunk : std::initializer_list<std::size_t>{1, 7, 10, 64, 700}) {
            for (const std::size_t heads : std::initializer_list<std::size_t>{1, 3}) {
                for (const area_sizes sizes : {area_sizes{0, 0}, area_sizes{3, 5}}) {
                    std::vector<float> scores = test::random_scores(heads * n, n * 31 + chunk);
                    for (std::size_t i = 0; i < scores.size(); i += 11) {
                        scores[i] = i % 2 == 0 ? nan : 0.5F;
                    }
                    const areas area(sizes, n);
                    for (const chunk_sets sets : {chunk_sets::per_layer, chunk_sets::per_head}) {
                        for (std::size_t count = area.num_protected(); count <= n;
                             count += 1 + n / 9) {
                            const chunk_kv_selector policy{.chunk_size = chunk, .sets = sets};
                            const selection kept = select(policy, scores, heads, sizes, {count});
                            for (std::size_t head = 0; head < heads; ++head) {
                                std::vector<float> row(area.num_middle());
                                if (sets == chunk_sets::per_layer) {
                                    sum_middle_scores(
                                        const_head_scores(scores, heads, n), area, row);
                                } else {
                                    const auto own =
                                        area.middle(const_head_scores(scores, heads, n).row(head));
                                    row.assign(own.begin(), own.end());
                                }
                                const std::vector<double> wide(row.begin(), row.end());
                                const auto expected = reference::take_chunks(
                                    wide,
                                    reference::ranked(reference::chunk_means(wide, chunk)),
                                    chunk,
                                    count - area.num_protected());
                                tokens all;
                                for (std::size_t t = 0; t < n; ++t) {
                                    const bool middle =
                                        t >= area.middle_begin && t < area.middle_end;
                                    if (!middle || std::binary_search(expected.begin(),
                                                                      expected.end(),
                                                                      t - area.middle_begin)) {
                                        all.push_back(static_cast<token_index>(t));
                                    }
                                }
                                ASSERT_EQ(test::list(kept.kept(head)), all)
                                    << n << " tokens in chunks of " << chunk << ", " << count
                                    << " kept";
                            }
                        }
                    }
                }
            }
        }
    }
}

} // namespace
} // namespace kvcrush
