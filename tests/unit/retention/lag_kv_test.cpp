// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/lag_kv.hpp>
#include <kvcrush/select/partition.hpp>
#include <kvcrush/select/top_k.hpp>

#include "reference/lag_kv.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

static_assert(KeyScorer<lag_kv_scorer, kv_view<const f16>>);

std::vector<float> score(const lag_kv_scorer& scorer, std::vector<float> rows, std::size_t dim) {
    const std::size_t tokens = rows.size() / dim;
    const kv_view<float> kv(rows, rows, kv_shape{1, tokens, dim, dim});
    std::vector<float> scores(tokens);
    scorer.score(kv, {scores, 1, tokens});
    return scores;
}

void expect_near(const std::vector<float>& scores, const std::vector<double>& expected) {
    ASSERT_EQ(scores.size(), expected.size());
    for (std::size_t t = 0; t < expected.size(); ++t) {
        EXPECT_NEAR(scores[t], expected[t], 1e-6) << "token " << t;
    }
}

// Known answer 11 of the specification: standard deviations .353553 .707107, softmax .412521 .587479, ranks 0 .5.
TEST(LagKvScorer, ComparesEachPartitionWithTheNext) {
    const std::vector<float> rows{0, 0, 2, 1, 1, 2, 3, 4};
    lag_kv_scorer scorer{.lag = 2, .num_sink_tokens = 0, .cross_scoring = true};
    expect_near(score(scorer, rows, 2), {0.412521, 0.587479, 1, 1});
    scorer.cross_scoring = false;
    expect_near(score(scorer, rows, 2), {0, 0.5, 1, 1});
}

TEST(LagKvScorer, SinksAndTheEndScoreOne) {
    const std::vector<float> rows{7, 7, 0, 0, 2, 1, 1, 2, 3, 4, 9, 9};
    const lag_kv_scorer scorer{.lag = 2, .num_sink_tokens = 1};
    expect_near(score(scorer, rows, 2), {1, 0, 0.5, 1, 1, 1});
}

TEST(LagKvScorer, ShortSequencesFavourRecentTokens) {
    const lag_kv_scorer scorer{.lag = 2, .num_sink_tokens = 1};
    expect_near(score(scorer, {0, 0, 0, 0, 0, 0, 0, 0}, 2), {1, 0, 1.0 / 3, 2.0 / 3});
    expect_near(score({.lag = 3, .num_sink_tokens = 4}, {1, 2}, 1), {1, 1});
    EXPECT_TRUE(score(scorer, {}, 2).empty());
}

TEST(LagKvScorer, EqualsTheReferenceInEveryLayoutAndType) {
    struct size {
        std::size_t tokens, lag, sinks, dim;
    };
    for (const size& one : std::initializer_list<size>{{20, 3, 4, 7},
                                                       {21, 5, 0, 64},
                                                       {40, 16, 4, 80},
                                                       {16, 1, 2, 17},
                                                       {300, 70, 4, 8},
                                                       {150, 65, 4, 520}}) {
        const kv_shape shape{2, one.tokens, one.dim, 5};
        std::vector<double> expected;
        for (std::size_t head = 0; head < 2; ++head) {
            reference::rows keys(one.tokens);
            reference::rows values(one.tokens);
            for (std::size_t t = 0; t < one.tokens; ++t) {
                for (std::size_t d = 0; d < one.dim; ++d) {
                    keys[t].push_back(test::marked(false, head, t, d));
                }
                for (std::size_t d = 0; d < 5; ++d) {
                    values[t].push_back(test::marked(true, head, t, d));
                }
            }
            // Partitions of one token have no range: epsilon decides, and must not be tiny.
            const std::vector<double> part =
                reference::lag_kv(keys, values, one.sinks, one.lag, 0.5);
            expected.insert(expected.end(), part.begin(), part.end());
        }
        const auto check = [&](const auto& kv) {
            lag_kv_scorer scorer{.lag = one.lag,
                                 .num_sink_tokens = one.sinks,
                                 .cross_scoring = true,
                                 .epsilon = 0.5};
            std::vector<float> scores(2 * one.tokens);
            scorer.score(kv, {scores, 2, one.tokens});
            for (std::size_t i = 0; i < scores.size(); ++i) {
                // Deviations of a few units are off by some 2^-22 each, their exponentials by as much in proportion.
                EXPECT_NEAR(scores[i], expected[i], 4e-6 * expected[i]) << one.tokens << " " << i;
            }
            // Ranks follow those scores.
            scorer.cross_scoring = false;
            std::vector<float> ranks(scores.size());
            scorer.score(kv, {ranks, 2, one.tokens});
            for (std::size_t i = 0; i < scores.size(); ++i) {
                if (scores[i] == 1.0F && ranks[i] == 1.0F) {
                    continue;
                }
                const std::size_t t = i % one.tokens;
                const std::size_t first = i - (t - one.sinks) % one.lag;
                std::size_t worse = 0;
                for (std::size_t j = first; j < first + one.lag; ++j) {
                    worse += scores[j] < scores[i] || (scores[j] == scores[i] && j > i) ? 1U : 0U;
                }
                EXPECT_EQ(ranks[i], static_cast<float>(worse) / static_cast<float>(one.lag)) << i;
            }
        };
        test::with_every_layout<float>(shape, check);
        test::with_every_layout<f16>(shape, check);
        test::with_every_layout<bf16>(shape, check);
    }
}

TEST(LagKvScorer, ConstantChannelsAndWildValuesGiveFiniteScores) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = std::numeric_limits<float>::infinity();
    for (const bool cross : {false, true}) {
        const lag_kv_scorer scorer{.lag = 2, .num_sink_tokens = 0, .cross_scoring = cross};
        for (const std::vector<float>& rows : std::initializer_list<std::vector<float>>{
                 {1, 5, 2, 5, 3, 5, 3, 5},
                 {1, nan, 2, 5, 3, nan, 3, nan},
                 {1, inf, 2, 5, 3, -inf, 3, 5},
                 {3e38F, -3e38F, 2, 5, 3e38F, 1, -3e38F, 5}}) {
            for (const float value : score(scorer, rows, 2)) {
                EXPECT_TRUE(std::isfinite(value));
            }
        }
    }
    const std::vector<float> ranks =
        score({.lag = 2, .num_sink_tokens = 0}, {1, nan, 2, 5, 3, 1, 4, 3}, 2);
    EXPECT_EQ(ranks[0], 0.0F) << "not a number: the worst";
}

TEST(LagKvScorer, PartitionsOfTheSelectorKeepEqualShares) {
    const kv_shape shape{1, 44, 8, 8};
    std::vector<float> rows(44 * 8);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        rows[i] = random_unit(5, 0, i);
    }
    const kv_view<float> kv(rows, rows, shape);
    compressor crush(lag_kv_scorer{.lag = 8}, partition_selector{.lag = 8});
    crush.plan({shape}, budget::tokens(4 + 8 + 12, {4, 8}));
    const std::span<const token_index> kept = crush.select(kv).kept(0);
    EXPECT_EQ(kept.size(), 24U);
    for (std::size_t first = 4; first < 36; first += 8) {
        std::size_t count = 0;
        for (const token_index t : kept) {
            count += t >= first && t < first + 8 ? 1U : 0U;
        }
        EXPECT_EQ(count, 3U) << first;
    }
}

TEST(LagKvScorer, RefusesEmptyPartitionsAndRanges) {
    EXPECT_THROW(lag_kv_scorer{.lag = 0}.validate(), std::invalid_argument);
    EXPECT_THROW(lag_kv_scorer{.lag = std::size_t{1} << 25}.validate(), std::invalid_argument);
    EXPECT_THROW(lag_kv_scorer{.epsilon = 0.0}.validate(), std::invalid_argument);
    EXPECT_THROW(lag_kv_scorer{.epsilon = std::nan("")}.validate(), std::invalid_argument);
    EXPECT_NO_THROW(lag_kv_scorer{}.validate());
}

} // namespace
} // namespace kvcrush
