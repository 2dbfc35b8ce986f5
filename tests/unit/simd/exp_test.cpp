// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/simd/exp.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace {

namespace simd = kvcrush::simd;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// Every `step`-th float from 0 to 88 and to -88.
std::vector<float> samples(std::uint32_t step) {
    std::vector<float> values;
    for (std::uint32_t bits = 0; bits <= std::bit_cast<std::uint32_t>(88.0F); bits += step) {
        values.push_back(std::bit_cast<float>(bits));
        values.push_back(-values.back());
    }
    return values;
}

class Exp : public kvcrush::reference::every_rung {
protected:
    static float of(float value) {
        float result = -1.0F;
        simd::exp_many({&value, 1}, {&result, 1}, rung());
        return result;
    }
};

TEST_P(Exp, StaysWithinTheStatedError) {
    const std::vector<float> in = samples(1013);
    std::vector<float> out(in.size());
    simd::exp_many(in, out, rung());
    for (std::size_t i = 0; i < in.size(); ++i) {
        const double expected = std::exp(static_cast<double>(in[i]));
        if (expected < static_cast<double>(std::numeric_limits<float>::min())) {
            ASSERT_EQ(out[i], 0.0F) << in[i];
        } else {
            ASSERT_NEAR(static_cast<double>(out[i]), expected, 0x1p-23 * expected) << in[i];
        }
    }
}

TEST_P(Exp, IsExactAtZeroAndZeroForTheSmall) {
    EXPECT_EQ(of(0.0F), 1.0F);
    EXPECT_EQ(of(-0.0F), 1.0F);
    EXPECT_EQ(of(-infinity), 0.0F);
    EXPECT_EQ(of(-std::numeric_limits<float>::max()), 0.0F);
    EXPECT_EQ(of(-1000.0F), 0.0F);
    EXPECT_EQ(of(-88.0F), 0.0F);
    EXPECT_EQ(of(std::nextafter(simd::detail::exp_lowest, -infinity)), 0.0F);
    EXPECT_GE(of(simd::detail::exp_lowest), std::numeric_limits<float>::min());
}

TEST_P(Exp, IsNeverNanOrInfinite) {
    EXPECT_EQ(of(nan), 0.0F);
    EXPECT_EQ(of(-nan), 0.0F);
    EXPECT_EQ(of(infinity), of(88.0F));
    EXPECT_EQ(of(std::numeric_limits<float>::max()), of(88.0F));
    EXPECT_TRUE(std::isfinite(of(88.0F)));
}

TEST_P(Exp, TouchesNothingBehindTheEnd) {
    for (std::size_t size = 0; size < 70; ++size) {
        kvcrush::reference::guarded_buffer<float> values(size);
        for (std::size_t i = 0; i < size; ++i) {
            values[i] = -static_cast<float>(i);
        }
        simd::exp_many(values.span(), values.span(), rung());
        for (std::size_t i = 0; i < size; ++i) {
            ASSERT_EQ(values[i], of(-static_cast<float>(i))) << i << " of " << size;
        }
    }
}

TEST(Exp, VectorRungsAgreeBitForBit) {
    if (simd::best() < simd::isa::avx512) {
        GTEST_SKIP() << "this CPU lacks avx512";
    }
    const std::vector<float> in = samples(10007);
    std::vector<float> wide(in.size());
    std::vector<float> narrow(in.size());
    simd::exp_many(in, wide, simd::isa::avx512);
    simd::exp_many(in, narrow, simd::isa::avx2);
    EXPECT_EQ(wide, narrow);
}

KVCRUSH_ON_EVERY_RUNG(Exp);

} // namespace
