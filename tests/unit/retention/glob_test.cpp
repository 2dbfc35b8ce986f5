// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/glob.hpp>

#include "reference/attention_layer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

static_assert(AttentionScorer<glob_scorer, kv_view<f16>, query_view>);
static_assert(SplittableScorer<glob_scorer> && !KeyScorer<glob_scorer, kv_view<f16>>);
// Rows of weights do not say which query heads share a kv head.
static_assert(!AttentionScorer<glob_scorer, attention_view>);

/// [num_kv_heads, seq_len], term by term.
std::vector<double>
expected_scores(const reference::attention_layer& layer, std::size_t window, std::size_t last) {
    const std::size_t n = layer.seq_len;
    const std::vector<double> near = layer.mass(window);
    const std::vector<double> far = layer.mass(last);
    const auto queries = static_cast<double>(std::min(window, n));
    const std::size_t reach = last == 0 ? n : last;
    std::vector<double> scores(layer.num_kv_heads * n, 0.0);
    for (std::size_t k = 0; k < layer.num_kv_heads; ++k) {
        std::vector<double> window_part(n, 0.0);
        std::vector<double> reach_part(n, 0.0);
        double total = 0.0;
        for (std::size_t j = 0; j < n; ++j) {
            for (std::size_t h = k * layer.group_size; h < (k + 1) * layer.group_size; ++h) {
                window_part[j] += near[h * n + j] / queries;
                reach_part[j] += far[h * n + j] / static_cast<double>(std::min(reach, n - j));
            }
            window_part[j] /= static_cast<double>(layer.group_size);
            reach_part[j] /= static_cast<double>(layer.group_size);
            total += reach_part[j];
        }
        for (std::size_t j = 0; j < n; ++j) {
            scores[k * n + j] = window_part[j] + reach_part[j] / total;
        }
    }
    return scores;
}

TEST(GlobScorer, AddsTheWindowsMeanToAttentionByReach) {
    struct setting {
        std::size_t window;
        std::size_t last;
    };
    for (const setting s : {setting{32, 0}, {8, 24}, {40, 16}, {1, 1}, {500, 300}}) {
        const glob_scorer scorer{.observation_window = s.window, .last = s.last};
        for (const reference::attention_layer& layer : reference::ragged_layers()) {
            const std::vector<float> scores = layer.scores_of(scorer);
            const std::vector<double> expected = expected_scores(layer, s.window, s.last);
            for (std::size_t i = 0; i < scores.size(); ++i) {
                // Both terms and the total they are divided by carry the error of a mass.
                EXPECT_NEAR(scores[i], expected[i], 2.0 * layer.bound() * expected[i])
                    << layer.text() << ", window " << s.window << ", entry " << i;
            }
        }
    }
}

TEST(GlobScorer, BothHorizonsShareOutOnePerKvHead) {
    const reference::attention_layer layer(3, 4, 100, 16);
    const std::vector<float> scores = layer.scores_of(glob_scorer{});
    for (std::size_t k = 0; k < 3; ++k) {
        double sum = 0.0;
        for (std::size_t j = 0; j < 100; ++j) {
            sum += static_cast<double>(scores[k * 100 + j]);
        }
        EXPECT_NEAR(sum, 2.0, 1e-4);
    }
}

TEST(GlobScorer, AsksForTheLongerHorizon) {
    EXPECT_EQ(glob_scorer{}.num_queries(1000), 1000U);
    EXPECT_EQ((glob_scorer{.last = 256}.num_queries(1000)), 256U);
    EXPECT_EQ((glob_scorer{.observation_window = 64, .last = 16}.num_queries(1000)), 64U);
    EXPECT_EQ((glob_scorer{.last = 256}.num_queries(20)), 20U);
}

TEST(GlobScorer, HeadsDoNotDependOnWhoElseIsLookedAt) {
    const reference::attention_layer layer(3, 2, 90, 24);
    const glob_scorer scorer{.last = 50};
    const std::vector<float> all = layer.scores_of(scorer);
    const reference::attention_layer part = layer.kv_head(1);
    const std::vector<float> alone = part.scores_of(scorer);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), all.begin() + 90));
}

TEST(GlobScorer, BadKeysAndQueriesGiveFiniteScores) {
    for (const float bad : reference::bad_numbers) {
        for (const reference::attention_layer& layer : reference::spoilt_layers(bad)) {
            for (const float score : layer.scores_of(glob_scorer{})) {
                EXPECT_TRUE(std::isfinite(score)) << layer.text();
            }
        }
    }
}

TEST(GlobScorer, RefusesAnEmptyWindow) {
    EXPECT_THROW(glob_scorer{.observation_window = 0}.validate(), std::invalid_argument);
    EXPECT_NO_THROW(glob_scorer{}.validate());
}

} // namespace
} // namespace kvcrush
