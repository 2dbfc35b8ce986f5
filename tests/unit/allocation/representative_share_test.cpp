// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/allocation/representative_share.hpp>

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace kvcrush {
namespace {

TEST(NegligiblePart, GrowsItsFactorUntilAQuarterIsBelow) {
    // Mean about 1/10: nothing below a millionth of it, one token of ten below 1e-5 of it, three below 1e-3.
    const std::vector<float> scores{
        1.0F, 5e-7F, 5e-5F, 5e-5F, 1e-2F, 1e-2F, 1e-2F, 1e-2F, 1e-2F, 1e-2F};
    EXPECT_DOUBLE_EQ(negligible_part(scores), 0.3);
    const std::vector<float> even(8, 2.0F);
    EXPECT_DOUBLE_EQ(negligible_part(even), 0.0);
    EXPECT_DOUBLE_EQ(negligible_part({}), 0.0);
    const std::vector<float> strange{std::numeric_limits<float>::quiet_NaN(),
                                     std::numeric_limits<float>::infinity()};
    EXPECT_DOUBLE_EQ(negligible_part(strange), 0.0);
}

TEST(RepresentativeCount, AdaptiveNeverExceedsTheShare) {
    const std::vector<float> scores{1.0F, 0.0F, 0.0F, 0.0F};
    EXPECT_EQ(representative_count(0.25, budget_split::fixed, scores, 100), 25U);
    EXPECT_EQ(representative_count(0.25, budget_split::adaptive, scores, 100), 25U) << "75 % are 0";
    EXPECT_EQ(representative_count(0.9, budget_split::adaptive, scores, 100), 75U);
    const std::vector<float> even(4, 1.0F);
    EXPECT_EQ(representative_count(0.25, budget_split::adaptive, even, 100), 0U);
    EXPECT_EQ(representative_count(0.25, budget_split::fixed, even, 3), 0U);
}

} // namespace
} // namespace kvcrush
