// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/score_view.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <limits>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace kvcrush {
namespace {

// Two heads, three tokens: head 0 has 1 2 3, head 1 has 4 5 6.
const std::vector<float> by_head{1, 2, 3, 4, 5, 6};
const std::vector<float> by_token{1, 4, 2, 5, 3, 6};

void expect_known(const score_view<float>& scores) {
    ASSERT_EQ(2U, scores.num_heads());
    ASSERT_EQ(3U, scores.seq_len());
    for (std::size_t head = 0; head < 2; ++head) {
        for (std::size_t token = 0; token < 3; ++token) {
            EXPECT_EQ(static_cast<float>(3 * head + token + 1), scores.at(head, token));
        }
    }
}

TEST(ScoreView, ReadsBothOrders) {
    expect_known(score_view<float>::heads_by_tokens(by_head, 2, 3));
    expect_known(score_view<float>::tokens_by_heads(by_token, 2, 3));
    EXPECT_TRUE(score_view<float>::heads_by_tokens(by_head, 2, 3).rows_are_contiguous());
    EXPECT_FALSE(score_view<float>::tokens_by_heads(by_token, 2, 3).rows_are_contiguous());
    EXPECT_TRUE(score_view<float>::tokens_by_heads(by_token, 1, 6).rows_are_contiguous());
}

TEST(ScoreView, ReadsPaddedRows) {
    const std::vector<float> padded{1, 2, 3, -1, 4, 5, 6};
    const score_view<float> scores(padded, 2, 3, {4, 1});
    expect_known(scores);
    EXPECT_EQ(5.0F, scores.row(1)[1]);
}

TEST(ScoreView, FollowsFromScoresOfTheLibrary) {
    std::vector<float> writable = by_head;
    expect_known(const_head_scores(by_head, 2, 3));
    expect_known(head_scores(writable, 2, 3));
    static_assert(!std::is_convertible_v<const_head_scores, score_view<f16>>);
}

TEST(ScoreView, EmptyExtentsNeedNoMemory) {
    EXPECT_NO_THROW(static_cast<void>(score_view<f16>::heads_by_tokens({}, 0, 7)));
    EXPECT_NO_THROW(static_cast<void>(score_view<f16>::tokens_by_heads({}, 7, 0)));
}

TEST(ScoreView, RefusesTooLittleMemoryAndSenselessStrides) {
    const std::vector<float> five(5);
    EXPECT_THROW(static_cast<void>(score_view<float>::heads_by_tokens(five, 2, 3)),
                 std::invalid_argument);
    EXPECT_THROW(static_cast<void>(score_view<float>::tokens_by_heads(five, 2, 3)),
                 std::invalid_argument);
    EXPECT_THROW((score_view<float>(five, 2, 2, {4, 1})), std::invalid_argument);
    EXPECT_NO_THROW((score_view<float>(five, 2, 2, {3, 1})));
    EXPECT_THROW((score_view<float>(five, 2, 2, {0, 1})), std::invalid_argument);
    EXPECT_THROW((score_view<float>(five, 2, 2, {2, 0})), std::invalid_argument);
    constexpr std::size_t most = std::numeric_limits<std::size_t>::max();
    EXPECT_THROW(static_cast<void>(score_view<float>::heads_by_tokens(five, most, 2)),
                 std::invalid_argument);
    EXPECT_THROW(static_cast<void>(score_view<float>::heads_by_tokens(five, 1, most)),
                 std::invalid_argument);
    EXPECT_THROW((score_view<float>(five, 3, 1, {most / 2 + 1, 1})), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
