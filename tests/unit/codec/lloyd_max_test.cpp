// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/codec/lloyd_max.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

namespace {

using namespace kvcrush;

constexpr double infinity = std::numeric_limits<double>::infinity();

double density(double x) { return std::exp(-0.5 * x * x) / std::sqrt(2.0 * std::numbers::pi); }
/// P(X > x)
double tail(double x) { return 0.5 * std::erfc(x / std::sqrt(2.0)); }

template <std::size_t Bits>
void expect_best_quantiser(double distortion) {
    using table = lloyd_max<Bits>;
    double kept = 0.0;
    for (std::size_t k = 0; k < table::size; ++k) {
        EXPECT_EQ(table::centroids[k], -table::centroids[table::size - 1 - k]);
        const double low = k == 0 ? -infinity : double(table::thresholds[k - 1]);
        const double high = k + 1 == table::size ? infinity : double(table::thresholds[k]);
        EXPECT_LT(low, double(table::centroids[k]));
        EXPECT_GT(high, double(table::centroids[k]));
        const double share = tail(low) - tail(high);
        // Each centroid is the mean of its cell; thresholds are midpoints, rounded to float.
        EXPECT_NEAR(double(table::centroids[k]), (density(low) - density(high)) / share, 5e-7);
        kept += share * double(table::centroids[k]) * double(table::centroids[k]);
    }
    EXPECT_NEAR(1.0 - kept, distortion, 1e-6) << Bits << " bits";
}

TEST(LloydMax, IsTheFixedPointWithThePublishedDistortion) {
    expect_best_quantiser<1>(0.363380);
    expect_best_quantiser<2>(0.117482);
    expect_best_quantiser<3>(0.034548);
    expect_best_quantiser<4>(0.009501);
    expect_best_quantiser<5>(0.002505);
}

TEST(LloydMax, KnownCentroids) {
    EXPECT_NEAR(lloyd_max<2>::centroids[3], 1.510418F, 6e-7F);
    EXPECT_NEAR(lloyd_max<3>::centroids[4], 0.245094F, 6e-7F);
    EXPECT_NEAR(lloyd_max<4>::centroids[15], 2.732590F, 6e-7F);
    EXPECT_EQ(lloyd_max<4>::thresholds[7], 0.0F);
}

} // namespace
