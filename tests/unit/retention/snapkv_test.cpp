// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/simd/top_k.hpp>

#include "support/attention_data.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

static_assert(AttentionScorer<snapkv_scorer, attention_view>);
static_assert(AttentionScorer<snapkv_scorer, kv_view<f16>, query_view>);
static_assert(!AttentionScorer<snapkv_scorer, kv_view<f16>> &&
              !KeyScorer<snapkv_scorer, kv_view<f16>>);

/// Scores of the known attention rows, [num_kv_heads, 8].
std::vector<float> known_scores(const snapkv_scorer& scorer, std::size_t num_kv_heads) {
    const std::vector<float> weights = test::snapkv_known_weights();
    const attention_view attention(weights, 2, 2, 8);
    std::vector<float> mass(2 * 8);
    std::vector<float> scores(num_kv_heads * 8);
    test::owned_scratch memory(4096);
    scorer.observe(attention, {mass, 2, 8}, memory.get());
    scorer.reduce(head_scores(mass, 2, 8), {scores, num_kv_heads, 8}, memory.get());
    return scores;
}

/// Against sums over the two queries of the window.
void expect_prefix(std::span<const float> scores, const std::vector<float>& expected) {
    for (std::size_t t = 0; t < expected.size(); ++t) {
        EXPECT_NEAR(scores[t], expected[t] / 2, 1e-6) << "token " << t;
    }
}

std::vector<token_index> best(std::span<const float> scores, std::size_t k) {
    std::vector<token_index> out(k);
    simd::top_k(scores, k, out);
    return out;
}

using tokens = std::vector<token_index>;

// Known answer 3 of the specification: window 2, six tokens before it. It sums over the window, here are means.
TEST(SnapkvScorer, AveragesTheWindow) {
    const std::vector<float> s = known_scores({.observation_window = 2, .pool = pooling::none}, 2);
    expect_prefix(std::span(s).first(8), {1.F / 8, 3.F / 16, 7.F / 8, 1.F / 8, 3.F / 16, 1.F / 8});
    expect_prefix(std::span(s).last(8), {3.F / 4, 1.F / 8, 1.F / 8, 1.F / 8, 1.F / 2, 1.F / 8});
}

TEST(SnapkvScorer, PoolsOverNeighbours) {
    const std::vector<float> by_max =
        known_scores({.observation_window = 2, .pooling_kernel_size = 3}, 2);
    expect_prefix(by_max, {3.F / 16, 7.F / 8, 7.F / 8, 7.F / 8, 3.F / 16, 3.F / 16});
    EXPECT_EQ(best(std::span(by_max).first(6), 3), (tokens{1, 2, 3}));
    EXPECT_EQ(best(std::span(by_max).subspan(8, 6), 3), (tokens{0, 1, 3}));

    const std::vector<float> by_avg =
        known_scores({.observation_window = 2, .pool = pooling::avg, .pooling_kernel_size = 3}, 2);
    expect_prefix(by_avg, {5.F / 48, 19.F / 48, 19.F / 48, 19.F / 48, 7.F / 48, 5.F / 48});
    EXPECT_EQ(best(std::span(by_avg).first(6), 3), (tokens{1, 2, 3}));
    EXPECT_EQ(best(std::span(by_avg).subspan(8, 6), 3), (tokens{0, 1, 3}));
}

TEST(SnapkvScorer, FoldsTheGroupBeforeOrAfterPooling) {
    snapkv_scorer scorer{.observation_window = 2, .pooling_kernel_size = 3};
    EXPECT_EQ(best(std::span<const float>(known_scores(scorer, 1)).first(6), 2), (tokens{1, 2}));
    scorer.order = pooling_order::pool_first;
    EXPECT_EQ(best(std::span<const float>(known_scores(scorer, 1)).first(6), 2), (tokens{1, 3}));
    scorer.pool = pooling::none;
    EXPECT_EQ(best(std::span<const float>(known_scores(scorer, 1)).first(6), 3), (tokens{0, 2, 4}));
    scorer.reduce_heads = head_reduction::max;
    EXPECT_EQ(best(std::span<const float>(known_scores(scorer, 1)).first(6), 3), (tokens{0, 2, 4}));
}

TEST(SnapkvScorer, SharedSetsAreTheMeanOfAllHeads) {
    const snapkv_scorer scorer{.observation_window = 2, .pool = pooling::none, .shared = true};
    const std::vector<float> s = known_scores(scorer, 2);
    EXPECT_TRUE(std::equal(s.begin(), s.begin() + 8, s.begin() + 8));
    EXPECT_NEAR(s[0], (1.0 / 8 + 3.0 / 4) / 2 / 2, 1e-6);
}

TEST(SnapkvScorer, WindowScoresAsHighAsTheBestBeforeIt) {
    const std::vector<float> s = known_scores({.observation_window = 2, .pool = pooling::none}, 2);
    EXPECT_EQ(s[6], s[2]);
    EXPECT_EQ(s[7], s[2]);
}

TEST(SnapkvScorer, WindowLongerThanTheSequenceScoresAllAlike) {
    const std::vector<float> s = known_scores({.observation_window = 100}, 1);
    EXPECT_TRUE(std::all_of(s.begin(), s.end(), [](float x) { return x == 0.0F; }));
}

TEST(SnapkvScorer, QueriesAndWeightsGiveTheSameScores) {
    // Keys and queries of one channel: the logits are log(weight), so that the weights come out again.
    const kv_shape shape{1, 40, 8, 8};
    std::vector<float> keys(40 * 8);
    std::vector<float> queries(2 * 33 * 8);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        keys[i] = random_unit(1, 0, i) - 0.5F;
    }
    for (std::size_t i = 0; i < queries.size(); ++i) {
        queries[i] = 4.0F * (random_unit(2, 0, i) - 0.5F);
    }
    std::vector<float> weights(2 * 33 * 40, 0.0F);
    for (std::size_t h = 0; h < 2; ++h) {
        for (std::size_t i = 0; i < 33; ++i) {
            double sum = 0.0;
            std::vector<double> e(40, 0.0);
            for (std::size_t j = 0; j <= 40 - 33 + i; ++j) {
                double dot = 0.0;
                for (std::size_t d = 0; d < 8; ++d) {
                    dot += static_cast<double>(queries[(h * 33 + i) * 8 + d]) *
                           static_cast<double>(keys[j * 8 + d]);
                }
                e[j] = std::exp(dot / std::sqrt(8.0));
                sum += e[j];
            }
            for (std::size_t j = 0; j < 40; ++j) {
                weights[(h * 33 + i) * 40 + j] = static_cast<float>(e[j] / sum);
            }
        }
    }
    const snapkv_scorer scorer{.observation_window = 16};
    const kv_view<float> kv(keys, keys, shape);
    std::vector<float> from_queries(2 * 40);
    std::vector<float> from_weights(2 * 40);
    test::owned_scratch memory(scorer.scratch_bytes({shape, 2}));
    scorer.observe(kv, query_view(queries, 2, 33, 8), {from_queries, 2, 40}, memory.get());
    scorer.observe(attention_view(weights, 2, 33, 40), {from_weights, 2, 40}, memory.get());
    for (std::size_t i = 0; i < from_queries.size(); ++i) {
        EXPECT_NEAR(from_queries[i], from_weights[i], 1e-5) << i;
    }
}

TEST(SnapkvScorer, RefusesEvenKernelsAndEmptyWindows) {
    EXPECT_THROW(snapkv_scorer{.pooling_kernel_size = 4}.validate(), std::invalid_argument);
    EXPECT_THROW(snapkv_scorer{.pooling_kernel_size = 0}.validate(), std::invalid_argument);
    EXPECT_THROW(snapkv_scorer{.observation_window = 0}.validate(), std::invalid_argument);
    EXPECT_NO_THROW(snapkv_scorer{}.validate());
}

} // namespace
} // namespace kvcrush
