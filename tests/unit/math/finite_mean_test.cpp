// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/math/finite_mean.hpp>

#include <gtest/gtest.h>

#include <limits>
#include <span>
#include <vector>

namespace kvcrush {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float inf = std::numeric_limits<float>::infinity();

TEST(FiniteMean, PassesOverWhatIsNotFinite) {
    const std::vector<float> scores{1.0F, nan, 2.0F, inf, 6.0F, -inf};
    const counted_mean found = finite_mean(scores);
    EXPECT_DOUBLE_EQ(found.mean, 3.0);
    EXPECT_EQ(found.count, 3U);
}

TEST(FiniteMean, IsZeroOfNothing) {
    const std::vector<float> scores{nan, inf, -inf};
    EXPECT_EQ(finite_mean(scores).mean, 0.0);
    EXPECT_EQ(finite_mean(scores).count, 0U);
    EXPECT_EQ(finite_mean({}).mean, 0.0);
}

TEST(FiniteMean, SumsBeyondTheLargestFloat) {
    const float largest = (std::numeric_limits<float>::max)();
    EXPECT_DOUBLE_EQ(finite_mean(std::vector<float>(3, largest)).mean, double{largest});
}

} // namespace
} // namespace kvcrush
