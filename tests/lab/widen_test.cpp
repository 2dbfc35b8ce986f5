// SPDX-License-Identifier: Apache-2.0
#include "widen.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

TEST(Widen, IsExactForEveryBitPatternAtEveryTail) {
    std::vector<kvcrush::f16> halves(1U << 16U);
    for (std::size_t i = 0; i < halves.size(); ++i) {
        halves[i].bits = static_cast<std::uint16_t>(i);
    }
    std::vector<float> floats(halves.size(), -99.0F);
    lab::widen(halves.data(), halves.size(), floats.data());
    for (std::size_t i = 0; i < halves.size(); ++i) {
        const float expected = kvcrush::to_float(halves[i]);
        if (std::isnan(expected)) {
            EXPECT_TRUE(std::isnan(floats[i]));
        } else {
            EXPECT_EQ(std::bit_cast<std::uint32_t>(floats[i]),
                      std::bit_cast<std::uint32_t>(expected));
        }
    }
    for (std::size_t count = 0; count < 20; ++count) { // nothing behind the end is written
        std::vector<float> few(21, -99.0F);
        lab::widen(halves.data() + 0x3C00, count, few.data());
        for (std::size_t i = 0; i < few.size(); ++i) {
            EXPECT_EQ(few[i], i < count ? kvcrush::to_float(halves[0x3C00 + i]) : -99.0F);
        }
    }
}

} // namespace
