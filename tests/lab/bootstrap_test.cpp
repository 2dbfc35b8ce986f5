// SPDX-License-Identifier: Apache-2.0
#include "bootstrap.hpp"
#include "error.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace lab {
namespace {

TEST(Bootstrap, HasNoIntervalWhereNothingVaries) {
    for (const std::vector<double>& values :
         {std::vector<double>{3.0}, std::vector<double>{0.25, 0.25, 0.25, 0.25}}) {
        const interval found = bootstrap_mean(values);
        EXPECT_EQ(found.value, values.front());
        EXPECT_EQ(found.lo, values.front());
        EXPECT_EQ(found.hi, values.front());
    }
}

TEST(Bootstrap, SaysNothingOfNothing) {
    EXPECT_TRUE(std::isnan(bootstrap_mean({}).value));
    EXPECT_TRUE(std::isnan(bootstrap_mean({}).lo));
    const std::vector<double> spoilt{1.0, std::nan("")};
    EXPECT_TRUE(std::isnan(bootstrap_mean(spoilt).hi));
}

TEST(Bootstrap, ReachesBothEndsOfTwoValues) {
    // Both draws are the smaller one with probability 1/4: more than 2.5 %, so the ends are the values.
    const std::vector<double> values{1.0, 2.0};
    const interval found = bootstrap_mean(values);
    EXPECT_EQ(found.value, 1.5);
    EXPECT_EQ(found.lo, 1.0);
    EXPECT_EQ(found.hi, 2.0);
}

TEST(Bootstrap, AgreesWithTheBinomialDistribution) {
    // 8 right of 10: the number of right ones drawn is binomial(10, 0.8). P(<= 4) = 0.6 %, P(<= 5) = 3.3 %,
    // P(<= 9) = 89.3 %: the quantiles are 5 and 10 of 10.
    const std::vector<double> values{1, 1, 1, 1, 1, 1, 1, 1, 0, 0};
    const interval found = bootstrap_mean(values);
    EXPECT_DOUBLE_EQ(found.value, 0.8);
    EXPECT_DOUBLE_EQ(found.lo, 0.5);
    EXPECT_DOUBLE_EQ(found.hi, 1.0);
}

TEST(Bootstrap, AgreesWithTheNormalApproximation) {
    std::vector<double> values;
    for (int i = 0; i < 100; ++i) {
        values.push_back(i);
    }
    // The standard error is sqrt((100^2 - 1) / 12 / 100) = 2.887; 1.96 of it is 5.66. 10 000 resamples know their
    // quantiles to about 0.08.
    const interval found = bootstrap_mean(values);
    EXPECT_DOUBLE_EQ(found.value, 49.5);
    EXPECT_NEAR(found.lo, 49.5 - 5.66, 0.3);
    EXPECT_NEAR(found.hi, 49.5 + 5.66, 0.3);
}

TEST(Bootstrap, GivesTheSameForTheSameSeed) {
    const std::vector<double> values{1.0, 5.0, 2.0, 8.0, 3.0, 3.5, 0.1};
    const interval once = bootstrap_mean(values, {10'000, 3});
    const interval again = bootstrap_mean(values, {10'000, 3});
    const interval other = bootstrap_mean(values, {50, 4});
    EXPECT_EQ(once.lo, again.lo);
    EXPECT_EQ(once.hi, again.hi);
    EXPECT_NE(once.lo, other.lo);
}

TEST(Bootstrap, PairsWhatWasMeasuredOnTheSameSamples) {
    // The samples differ much, the policies by exactly one: a paired interval has no width.
    const std::vector<double> a{11.0, 101.0, 1001.0};
    const std::vector<double> b{10.0, 100.0, 1000.0};
    const interval found = bootstrap_difference(a, b);
    EXPECT_EQ(found.value, 1.0);
    EXPECT_EQ(found.lo, 1.0);
    EXPECT_EQ(found.hi, 1.0);
    EXPECT_THROW(static_cast<void>(bootstrap_difference(a, std::vector<double>{1.0})), input_error);
}

TEST(Bootstrap, TakesRatiosGeometrically) {
    const std::vector<double> a{2.0, 8.0};
    const std::vector<double> b{1.0, 1.0};
    const interval found = bootstrap_ratio(a, b);
    EXPECT_NEAR(found.value, 4.0, 1e-12);
    EXPECT_NEAR(found.lo, 2.0, 1e-12);
    EXPECT_NEAR(found.hi, 8.0, 1e-12);
    EXPECT_TRUE(std::isnan(bootstrap_ratio(a, std::vector<double>{1.0, 0.0}).value));
}

} // namespace
} // namespace lab
