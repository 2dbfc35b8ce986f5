// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/tova.hpp>
#include <kvcrush/select/top_k.hpp>

#include "reference/attention_layer.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace kvcrush {
namespace {

static_assert(AttentionScorer<tova_scorer, attention_view>);
static_assert(AttentionScorer<tova_scorer, kv_view<f16>, query_view>);
static_assert(!KeyScorer<tova_scorer, kv_view<f16>> && SplittableScorer<tova_scorer>);

// Known answer 11 of the specification: one row of attention per query head.
const std::vector<float> known_rows{0.5F, 0.1F, 0.2F, 0.1F, 0.1F, 0.1F, 0.3F, 0.2F, 0.3F, 0.1F};

TEST(TovaScorer, AveragesTheLastRowsOfAllHeads) {
    const tova_scorer scorer;
    std::vector<float> mass(10);
    std::vector<float> scores(10);
    scorer.observe(attention_view(known_rows, 2, 1, 5), {mass, 2, 5}, {});
    scorer.reduce(head_scores(mass, 2, 5), {scores, 2, 5}, {});
    const std::vector<float> expected{0.3F, 0.2F, 0.2F, 0.2F, 0.1F};
    for (std::size_t t = 0; t < 5; ++t) {
        EXPECT_NEAR(scores[t], expected[t], 1e-6) << t;
        EXPECT_EQ(scores[t], scores[5 + t]) << "one set for all heads, token " << t;
    }
}

TEST(TovaScorer, KeepsTheEarlierOfEqualTokensInEveryHead) {
    compressor crush(tova_scorer{}, top_k_selector{});
    crush.plan({{2, 5, 4, 4}, 2}, budget::tokens(3, {0, 0}));
    const selection& kept = crush.select(attention_view(known_rows, 2, 1, 5));
    EXPECT_EQ(test::list(kept.kept(0)), (std::vector<token_index>{0, 1, 2}));
    EXPECT_EQ(test::list(kept.kept(1)), (std::vector<token_index>{0, 1, 2}));
}

TEST(TovaScorer, EarlierQueriesDoNotCount) {
    const tova_scorer scorer;
    std::vector<float> weights(known_rows.begin() + 5, known_rows.end());
    weights.insert(weights.end(), known_rows.begin(), known_rows.begin() + 5);
    std::vector<float> mass(5);
    scorer.observe(attention_view(weights, 1, 2, 5), {mass, 1, 5}, {});
    EXPECT_TRUE(std::equal(mass.begin(), mass.end(), known_rows.begin()));
    EXPECT_EQ(scorer.num_queries(0), 0U);
    EXPECT_EQ(scorer.num_queries(100), 1U);
}

TEST(TovaScorer, AgreesWithTheReferenceOverRaggedShapes) {
    for (const reference::attention_layer& layer : reference::ragged_layers()) {
        const std::size_t n = layer.seq_len;
        const tova_scorer scorer;
        const std::vector<float> scores = layer.scores_of(scorer);
        const std::vector<double> mass = layer.mass(1);
        for (std::size_t t = 0; t < n; ++t) {
            double expected = 0.0;
            for (std::size_t h = 0; h < layer.num_q_heads(); ++h) {
                expected += mass[h * n + t] / static_cast<double>(layer.num_q_heads());
            }
            for (std::size_t head = 0; head < layer.num_kv_heads; ++head) {
                EXPECT_NEAR(scores[head * n + t], expected, layer.bound() * expected + 1e-37)
                    << layer.text() << " token " << t;
            }
        }
    }
}

TEST(TovaScorer, BadKeysAndQueriesGiveFiniteScores) {
    for (const float bad : reference::bad_numbers) {
        for (const reference::attention_layer& layer : reference::spoilt_layers(bad)) {
            for (const float score : layer.scores_of(tova_scorer{})) {
                EXPECT_TRUE(std::isfinite(score)) << layer.text();
            }
        }
    }
}

} // namespace
} // namespace kvcrush
