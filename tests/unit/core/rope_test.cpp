// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/rope.hpp>

#include <gtest/gtest.h>

#include <array>

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

} // namespace
} // namespace kvcrush
