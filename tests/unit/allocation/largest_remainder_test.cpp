// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/allocation/largest_remainder.hpp>
#include <kvcrush/core/random.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

using counts = std::vector<std::size_t>;

counts
share(const std::vector<double>& weights, std::size_t total, std::size_t low, std::size_t high) {
    counts out(weights.size(), 999);
    share_out(weights, total, low, high, out);
    return out;
}

TEST(ShareOut, KnownAnswer) {
    EXPECT_EQ(share({0.0, 0.4, 1.0, 2.0}, 40, 4, 16), (counts{4, 7, 13, 16}));
}

TEST(ShareOut, EqualRemaindersGoToTheLowerIndex) {
    EXPECT_EQ(share({1, 1, 1, 1}, 6, 0, 9), (counts{2, 2, 1, 1}));
    EXPECT_EQ(share({0, 0, 0}, 5, 1, 9), (counts{2, 2, 1})) << "no weight at all: equal shares";
}

TEST(ShareOut, FullOnesPassTheirTokensOn) {
    EXPECT_EQ(share({100, 1, 1}, 12, 0, 5), (counts{5, 4, 3}));
    EXPECT_EQ(share({100, 50, 0}, 12, 0, 5), (counts{5, 5, 2})) << "even to those without weight";
    EXPECT_EQ(share({3, 2, 1}, 15, 0, 5), (counts{5, 5, 5}));
    EXPECT_EQ(share({3, 2, 1}, 15, 5, 5), (counts{5, 5, 5}));
}

TEST(ShareOut, StrangeWeights) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double inf = std::numeric_limits<double>::infinity();
    EXPECT_EQ(share({nan, -1, 1}, 10, 1, 10), (counts{1, 1, 8}));
    EXPECT_EQ(share({inf, inf, 1}, 10, 1, 10), (counts{5, 4, 1}));
    EXPECT_EQ(share({1e308, 1e308, 1e308}, 9, 0, 9), (counts{3, 3, 3}));
    EXPECT_EQ(share({}, 0, 0, 9), (counts{}));
}

TEST(ShareOut, RefusesWhatDoesNotFit) {
    EXPECT_THROW(share({1, 1}, 7, 4, 9), std::invalid_argument);
    EXPECT_THROW(share({1, 1}, 19, 4, 9), std::invalid_argument);
    EXPECT_THROW(share({1, 1}, 10, 9, 4), std::invalid_argument);
    EXPECT_THROW(share({}, 1, 0, 9), std::invalid_argument);
    counts out(1);
    const std::vector<double> weights(2, 1.0);
    EXPECT_THROW(share_out(weights, 10, 0, 9, out), std::invalid_argument);
}

TEST(ShareOut, TotalsAreExactWithinTheBounds) {
    for (std::uint64_t seed = 0; seed < 2000; ++seed) {
        const std::size_t n = 1 + random_bits(seed, 0, 0) % 40;
        const std::size_t low = random_bits(seed, 0, 1) % 50;
        const std::size_t high = low + random_bits(seed, 0, 2) % 2000;
        const std::size_t total = n * low + random_bits(seed, 0, 3) % (n * (high - low) + 1);
        std::vector<double> weights(n);
        for (std::size_t i = 0; i < n; ++i) {
            const double unit = static_cast<double>(random_unit(seed, 1, i));
            weights[i] = seed % 3 == 0 ? unit : (seed % 3 == 1 ? unit * unit * unit * unit : 0.25);
        }
        const counts out = share(weights, total, low, high);
        ASSERT_EQ(std::accumulate(out.begin(), out.end(), std::size_t{0}), total) << seed;
        ASSERT_GE(*std::min_element(out.begin(), out.end()), low) << seed;
        ASSERT_LE(*std::max_element(out.begin(), out.end()), high) << seed;
        for (std::size_t i = 1; i < n; ++i) {
            ASSERT_FALSE(weights[i] > weights[i - 1] && out[i] < out[i - 1])
                << seed << ": more weight, fewer tokens";
        }
    }
}

} // namespace
} // namespace kvcrush
