// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/largest_magnitude.hpp>

#include "reference/guarded_buffer.hpp"
#include "unit/simd/every_rung.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>

namespace kvcrush {
namespace {

class LargestMagnitude : public reference::every_rung {};

TEST_P(LargestMagnitude, IsThatOfAnyElementOfAnySign) {
    for (std::size_t size = 0; size <= 131; ++size) {
        reference::guarded_buffer<float> values(size);
        float largest = 0.0F;
        for (std::size_t i = 0; i < size; ++i) {
            values[i] = 2.0F * random_unit(1, size, i) - 1.0F;
            largest = (std::max)(largest, std::abs(values[i]));
        }
        const std::span<const float> all = values.span();
        EXPECT_EQ(simd::largest_magnitude(all, rung()), largest) << size;
        for (std::size_t i = 0; i < size; ++i) {
            const float before = values[i];
            values[i] = -7.0F;
            ASSERT_EQ(simd::largest_magnitude(all, rung()), 7.0F) << i << " of " << size;
            values[i] = before;
        }
    }
}

TEST_P(LargestMagnitude, IsInfinityOrNanIfThereIsOne) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    for (std::size_t size = 1; size <= 67; ++size) {
        reference::guarded_buffer<float> values(size);
        const std::span<const float> all = values.span();
        for (std::size_t i = 0; i < size; ++i) {
            values[i] = -infinity;
            ASSERT_EQ(simd::largest_magnitude(all, rung()), infinity) << i << " of " << size;
            values[size / 2] = -nan;
            ASSERT_TRUE(std::isnan(simd::largest_magnitude(all, rung()))) << i << " of " << size;
            values[i] = 1.0F;
            values[size / 2] = 1.0F;
        }
    }
}

TEST_P(LargestMagnitude, KeepsSubnormals) {
    reference::guarded_buffer<float> values(33);
    values[32] = -std::numeric_limits<float>::denorm_min();
    EXPECT_EQ(simd::largest_magnitude(values.span(), rung()),
              std::numeric_limits<float>::denorm_min());
}

KVCRUSH_ON_EVERY_RUNG(LargestMagnitude);

} // namespace
} // namespace kvcrush
