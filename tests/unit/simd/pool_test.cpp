// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/pool.hpp>

#include "../../reference/attention.hpp"
#include "../../reference/guarded_buffer.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace {

namespace simd = kvcrush::simd;
using kvcrush::reference::guarded_buffer;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr std::array<std::size_t, 20> sizes{0,  1,  2,  3,  5,  7,  8,  9,  15,  16,
                                            17, 31, 32, 33, 63, 64, 65, 99, 128, 300};
constexpr std::array<std::size_t, 12> kernels{1, 3, 5, 7, 9, 15, 17, 31, 33, 63, 127, 1001};

void fill(std::span<float> values, std::uint64_t seed) {
    for (std::size_t i = 0; i < values.size(); ++i) {
        values[i] = kvcrush::random_unit(seed, 0, i) - 0.5F;
    }
}

class Pool : public kvcrush::reference::every_rung {
protected:
    static std::vector<float> max_of(const std::vector<float>& in, std::size_t kernel) {
        std::vector<float> out(in.size());
        simd::max_pool(in, out, kernel, rung());
        return out;
    }
    static std::vector<float> average_of(const std::vector<float>& in, std::size_t kernel) {
        std::vector<float> out(in.size());
        simd::avg_pool(in, out, kernel, rung());
        return out;
    }
};

TEST_P(Pool, KnownAnswers) {
    EXPECT_EQ(max_of({1, 3, 2, 0, 5, 4}, 3), (std::vector<float>{3, 3, 3, 5, 5, 5}));
    EXPECT_EQ(max_of({1, 3, 2, 0, 5, 4}, 1), (std::vector<float>{1, 3, 2, 0, 5, 4}));
    EXPECT_EQ(max_of({-1, -3}, 99), (std::vector<float>{-1, -1}));
    EXPECT_EQ(average_of({3, 3, 3, 9}, 3), (std::vector<float>{2, 3, 5, 4}));
    EXPECT_EQ(average_of({1, 3, 2}, 1), (std::vector<float>{1, 3, 2}));
    EXPECT_EQ(average_of({5, 10}, 5), (std::vector<float>{3, 3}));
}

TEST_P(Pool, MaximumEqualsTheReference) {
    for (const std::size_t size : sizes) {
        guarded_buffer<float> in(size);
        guarded_buffer<float> out(size);
        fill(in.span(), size);
        for (const std::size_t kernel : kernels) {
            simd::max_pool(in.span(), out.span(), kernel, rung());
            const std::vector<float> expected = kvcrush::reference::max_pool(in.span(), kernel);
            for (std::size_t i = 0; i < size; ++i) {
                ASSERT_EQ(out[i], expected[i])
                    << "kernel " << kernel << ", token " << i << " of " << size;
            }
        }
    }
}

TEST_P(Pool, MaximumTreatsNanAsLowest) {
    for (const std::size_t size : sizes) {
        std::vector<float> in(size);
        fill(in, size);
        for (std::size_t i = 0; i < size; ++i) {
            const std::uint64_t draw = kvcrush::random_bits(7, size, i) % 4;
            in[i] = draw == 0 ? in[i] : draw == 1 ? -infinity : nan;
        }
        for (const std::size_t kernel : kernels) {
            EXPECT_EQ(max_of(in, kernel), kvcrush::reference::max_pool(in, kernel))
                << kernel << " " << size;
        }
    }
    EXPECT_EQ(max_of({nan, nan, nan}, 3), std::vector<float>(3, -infinity));
    EXPECT_EQ(max_of({nan}, 1), std::vector<float>{-infinity});
    EXPECT_EQ(max_of({0, infinity, nan}, 3), std::vector<float>(3, infinity));
}

TEST_P(Pool, AverageEqualsTheReference) {
    for (const std::size_t size : sizes) {
        guarded_buffer<float> in(size);
        guarded_buffer<float> out(size);
        fill(in.span(), size);
        for (const std::size_t kernel : kernels) {
            simd::avg_pool(in.span(), out.span(), kernel, rung());
            const std::vector<double> expected = kvcrush::reference::avg_pool(in.span(), kernel);
            // At most size additions of values below 0.5, each rounded by 2^-24 of the sum, and the
            // division.
            const auto terms = static_cast<double>(std::min(size, kernel) + 1);
            const double bound = terms * terms * 0x1p-25 / static_cast<double>(kernel);
            for (std::size_t i = 0; i < size; ++i) {
                ASSERT_NEAR(static_cast<double>(out[i]), expected[i], bound)
                    << "kernel " << kernel << ", token " << i << " of " << size;
            }
        }
    }
}

TEST_P(Pool, AveragePassesNanToItsNeighboursOnly) {
    std::vector<float> in(80, 1.0F);
    in[40] = nan;
    const std::vector<float> out = average_of(in, 5);
    for (std::size_t i = 0; i < in.size(); ++i) {
        EXPECT_EQ(std::isnan(out[i]), i >= 38 && i <= 42) << i;
    }
}

TEST_P(Pool, RungsAgreeBitForBit) {
    std::vector<float> in(300);
    fill(in, 9);
    for (const std::size_t kernel : kernels) {
        std::vector<float> expected(in.size());
        simd::max_pool(in, expected, kernel, simd::isa::scalar);
        EXPECT_EQ(max_of(in, kernel), expected) << kernel;
        simd::avg_pool(in, expected, kernel, simd::isa::scalar);
        EXPECT_EQ(average_of(in, kernel), expected) << kernel;
    }
}

KVCRUSH_ON_EVERY_RUNG(Pool);

} // namespace
