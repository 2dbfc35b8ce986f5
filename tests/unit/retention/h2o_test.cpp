// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/h2o.hpp>
#include <kvcrush/select/top_k.hpp>

#include "support/attention_data.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace kvcrush {
namespace {

static_assert(AttentionScorer<h2o_scorer, attention_view>);
static_assert(AttentionScorer<h2o_scorer, kv_view<float>, query_view> &&
              !KeyScorer<h2o_scorer, kv_view<float>>);

std::vector<float> known_mass(const h2o_scorer& scorer) {
    const std::vector<float> weights = test::h2o_known_weights();
    std::vector<float> mass(5);
    scorer.observe(attention_view(weights, 1, 5, 5), {mass, 1, 5}, {});
    return mass;
}

// Known answer 2 of the specification.
TEST(H2oScorer, SumsColumns) {
    const std::vector<float> mass = known_mass({.normalise = h2o_normalisation::none});
    const std::vector<float> expected{11.F / 5, 29.F / 20, 17.F / 20, 3.F / 10, 1.F / 5};
    for (std::size_t j = 0; j < 5; ++j) {
        EXPECT_NEAR(mass[j], expected[j], 1e-6) << j;
    }
}

TEST(H2oScorer, DividesByReach) {
    const std::vector<float> mass = known_mass({});
    const std::vector<float> expected{11.F / 25, 29.F / 80, 17.F / 60, 3.F / 20, 1.F / 5};
    for (std::size_t j = 0; j < 5; ++j) {
        EXPECT_NEAR(mass[j], expected[j], 1e-6) << j;
    }
}

TEST(H2oScorer, LooksAtTheLastQueriesOnly) {
    const std::vector<float> mass = known_mass({.last = 2});
    const std::vector<float> expected{0.2F / 2, 0.7F / 2, 0.6F / 2, 0.3F / 2, 0.2F};
    for (std::size_t j = 0; j < 5; ++j) {
        EXPECT_NEAR(mass[j], expected[j], 1e-6) << j;
    }
    EXPECT_EQ(known_mass({.last = 100}), known_mass({}));
}

TEST(H2oScorer, KeepsOneHeavyAndTwoRecentTokens) {
    const std::vector<float> weights = test::h2o_known_weights();
    compressor crush(h2o_scorer{.normalise = h2o_normalisation::none}, top_k_selector{});
    crush.plan({{1, 5, 4, 4}, 1}, budget::tokens(3, {0, 2}));
    EXPECT_EQ(test::list(crush.select(attention_view(weights, 1, 5, 5)).kept(0)),
              (std::vector<token_index>{0, 3, 4}));
}

} // namespace
} // namespace kvcrush
