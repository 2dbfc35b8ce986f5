// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/norm.hpp>

#include "../../reference/attention.hpp"
#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <span>
#include <vector>

namespace {

namespace simd = kvcrush::simd;

class SquaredNorm : public kvcrush::reference::every_rung {};

TEST_P(SquaredNorm, KnownAnswers) {
    EXPECT_EQ(simd::squared_norm({}, rung()), 0.0F);
    const std::vector<float> pythagoras{3.0F, -4.0F};
    EXPECT_EQ(simd::squared_norm(pythagoras, rung()), 25.0F);
    const std::vector<float> ones(257, -1.0F);
    EXPECT_EQ(simd::squared_norm(ones, rung()), 257.0F);
}

TEST_P(SquaredNorm, EqualsTheReferenceForEverySize) {
    for (std::size_t size = 0; size < 300; ++size) {
        kvcrush::reference::guarded_buffer<float> values(size);
        for (std::size_t i = 0; i < size; ++i) {
            values[i] = (kvcrush::random_unit(1, size, i) - 0.5F) * 100.0F;
        }
        const double expected = kvcrush::reference::dot(values.span(), values.span());
        // Each of at least 8 running sums rounds size / 8 times, the square once, the tree three
        // times.
        const double bound = (static_cast<double>(size) / 8.0 + 5.0) * 0x1p-24 * expected;
        ASSERT_NEAR(static_cast<double>(simd::squared_norm(values.span(), rung())), expected, bound)
            << size;
    }
}

TEST_P(SquaredNorm, NanAndInfinityPassThrough) {
    for (const std::size_t size : std::initializer_list<std::size_t>{1U, 8U, 16U, 33U, 128U}) {
        std::vector<float> values(size, 1.0F);
        values[size - 1] = -std::numeric_limits<float>::infinity();
        EXPECT_EQ(simd::squared_norm(values, rung()), std::numeric_limits<float>::infinity());
        values[size / 2] = std::numeric_limits<float>::quiet_NaN();
        EXPECT_TRUE(std::isnan(simd::squared_norm(values, rung())));
    }
}

TEST(SquaredNorm, VectorRungsAgreeBitForBit) {
    if (simd::best() < simd::isa::avx512) {
        GTEST_SKIP() << "this CPU lacks avx512";
    }
    for (std::size_t size = 0; size < 200; ++size) {
        std::vector<float> values(size);
        for (std::size_t i = 0; i < size; ++i) {
            values[i] = kvcrush::random_unit(2, size, i);
        }
        EXPECT_EQ(simd::squared_norm(values, simd::isa::avx512),
                  simd::squared_norm(values, simd::isa::avx2));
    }
}

KVCRUSH_ON_EVERY_RUNG(SquaredNorm);

} // namespace
