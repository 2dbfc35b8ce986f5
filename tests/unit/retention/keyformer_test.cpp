// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/keyformer.hpp>

#include "reference/attention_layer.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

static_assert(AttentionScorer<keyformer_scorer, attention_view>);
static_assert(AttentionScorer<keyformer_scorer, kv_view<f16>, query_view>);
// Noise depends on the number of the head: a part of the heads would draw another.
static_assert(!KeyScorer<keyformer_scorer, kv_view<f16>> && !SplittableScorer<keyformer_scorer>);

/// Mass from rows of attention weights.
std::vector<float> mass_of(const keyformer_scorer& scorer,
                           const std::vector<float>& weights,
                           std::size_t heads,
                           std::size_t queries,
                           std::size_t tokens) {
    std::vector<float> mass(heads * tokens);
    test::owned_scratch memory(scorer.scratch_bytes({{1, tokens, 1, 1}, heads}));
    scorer.observe(
        attention_view(weights, heads, queries, tokens), {mass, heads, tokens}, memory.get());
    return mass;
}

// Known answer 11 of the specification: logits 0, ln 2, ln 5.
TEST(KeyformerScorer, DividesLogitsByTheTemperature) {
    const std::vector<float> weights{1.0F / 8, 2.0F / 8, 5.0F / 8};
    keyformer_scorer scorer{.temperature = 1.0, .noise = false};
    std::vector<float> mass = mass_of(scorer, weights, 1, 1, 3);
    EXPECT_NEAR(mass[0], 0.125, 1e-6);
    EXPECT_NEAR(mass[1], 0.25, 1e-6);
    EXPECT_NEAR(mass[2], 0.625, 1e-6);
    scorer.temperature = 2.0;
    mass = mass_of(scorer, weights, 1, 1, 3);
    EXPECT_NEAR(mass[0], 0.215041, 1e-6);
    EXPECT_NEAR(mass[1], 0.304114, 1e-6);
    EXPECT_NEAR(mass[2], 0.480846, 1e-6);
}

TEST(KeyformerScorer, NoiseIsGumbelAndTheSameForTheSameSeed) {
    const keyformer_scorer scorer{.seed = 7};
    // Mean 0.5772 and variance pi^2 / 6 of the standard Gumbel distribution; standard errors of 40000 draws are 0.0064
    // and 0.017.
    double sum = 0.0;
    double squares = 0.0;
    constexpr std::size_t draws = 40000;
    for (std::size_t i = 0; i < draws; ++i) {
        const auto x = static_cast<double>(scorer.noise_of(i % 3, i / 200, i % 200));
        ASSERT_TRUE(std::isfinite(x));
        sum += x;
        squares += x * x;
    }
    const double mean = sum / draws;
    EXPECT_NEAR(mean, 0.577216, 0.03);
    EXPECT_NEAR(squares / draws - mean * mean, 1.644934, 0.09);
    EXPECT_EQ(scorer.noise_of(1, 2, 3), (keyformer_scorer{.seed = 7}.noise_of(1, 2, 3)));
    EXPECT_NE(scorer.noise_of(1, 2, 3), (keyformer_scorer{.seed = 8}.noise_of(1, 2, 3)));
    EXPECT_NE(scorer.noise_of(1, 2, 3), scorer.noise_of(2, 1, 3));
}

TEST(KeyformerScorer, AgreesWithTheReferenceOverRaggedShapes) {
    for (const keyformer_scorer& scorer : {keyformer_scorer{},
                                           keyformer_scorer{.temperature = 1.7, .last = 0},
                                           keyformer_scorer{.last = 40, .seed = 3},
                                           keyformer_scorer{.last = 1, .noise = false}}) {
        for (const reference::attention_layer& layer : reference::ragged_layers()) {
            const std::size_t n = layer.seq_len;
            std::vector<double> expected(layer.num_kv_heads * n, 0.0);
            for (std::size_t h = 0; h < layer.num_q_heads(); ++h) {
                for (std::size_t i = n - scorer.num_queries(n); i < n; ++i) {
                    std::vector<double> logits = layer.logits(h, i);
                    for (std::size_t j = 0; j < logits.size(); ++j) {
                        const double gumbel =
                            scorer.noise ? static_cast<double>(scorer.noise_of(h, i, j)) : 0.0;
                        logits[j] = (logits[j] + gumbel) / scorer.temperature;
                    }
                    const std::vector<double> weights = reference::softmax(logits);
                    for (std::size_t j = 0; j < weights.size(); ++j) {
                        expected[h / layer.group_size * n + j] +=
                            weights[j] / static_cast<double>(layer.group_size);
                    }
                }
            }
            const std::vector<float> scores = layer.scores_of(scorer);
            for (std::size_t i = 0; i < scores.size(); ++i) {
                // Noise and temperature round each logit twice more, which the bound's margin of two covers.
                EXPECT_NEAR(scores[i], expected[i], 2.0 * layer.bound() * expected[i] + 1e-30)
                    << layer.text() << ", last " << scorer.last << ", entry " << i;
            }
        }
    }
}

TEST(KeyformerScorer, QueriesAndWeightsGiveTheSameMass) {
    const reference::attention_layer layer(2, 2, 70, 16);
    const keyformer_scorer scorer{.last = 30};
    const std::vector<float> from_queries = layer.scores_of(scorer);
    const std::vector<float> mass = mass_of(scorer, layer.weights(), 4, 70, 70);
    std::vector<float> from_weights(2 * 70);
    scorer.reduce(const_head_scores(mass, 4, 70), {from_weights, 2, 70}, {});
    for (std::size_t i = 0; i < from_weights.size(); ++i) {
        EXPECT_NEAR(from_queries[i], from_weights[i], 1e-5) << i;
    }
}

TEST(KeyformerScorer, QueriesOneByOneAddUpToAllAtOnce) {
    const reference::attention_layer layer(1, 2, 40, 8);
    const std::vector<float> weights = layer.weights();
    const std::vector<float> all = mass_of({.last = 0}, weights, 2, 40, 40);
    std::vector<float> sum(2 * 40, 0.0F);
    for (std::size_t step = 1; step <= 40; ++step) {
        std::vector<float> row;
        for (std::size_t h = 0; h < 2; ++h) {
            const auto first =
                weights.begin() + static_cast<std::ptrdiff_t>((h * 40 + step - 1) * 40);
            row.insert(row.end(), first, first + static_cast<std::ptrdiff_t>(step));
        }
        const std::vector<float> mass = mass_of({.last = 1}, row, 2, 1, step);
        for (std::size_t h = 0; h < 2; ++h) {
            for (std::size_t j = 0; j < step; ++j) {
                sum[h * 40 + j] += mass[h * step + j];
            }
        }
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
        EXPECT_NEAR(sum[i], all[i], 1e-5) << i; // rungs may fuse the last multiply and add
    }
}

TEST(KeyformerScorer, TokensThatNobodyPaysStayAtZero) {
    const std::vector<float> mass = mass_of({}, {0.0F, 1.0F, 0.0F}, 1, 1, 3);
    EXPECT_EQ(mass, (std::vector<float>{0.0F, 1.0F, 0.0F}));
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(mass_of({}, {nan, nan, nan}, 1, 1, 3), (std::vector<float>(3, 0.0F)));
}

TEST(KeyformerScorer, BadKeysAndQueriesGiveFiniteScores) {
    for (const float bad : reference::bad_numbers) {
        for (const reference::attention_layer& layer : reference::spoilt_layers(bad)) {
            for (const float score : layer.scores_of(keyformer_scorer{})) {
                EXPECT_TRUE(std::isfinite(score)) << layer.text();
            }
        }
    }
}

TEST(KeyformerScorer, RefusesTemperaturesThatAreNone) {
    for (const double bad : {0.0, -1.0, 1e9, std::numeric_limits<double>::quiet_NaN()}) {
        EXPECT_THROW(keyformer_scorer{.temperature = bad}.validate(), std::invalid_argument);
    }
    EXPECT_NO_THROW(keyformer_scorer{}.validate());
}

} // namespace
} // namespace kvcrush
