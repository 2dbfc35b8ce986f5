// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/select/top_k.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <vector>

namespace kvcrush {
namespace {

using tokens = std::vector<token_index>;

tokens select(const std::vector<float>& scores, const area_sizes& sizes, std::size_t count) {
    const areas area(sizes, scores.size());
    const std::array<std::size_t, 1> counts{count};
    selection out;
    out.reserve(1, scores.size());
    top_k_selector{}.select({const_head_scores(scores, 1, scores.size()), {}, area, counts, {}},
                            out);
    return test::list(out.kept(0));
}

TEST(TopKSelector, KeepsSinksRecentAndTheBestOfTheMiddle) {
    EXPECT_EQ(select({0, 0, 5, 1, 9, 3, 0, 0}, {1, 2}, 5), (tokens{0, 2, 4, 6, 7}));
}

TEST(TopKSelector, TiesKeepTheEarlierToken) {
    // Known answer 7 of the specification: exact top 4 of .9 .1 .5 .5 | .8 .2 .7 .3.
    EXPECT_EQ(select({0.9F, 0.1F, 0.5F, 0.5F, 0.8F, 0.2F, 0.7F, 0.3F}, {0, 0}, 4),
              (tokens{0, 2, 4, 6}));
}

TEST(TopKSelector, NanIsLowestAndInfinityHighest) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = std::numeric_limits<float>::infinity();
    EXPECT_EQ(select({nan, -inf, inf, nan, 1}, {0, 0}, 2), (tokens{2, 4}));
    EXPECT_EQ(select({nan, -inf, nan}, {0, 0}, 1), (tokens{1}));
    EXPECT_EQ(select({nan, nan, nan}, {0, 0}, 2), (tokens{0, 1}))
        << "somebody must fill the budget";
}

TEST(TopKSelector, BudgetsBeyondTheSequenceKeepAll) {
    EXPECT_EQ(select({3, 1, 2}, {0, 0}, 100), (tokens{0, 1, 2}));
    EXPECT_EQ(select({3, 1, 2}, {4, 32}, 0), (tokens{0, 1, 2})) << "all tokens are protected";
    EXPECT_TRUE(select({3, 1, 2}, {0, 0}, 0).empty());
    EXPECT_TRUE(select({}, {4, 32}, 10).empty());
}

} // namespace
} // namespace kvcrush
