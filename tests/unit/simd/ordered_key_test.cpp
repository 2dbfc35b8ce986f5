// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/ordered_key.hpp>

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace {

using kvcrush::simd::ordered_key;
using limits = std::numeric_limits<float>;

static_assert(ordered_key(0.0F) == ordered_key(-0.0F));
static_assert(ordered_key(limits::quiet_NaN()) == 0 && ordered_key(-limits::quiet_NaN()) == 0);
static_assert(ordered_key(-limits::infinity()) > 0);
static_assert(ordered_key(limits::infinity()) < kvcrush::simd::no_key);

TEST(OrderedKey, AscendsWithTheScore) {
    constexpr std::array scores{-limits::infinity(),
                                limits::lowest(),
                                -1.0F,
                                -limits::min(),
                                -limits::denorm_min(),
                                0.0F,
                                limits::denorm_min(),
                                limits::min(),
                                1.0F,
                                1.0F + limits::epsilon(),
                                limits::max(),
                                limits::infinity()};
    for (std::size_t i = 0; i + 1 < scores.size(); ++i) {
        EXPECT_LT(ordered_key(scores[i]), ordered_key(scores[i + 1])) << scores[i];
    }
}

TEST(OrderedKey, ComparesAsFloatsDo) {
    for (std::uint64_t i = 0; i < 200000; ++i) {
        const auto left =
            std::bit_cast<float>(static_cast<std::uint32_t>(kvcrush::random_bits(1, 0, i)));
        const auto right =
            std::bit_cast<float>(static_cast<std::uint32_t>(kvcrush::random_bits(1, 1, i)));
        if (left == left && right == right) {
            ASSERT_EQ(left < right, ordered_key(left) < ordered_key(right)) << left << " " << right;
            ASSERT_EQ(left == right, ordered_key(left) == ordered_key(right))
                << left << " " << right;
        }
    }
}

} // namespace
