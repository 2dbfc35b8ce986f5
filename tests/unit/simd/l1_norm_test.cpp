// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/l1_norm.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <vector>

namespace {

namespace simd = kvcrush::simd;

class L1Norm : public kvcrush::reference::every_rung {};

TEST_P(L1Norm, EqualsTheReferenceForEverySize) {
    for (std::size_t size = 0; size < 300; ++size) {
        kvcrush::reference::guarded_buffer<float> values(size);
        double expected = 0.0;
        for (std::size_t i = 0; i < size; ++i) {
            values[i] = (kvcrush::random_unit(1, size, i) - 0.5F) * 100.0F;
            expected += static_cast<double>(std::fabs(values[i]));
        }
        // Each running sum rounds size / 32 + 1 times, the tree five times.
        const double bound = (static_cast<double>(size) / 32.0 + 6.0) * 0x1p-24 * expected;
        ASSERT_NEAR(static_cast<double>(simd::l1_norm(values.span(), rung())), expected, bound)
            << size;
    }
}

TEST_P(L1Norm, RungsAgreeBitForBit) {
    for (std::size_t size = 0; size < 200; ++size) {
        std::vector<float> values(size);
        for (std::size_t i = 0; i < size; ++i) {
            values[i] = kvcrush::random_unit(2, size, i) - 0.5F;
        }
        EXPECT_EQ(simd::l1_norm(values, rung()), simd::l1_norm(values, simd::isa::scalar));
    }
}

TEST_P(L1Norm, NanAndInfinityPassThrough) {
    for (const std::size_t size : std::initializer_list<std::size_t>{1, 8, 16, 33, 128}) {
        std::vector<float> values(size, 1.0F);
        values[size - 1] = -std::numeric_limits<float>::infinity();
        EXPECT_EQ(simd::l1_norm(values, rung()), std::numeric_limits<float>::infinity());
        values[size / 2] = std::numeric_limits<float>::quiet_NaN();
        EXPECT_TRUE(std::isnan(simd::l1_norm(values, rung())));
    }
}

KVCRUSH_ON_EVERY_RUNG(L1Norm);

} // namespace
