// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/budget.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace kvcrush {
namespace {

TEST(Budget, IncludesSinksAndRecentTokens) {
    EXPECT_EQ(budget::tokens(100).tokens_for(1000), 100U);
    EXPECT_EQ(budget::keep_ratio(0.25).tokens_for(1024), 256U);
    EXPECT_EQ(budget::keep_ratio(0.125).tokens_for(1000), 125U);
    EXPECT_EQ(budget::keep_ratio(0.1).tokens_for(1009), 100U) << "floor in double";
}

TEST(Budget, RatiosThatAreQuotientsLoseNoToken) {
    for (std::size_t n = 1; n <= 1000; ++n) {
        for (std::size_t k = 1; k <= n; ++k) {
            const double ratio = static_cast<double>(k) / static_cast<double>(n);
            ASSERT_EQ(budget::keep_ratio(ratio, {0, 0}).tokens_for(n), k) << k << " / " << n;
        }
    }
    EXPECT_EQ(budget::keep_ratio(0.29, {0, 0}).tokens_for(100), 29U);
    EXPECT_EQ(budget::keep_ratio(0.2899999, {0, 0}).tokens_for(100), 28U);
}

TEST(Budget, TellsWhatItIsBeforeRounding) {
    EXPECT_EQ(budget::keep_ratio(0.5).unrounded_for(1001), 500.5);
    EXPECT_EQ(budget::tokens(100).unrounded_for(1001), 100.0);
    EXPECT_EQ(budget::tokens(100).unrounded_for(60), 60.0);
}

TEST(Budget, KeepsAllWhereItExceedsTheSequence) {
    EXPECT_EQ(budget::tokens(100).tokens_for(60), 60U);
    EXPECT_EQ(budget::keep_ratio(1.0).tokens_for(60), 60U);
    EXPECT_EQ(budget::tokens(0).tokens_for(36), 36U) << "nothing but sinks and recent tokens";
    EXPECT_EQ(budget::tokens(0).tokens_for(0), 0U);
}

TEST(Budget, RefusesToDropProtectedTokens) {
    try {
        static_cast<void>(budget::keep_ratio(0.125).tokens_for(128));
        FAIL() << "16 tokens do not hold 36";
    } catch (const std::invalid_argument& error) {
        EXPECT_EQ(std::string(error.what()),
                  "kvcrush::budget: 16 of 128 tokens do not hold the protected ones (4 sinks + 32 "
                  "recent); at least 36 "
                  "are needed");
    }
    EXPECT_EQ(budget::tokens(0, {0, 0}).tokens_for(128), 0U) << "legal where nothing is protected";
    EXPECT_THROW(static_cast<void>(budget::tokens(0).tokens_for(37)), std::invalid_argument);
}

TEST(Budget, RefusesRatiosOutsideZeroToOne) {
    for (const double ratio : {0.0,
                               -0.5,
                               1.0001,
                               std::numeric_limits<double>::quiet_NaN(),
                               std::numeric_limits<double>::infinity()}) {
        EXPECT_THROW(static_cast<void>(budget::keep_ratio(ratio)), std::invalid_argument) << ratio;
    }
}

TEST(Areas, SinksGoFirstWhereTheSequenceIsShort) {
    const areas normal({4, 32}, 100);
    EXPECT_EQ(normal.middle_begin, 4U);
    EXPECT_EQ(normal.middle_end, 68U);
    const areas shorter({4, 32}, 20);
    EXPECT_EQ(shorter.middle_begin, 4U);
    EXPECT_EQ(shorter.num_middle(), 0U);
    EXPECT_EQ(shorter.num_protected(), 20U);
    const areas tiny({4, 32}, 2);
    EXPECT_EQ(tiny.num_protected(), 2U);
    const areas huge(
        {(std::numeric_limits<std::size_t>::max)(), (std::numeric_limits<std::size_t>::max)()}, 7);
    EXPECT_EQ(huge.num_middle(), 0U);
}

} // namespace
} // namespace kvcrush
