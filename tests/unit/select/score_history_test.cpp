// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/select/score_history.hpp>

#include "reference/guarded_buffer.hpp"
#include "reference/openvino_compat.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <utility>
#include <vector>

namespace kvcrush {
namespace {

using reaches = std::vector<std::uint32_t>;

/// Known answer 1b of the specification: reach after passes of (length, scored queries).
reaches reach_after(std::size_t window,
                    const std::vector<std::pair<std::size_t, std::size_t>>& passes) {
    score_history history(64);
    for (const auto& [length, scored] : passes) {
        const std::vector<float> scores(length, 1.0F);
        history.add(std::span<const float>(scores), scored, window);
    }
    return {history.reach().begin(), history.reach().end()};
}

TEST(ScoreHistory, KnownReach) {
    EXPECT_EQ(reach_after(4, {{3, 1}, {6, 3}}), (reaches{4, 4, 4, 3, 2, 1}));
    EXPECT_EQ(reach_after(4, {{3, 1}, {6, 3}, {7, 1}}), (reaches{5, 5, 5, 4, 3, 2, 1}));
    EXPECT_EQ(reach_after(3, {{4, 1}, {5, 1}}), (reaches{2, 2, 2, 2, 1}));
    EXPECT_EQ(reach_after(0, {{4, 0}, {5, 0}}), (reaches{5, 4, 3, 2, 1}));
}

TEST(ScoreHistory, TracksNothingBeforeTheFirstScoredQuery) {
    EXPECT_EQ(reach_after(4, {{3, 0}, {6, 0}}), reaches{});
    EXPECT_EQ(reach_after(4, {{3, 0}, {6, 2}}), (reaches{2, 2, 2, 2, 2, 1}));
}

TEST(ScoreHistory, ScoredQueriesBeforeTheFirstTrackedTokenCount) {
    EXPECT_EQ(reach_after(4, {{0, 2}, {3, 2}, {4, 1}}), (reaches{3, 3, 2, 1}));
    EXPECT_EQ(reach_after(8, {{2, 8}}), (reaches{2, 1})); // more queries than tracked tokens
}

/// What one pass leaves, as doubles.
template <typename Score>
reference::numbers pooled(const std::vector<Score>& scores, std::size_t kernel = 7) {
    score_history history(scores.size(), kernel);
    history.add(std::span<const Score>(scores), 1, 0);
    return {history.scores().begin(), history.scores().end()};
}

TEST(ScoreHistory, KnownPool) {
    EXPECT_EQ(pooled(std::vector<float>{1, 3, 2, 0, 5, 4}, 3),
              (reference::numbers{3, 3, 5, 5, 5, 4}));
}

TEST(ScoreHistory, KnownBlockScores) { // reach is 12 to 1
    score_history history(12, 1);
    const std::vector<float> scores{8, 1, 2, 9, 1, 1, 6, 7, 3, 2, 5, 4};
    history.add(std::span<const float>(scores), 12, 0);
    reference::numbers sums(6);
    history.block_scores(block_aggregation::norm_sum, 2, sums);
    const reference::numbers expected{0.757576, 1.2, 0.267857, 2.4, 1.416667, 6.5};
    for (std::size_t block = 0; block < 6; ++block) {
        EXPECT_NEAR(sums[block], expected[block], 5e-7); // printed with six digits
    }
    history.block_scores(block_aggregation::sum, 2, sums);
    EXPECT_EQ(sums, (reference::numbers{9, 11, 2, 13, 5, 9}));
}

TEST(ScoreHistory, TokensInheritFromTheNextSix) {
    EXPECT_EQ(pooled(std::vector<float>{1, 3, 2, 0, 5, 4}), (reference::numbers{5, 5, 5, 5, 5, 4}));
    EXPECT_EQ(pooled(std::vector<float>{9, 1, 0, 0, 0, 0, 0, 0, 5}),
              (reference::numbers{9, 1, 5, 5, 5, 5, 5, 5, 5}));
}

TEST(ScoreHistory, PoolsEveryLengthAndReadsNothingBehind) {
    for (const std::size_t count :
         std::initializer_list<std::size_t>{0, 1, 2, 6, 7, 8, 255, 256, 257, 261, 262, 263, 1000}) {
        reference::guarded_buffer<float> floats(count);
        reference::guarded_buffer<double> doubles(count);
        reference::numbers scores;
        for (std::size_t t = 0; t < count; ++t) {
            floats[t] = random_unit(1, count, t) - 0.5F;
            doubles[t] = floats[t];
            scores.push_back(doubles[t]);
        }
        for (const std::size_t kernel :
             std::initializer_list<std::size_t>{1, 2, 3, 4, 7, 8, 33, 64}) {
            const reference::numbers expected = reference::forward_max_pool(scores, kernel);
            score_history single(count, kernel);
            score_history twice(count, kernel);
            single.add(std::as_const(floats).span(), 1, 0);
            twice.add(std::as_const(doubles).span(), 1, 0);
            EXPECT_TRUE(std::ranges::equal(single.scores(), expected)) << count << " " << kernel;
            EXPECT_TRUE(std::ranges::equal(twice.scores(), expected)) << count << " " << kernel;
        }
    }
}

TEST(ScoreHistory, NanIsTheLowestScore) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double inf = std::numeric_limits<double>::infinity();
    EXPECT_EQ(pooled(std::vector<double>{nan, 2.0, nan}), (reference::numbers{2.0, 2.0, -inf}));
}

TEST(ScoreHistory, LaterPassesAddAndAppend) {
    score_history history(8);
    const std::vector<float> first{1, 2};
    const std::vector<float> second{5, 1, 3};
    history.add(std::span<const float>(first), 2, 0);
    history.add(std::span<const float>(second), 1, 0);
    EXPECT_TRUE(std::ranges::equal(history.scores(), reference::numbers{7, 5, 3}));
    EXPECT_EQ(history.num_tracked(), 3U);
}

TEST(ScoreHistory, RemovedBlocksAreForgotten) {
    score_history history(12);
    const std::vector<float> scores{12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2};
    history.add(std::span<const float>(scores), 11, 0);
    history.remove_blocks(std::vector<std::uint32_t>{0, 2, 3}, 2);
    EXPECT_TRUE(std::ranges::equal(history.scores(), reference::numbers{10, 9, 4, 3, 2}));
    EXPECT_TRUE(std::ranges::equal(history.reach(), reaches{9, 8, 3, 2, 1}));
    history.remove_blocks({}, 2);
    EXPECT_EQ(history.num_tracked(), 5U);
}

TEST(ScoreHistory, BlockScoresMayBeDividedByReach) {
    score_history history(5);
    const std::vector<float> scores{10, 8, 6, 4, 2};
    history.add(std::span<const float>(scores), 5, 0);
    reference::numbers sums(2);
    history.block_scores(block_aggregation::sum, 2, sums);
    EXPECT_EQ(sums, (reference::numbers{18, 10}));
    history.block_scores(block_aggregation::norm_sum, 2, sums);
    EXPECT_EQ(sums, (reference::numbers{4, 4})); // 10/5 + 8/4, 6/3 + 4/2
}

TEST(ScoreHistory, RefusesKernelsOutsideTheRange) {
    EXPECT_THROW(score_history(8, 0), std::invalid_argument);
    EXPECT_THROW(score_history(8, 65), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
