// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/alisa.hpp>
#include <kvcrush/select/top_k.hpp>

#include "reference/attention_layer.hpp"
#include "support/attention_data.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

static_assert(AttentionScorer<alisa_scorer, attention_view>);
static_assert(AttentionScorer<alisa_scorer, kv_view<f16>, query_view>);
static_assert(!KeyScorer<alisa_scorer, kv_view<f16>> && SplittableScorer<alisa_scorer>);

// The rows of known answer 2: one query head, five queries over five tokens.
std::vector<float> known_scores(const alisa_scorer& scorer) {
    const std::vector<float> weights = test::h2o_known_weights();
    std::vector<float> mass(5);
    std::vector<float> scores(5);
    scorer.observe(attention_view(weights, 1, 5, 5), {mass, 1, 5}, {});
    scorer.reduce(head_scores(mass, 1, 5), {scores, 1, 5}, {});
    return scores;
}

TEST(AlisaScorer, SumsWhatTheWindowPaysAndRanksTheWindowFirst) {
    const std::vector<float> scores = known_scores({.window = 2});
    // Last two rows: .1 .6 .1 .2 and .1 .1 .5 .1 .2
    const std::vector<float> expected{0.2F, 0.7F, 0.6F, 0.7F + 0.5F, 0.7F + 1.0F};
    for (std::size_t j = 0; j < 5; ++j) {
        EXPECT_NEAR(scores[j], expected[j], 1e-6) << j;
    }
}

TEST(AlisaScorer, KeepsHalfRecentAndHalfAttendedTo) {
    const std::vector<float> weights = test::h2o_known_weights();
    compressor crush(alisa_scorer{.window = 2}, top_k_selector{});
    crush.plan({{1, 5, 4, 4}, 1}, budget::tokens(4, {0, 0}));
    EXPECT_EQ(test::list(crush.select(attention_view(weights, 1, 5, 5)).kept(0)),
              (std::vector<token_index>{1, 2, 3, 4}));
    crush.plan({{1, 5, 4, 4}, 1}, budget::tokens(3, {0, 0}));
    EXPECT_EQ(test::list(crush.select(attention_view(weights, 1, 5, 5)).kept(0)),
              (std::vector<token_index>{1, 3, 4}));
}

TEST(AlisaScorer, ABudgetBelowTheWindowKeepsTheNewest) {
    const std::vector<float> weights = test::h2o_known_weights();
    compressor crush(alisa_scorer{.window = 4}, top_k_selector{});
    crush.plan({{1, 5, 4, 4}, 1}, budget::tokens(2, {0, 0}));
    EXPECT_EQ(test::list(crush.select(attention_view(weights, 1, 5, 5)).kept(0)),
              (std::vector<token_index>{3, 4}));
}

TEST(AlisaScorer, AWindowLongerThanTheSequenceRanksByAge) {
    const std::vector<float> scores = known_scores({.window = 100});
    for (std::size_t j = 0; j < 5; ++j) {
        EXPECT_FLOAT_EQ(scores[j], static_cast<float>(j + 1) / 5.0F);
    }
}

TEST(AlisaScorer, AgreesWithTheReferenceOverRaggedShapes) {
    for (const std::size_t window : std::initializer_list<std::size_t>{1, 5, 64, 1000}) {
        const alisa_scorer scorer{.window = window};
        for (const reference::attention_layer& layer : reference::ragged_layers()) {
            const std::size_t n = layer.seq_len;
            const std::vector<float> scores = layer.scores_of(scorer);
            const std::vector<double> mass = layer.mass(window);
            const std::size_t older = n - std::min(window, n);
            for (std::size_t k = 0; k < layer.num_kv_heads; ++k) {
                std::vector<double> expected(n, 0.0);
                for (std::size_t j = 0; j < older; ++j) {
                    for (std::size_t g = 0; g < layer.group_size; ++g) {
                        expected[j] += mass[(k * layer.group_size + g) * n + j] /
                                       static_cast<double>(layer.group_size);
                    }
                }
                const double best =
                    older == 0
                        ? 0.0
                        : *std::max_element(expected.begin(),
                                            expected.begin() + static_cast<std::ptrdiff_t>(older));
                for (std::size_t j = older; j < n; ++j) {
                    expected[j] =
                        best + static_cast<double>(j - older + 1) / static_cast<double>(n - older);
                }
                for (std::size_t j = 0; j < n; ++j) {
                    EXPECT_NEAR(scores[k * n + j], expected[j], layer.bound() * expected[j])
                        << layer.text() << ", window " << window << ", token " << j;
                }
            }
        }
    }
}

TEST(AlisaScorer, QueriesAndWeightsGiveTheSameScores) {
    const reference::attention_layer layer(1, 3, 80, 16);
    const alisa_scorer scorer{.window = 20};
    const std::vector<float> from_queries = layer.scores_of(scorer);
    std::vector<float> mass(3 * 80);
    std::vector<float> from_weights(80);
    scorer.observe(attention_view(layer.weights(), 3, 80, 80), {mass, 3, 80}, {});
    scorer.reduce(head_scores(mass, 3, 80), {from_weights, 1, 80}, {});
    for (std::size_t j = 0; j < 80; ++j) {
        EXPECT_NEAR(from_queries[j], from_weights[j], 1e-5) << j;
    }
}

TEST(AlisaScorer, BadKeysAndQueriesGiveFiniteScores) {
    for (const float bad : reference::bad_numbers) {
        for (const reference::attention_layer& layer : reference::spoilt_layers(bad)) {
            for (const float score : layer.scores_of(alisa_scorer{.window = 8})) {
                EXPECT_TRUE(std::isfinite(score)) << layer.text();
            }
        }
    }
}

TEST(AlisaScorer, RefusesAnEmptyWindow) {
    EXPECT_THROW(alisa_scorer{.window = 0}.validate(), std::invalid_argument);
    EXPECT_NO_THROW(alisa_scorer{}.validate());
}

} // namespace
} // namespace kvcrush
