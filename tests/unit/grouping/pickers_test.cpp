// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/grouping/farthest.hpp>
#include <kvcrush/grouping/linspace.hpp>
#include <kvcrush/grouping/most_important.hpp>
#include <kvcrush/grouping/step.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <set>
#include <vector>

namespace kvcrush {
namespace {

using tokens = std::vector<token_index>;

template <typename Picker>
tokens pick(std::size_t candidates, std::size_t picks, const std::vector<float>& scores = {}) {
    tokens order(candidates);
    std::iota(order.begin(), order.end(), 0U);
    tokens out(picks);
    if constexpr (RankPicker<Picker>) {
        for (std::size_t i = 0; i < picks; ++i) {
            out[i] = order.at(Picker{}.rank(i, candidates, picks));
        }
    } else {
        Picker{}.pick(order, scores, out);
    }
    return out;
}

TEST(LinspacePicker, ReachesBothEnds) {
    EXPECT_EQ(pick<linspace_picker>(10, 4), (tokens{0, 3, 6, 9}));
    EXPECT_EQ(pick<linspace_picker>(10, 1), (tokens{0}));
    EXPECT_EQ(pick<linspace_picker>(7, 7), (tokens{0, 1, 2, 3, 4, 5, 6}));
    EXPECT_TRUE(pick<linspace_picker>(0, 0).empty());
}

TEST(StepPicker, TakesWholeStepsFromTheNearest) {
    EXPECT_EQ(pick<step_picker>(10, 4), (tokens{0, 2, 4, 6}));
    EXPECT_EQ(pick<step_picker>(7, 4), (tokens{0, 1, 2, 3}))
        << "fewer than two candidates per pick: the nearest";
    EXPECT_EQ(pick<step_picker>(3, 2), (tokens{0, 1})) << "steady state: the farthest is dropped";
    EXPECT_EQ(pick<step_picker>(2, 1), (tokens{0}));
    EXPECT_TRUE(pick<step_picker>(5, 0).empty());
}

TEST(MostImportantPicker, TakesTheBestOfEachStratum) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(pick<most_important_picker>(6, 2, {1, 5, 2, 3, 3, 9}), (tokens{1, 5}));
    EXPECT_EQ(pick<most_important_picker>(6, 2, {4, 4, 4, 4, 4, 4}), (tokens{0, 3}))
        << "ties take the nearest";
    EXPECT_EQ(pick<most_important_picker>(4, 2, {nan, 0, nan, nan}), (tokens{1, 2}));
    EXPECT_TRUE(pick<most_important_picker>(0, 0).empty());
}

template <typename Picker>
class AnyPicker : public testing::Test {};
using pickers =
    testing::Types<linspace_picker, step_picker, farthest_picker, most_important_picker>;
TYPED_TEST_SUITE(AnyPicker, pickers);

TYPED_TEST(AnyPicker, PicksDifferentCandidates) {
    for (std::size_t candidates = 0; candidates < 70; ++candidates) {
        const std::vector<float> scores = test::random_scores(candidates, candidates);
        for (std::size_t picks = 0; picks <= candidates; ++picks) {
            const tokens chosen = pick<TypeParam>(candidates, picks, scores);
            ASSERT_EQ(std::set<token_index>(chosen.begin(), chosen.end()).size(), picks)
                << candidates;
        }
    }
}

} // namespace
} // namespace kvcrush
