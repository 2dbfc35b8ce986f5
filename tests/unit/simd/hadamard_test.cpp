// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/hadamard.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "../../reference/turbo_quant.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

namespace {

using namespace kvcrush;
using reference::guarded_buffer;

constexpr std::size_t largest_block = 2048;

struct Hadamard : reference::every_rung {
    static guarded_buffer<float>& fill(guarded_buffer<float>& rows, std::uint64_t seed) {
        for (std::size_t i = 0; i < rows.span().size(); ++i) {
            rows[i] = random_unit(seed, 1, i) * 4.0F - 2.0F;
        }
        return rows;
    }
};
KVCRUSH_ON_EVERY_RUNG(Hadamard);

TEST_P(Hadamard, KnownAnswer) {
    std::vector<float> row{1, 2, 3, 4};
    simd::hadamard(row, 4, 4, {}, rung());
    EXPECT_EQ(row, (std::vector<float>{5, -1, -2, 0}));
    simd::hadamard(row, 4, 4, {}, rung());
    EXPECT_EQ(row, (std::vector<float>{1, 2, 3, 4}));
}

TEST_P(Hadamard, IsTheMatrixAndTheSameAsScalarBitForBit) {
    for (std::size_t block = 1; block <= largest_block; block *= 2) {
        for (const std::size_t blocks : std::initializer_list<std::size_t>{1, 3, 5}) {
            const std::size_t dim = block * blocks;
            const std::size_t count = 2;
            std::vector<std::uint64_t> before((dim + 63) / 64);
            std::vector<std::uint64_t> after((dim + 63) / 64);
            for (std::size_t w = 0; w < before.size(); ++w) {
                before[w] = random_bits(1, 2, w);
                after[w] = random_bits(1, 3, w);
            }
            for (const simd::hadamard_signs signs : {simd::hadamard_signs{},
                                                     {before.data(), nullptr},
                                                     {nullptr, after.data()},
                                                     {before.data(), after.data()}}) {
                guarded_buffer<float> rows(dim * count);
                guarded_buffer<float> scalar(dim * count);
                fill(rows, block);
                fill(scalar, block);
                const std::vector<float> given(rows.span().begin(), rows.span().end());
                simd::hadamard(rows.span(), dim, block, signs, rung());
                simd::hadamard(scalar.span(), dim, block, signs, simd::isa::scalar);
                ASSERT_EQ(std::memcmp(&rows[0], &scalar[0], dim * count * sizeof(float)), 0)
                    << "block " << block << " of " << dim;
                guarded_buffer<float> elsewhere(dim * count);
                simd::hadamard(given, elsewhere.span(), dim, block, signs, rung());
                ASSERT_EQ(std::memcmp(&rows[0], &elsewhere[0], dim * count * sizeof(float)), 0);
                if (block <= 256) {
                    const std::vector<double> expected =
                        reference::hadamard(given, dim, block, signs.before, signs.after);
                    for (std::size_t i = 0; i < expected.size(); ++i) {
                        ASSERT_NEAR(rows[i], expected[i], 2e-6 * std::sqrt(double(block)));
                    }
                }
                simd::hadamard(rows.span(), dim, block, {signs.after, signs.before}, rung());
                for (std::size_t i = 0; i < given.size(); ++i) {
                    ASSERT_NEAR(rows[i], given[i], 3e-6) << "block " << block << " of " << dim;
                }
            }
        }
    }
}

TEST_P(Hadamard, PreservesDotProducts) {
    for (const std::size_t block : std::initializer_list<std::size_t>{8, 16, 32, 64, 128, 256}) {
        guarded_buffer<float> a(block);
        guarded_buffer<float> b(block);
        fill(a, 1);
        fill(b, 2);
        const auto dot = [&] {
            double sum = 0;
            for (std::size_t i = 0; i < block; ++i) {
                sum += double(a[i]) * double(b[i]);
            }
            return sum;
        };
        const double expected = dot();
        simd::hadamard(a.span(), block, block, {}, rung());
        simd::hadamard(b.span(), block, block, {}, rung());
        EXPECT_NEAR(dot(), expected, 1e-5 * double(block));
    }
}

TEST_P(Hadamard, KeepsZerosAndSubnormalsAndSpreadsNanOverItsBlockOnly) {
    guarded_buffer<float> rows(64);
    rows[3] = std::numeric_limits<float>::quiet_NaN();
    rows[17] = std::numeric_limits<float>::infinity();
    rows[32] = std::numeric_limits<float>::denorm_min() * 64.0F;
    simd::hadamard(rows.span(), 64, 16, {}, rung());
    for (std::size_t i = 0; i < 16; ++i) {
        EXPECT_TRUE(std::isnan(rows[i]));
        EXPECT_FALSE(std::isfinite(rows[16 + i]));
        EXPECT_EQ(std::abs(rows[32 + i]), std::numeric_limits<float>::denorm_min() * 16.0F);
        EXPECT_EQ(rows[48 + i], 0.0F);
    }
}

TEST_P(Hadamard, NoRowsTouchNothing) {
    guarded_buffer<float> around(64); // where no rows would begin, and up to an unreadable page
    fill(around, 4);
    const std::vector<float> given(around.span().begin(), around.span().end());
    const std::uint64_t signs = ~std::uint64_t{0};
    for (const std::size_t at : std::initializer_list<std::size_t>{0, 64}) {
        const std::span<float> none = around.span().subspan(at, 0);
        simd::hadamard(none, 64, 64, {&signs, &signs}, rung());
        simd::hadamard(std::span<const float>(none), none, 64, 64, {&signs, &signs}, rung());
    }
    EXPECT_EQ(std::vector<float>(around.span().begin(), around.span().end()), given);
}

} // namespace
