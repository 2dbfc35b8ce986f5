// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/rope.hpp>

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <stdexcept>

namespace kvcrush {
namespace {

static_assert(name_of(rope_pairs::half_split) == "half_split");
static_assert(name_of(rope_pairs::interleaved) == "interleaved");

TEST(RopeFrequencies, FallFromOneTowardsOneOverTheBase) {
    std::array<double, 4> frequencies{};
    rope_frequencies(10000.0, frequencies);
    EXPECT_DOUBLE_EQ(frequencies[0], 1.0);
    EXPECT_DOUBLE_EQ(frequencies[1], 0.1);
    EXPECT_DOUBLE_EQ(frequencies[2], 0.01);
    EXPECT_DOUBLE_EQ(frequencies[3], 0.001);
}

TEST(Rope, SaysHowManyPairsTurnAndHowFast) {
    EXPECT_EQ(rope{}.num_pairs(64), 32U);
    EXPECT_EQ(rope{}.num_pairs(7), 3U) << "the last channel stays";
    EXPECT_EQ(rope{.rotary_dim = 16}.num_pairs(64), 8U);
    const std::array<double, 2> scaled{0.5, 0.25};
    const rope own{.frequencies = scaled};
    EXPECT_EQ(own.num_pairs(64), 2U);
    std::array<double, 2> out{};
    own.write_frequencies(out);
    EXPECT_EQ(out, scaled);
    rope{.theta = 100.0}.write_frequencies(out);
    EXPECT_DOUBLE_EQ(out[1], 0.1);
}

TEST(Rope, RefusesWhatDoesNotFit) {
    const double inf = std::numeric_limits<double>::infinity();
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (const double theta : {0.0, -1.0, inf, nan}) {
        EXPECT_THROW(rope{.theta = theta}.validate(), std::invalid_argument) << theta;
    }
    EXPECT_THROW(rope{.rotary_dim = 3}.validate(), std::invalid_argument);
    EXPECT_THROW(rope{.rotary_dim = 8}.validate_for(7), std::invalid_argument);
    EXPECT_NO_THROW(rope{.rotary_dim = 8}.validate_for(8));
    const std::array<double, 2> scaled{0.5, 0.25};
    EXPECT_THROW((rope{.rotary_dim = 8, .frequencies = scaled}.validate()), std::invalid_argument);
    EXPECT_THROW((rope{.frequencies = scaled}.validate_for(3)), std::invalid_argument);
    for (const double wild : {inf, -inf, nan}) {
        const std::array<double, 1> frequencies{wild};
        EXPECT_THROW((rope{.frequencies = frequencies}.validate()), std::invalid_argument);
    }
}

} // namespace
} // namespace kvcrush
