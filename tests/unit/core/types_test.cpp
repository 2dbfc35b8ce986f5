// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/types.hpp>

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

namespace {

using kvcrush::bf16;
using kvcrush::f16;

static_assert(kvcrush::Element<float> && kvcrush::Element<const f16> && kvcrush::Element<bf16>);
static_assert(!kvcrush::Element<double> && !kvcrush::Element<std::uint16_t>);
static_assert(sizeof(f16) == 2 && std::is_trivially_copyable_v<f16> &&
              std::is_trivially_copyable_v<bf16>);
// Known values (IEEE 754-2019, table 3.5, and the truncated binary32 format).
static_assert(kvcrush::to_float(f16{0x3C00}) == 1.0F && kvcrush::to_float(f16{0xC000}) == -2.0F);
static_assert(kvcrush::to_float(f16{0x7BFF}) == 65504.0F &&
              kvcrush::to_float(f16{0x0001}) == 0x1p-24F);
static_assert(kvcrush::to_float(f16{0x0400}) == 0x1p-14F &&
              kvcrush::to_float(f16{0x03FF}) == 0x1.FF8p-15F);
static_assert(kvcrush::to_float(bf16{0x3F80}) == 1.0F && kvcrush::to_float(bf16{0xC040}) == -3.0F);
static_assert(kvcrush::to_f16(65519.0F).bits == 0x7BFF && kvcrush::to_f16(65520.0F).bits == 0x7C00);
static_assert(kvcrush::to_f16(0x1p-25F).bits == 0x0000 &&
              kvcrush::to_f16(0x1.000002p-25F).bits == 0x0001);
static_assert(kvcrush::to_f16(1.0F + 0x1p-11F).bits == 0x3C00 &&
              kvcrush::to_f16(1.0F + 0x3p-11F).bits == 0x3C02);
static_assert(kvcrush::to_bf16(1.0F + 0x1p-8F).bits == 0x3F80 &&
              kvcrush::to_bf16(1.0F + 0x3p-8F).bits == 0x3F82);
static_assert(kvcrush::to_f16(-0.0F).bits == 0x8000 && kvcrush::to_bf16(-0.0F).bits == 0x8000);

/// The value of a 16-bit float by its definition, in double.
double value_of(std::uint16_t bits, int exponent_bits) {
    const int fraction_bits = 15 - exponent_bits;
    const int bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = (bits >> fraction_bits) & ((1 << exponent_bits) - 1);
    const int fraction = bits & ((1 << fraction_bits) - 1);
    const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
    if (exponent == (1 << exponent_bits) - 1) {
        return fraction == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
    }
    const int unit = (exponent == 0 ? 1 : exponent) - bias - fraction_bits;
    return sign * std::ldexp(exponent == 0 ? fraction : fraction + (1 << fraction_bits), unit);
}

TEST(Types, EveryHalfAndBfloatHasTheValueOfItsDefinition) {
    for (std::uint32_t i = 0; i < 65536; ++i) {
        const auto bits = static_cast<std::uint16_t>(i);
        for (const auto& [actual, expected] :
             {std::pair{kvcrush::to_float(f16{bits}), value_of(bits, 5)},
              std::pair{kvcrush::to_float(bf16{bits}), value_of(bits, 8)}}) {
            if (std::isnan(expected)) {
                ASSERT_TRUE(std::isnan(actual)) << i;
            } else {
                ASSERT_EQ(expected, static_cast<double>(actual)) << i;
                ASSERT_EQ(std::signbit(expected), std::signbit(actual)) << i;
            }
        }
    }
}

TEST(Types, EveryHalfAndBfloatSurvivesTheWayToFloatAndBack) {
    for (std::uint32_t i = 0; i < 65536; ++i) {
        const auto bits = static_cast<std::uint16_t>(i);
        const bool half_nan = (bits & 0x7FFFU) > 0x7C00U; // a NaN becomes quiet on the way
        const bool bfloat_nan = (bits & 0x7FFFU) > 0x7F80U;
        ASSERT_EQ(half_nan ? bits | 0x200U : bits,
                  kvcrush::to_f16(kvcrush::to_float(f16{bits})).bits);
        ASSERT_EQ(bfloat_nan ? bits | 0x40U : bits,
                  kvcrush::to_bf16(kvcrush::to_float(bf16{bits})).bits);
    }
}

/// The nearer of the two neighbours of `value` in a 16-bit format, the even one in the middle.
std::uint16_t nearest(float value, int exponent_bits) {
    const auto infinity = static_cast<std::uint16_t>(exponent_bits == 5 ? 0x7C00 : 0x7F80);
    const double magnitude = std::fabs(static_cast<double>(value));
    std::uint16_t low = 0; // the largest value that is not above
    for (int bit = 14; bit >= 0; --bit) {
        const auto next = static_cast<std::uint16_t>(low | (1 << bit));
        if (next < infinity && value_of(next, exponent_bits) <= magnitude) {
            low = next;
        }
    }
    const auto high = static_cast<std::uint16_t>(low + 1);
    // Infinity is rounded to as if it were the next number of an unbounded exponent.
    const double step = high == infinity
                            ? value_of(low, exponent_bits) - value_of(low - 1, exponent_bits)
                            : value_of(high, exponent_bits) - value_of(low, exponent_bits);
    const double above = magnitude - value_of(low, exponent_bits);
    const bool up = above > step / 2 || (above == step / 2 && (low & 1) != 0);
    return static_cast<std::uint16_t>((up ? high : low) | (std::signbit(value) ? 0x8000 : 0));
}

TEST(Types, RoundsToTheNearestAndTiesToEven) {
    for (std::uint64_t i = 0; i < 200000; ++i) {
        auto bits = static_cast<std::uint32_t>(kvcrush::random_bits(3, 0, i));
        if (i % 2 == 0) { // exponents of halves, often exactly in the middle
            bits = (bits & 0x80FFFFFFU) | ((96U + static_cast<std::uint32_t>(i / 2 % 50)) << 23);
            bits &= i % 4 == 0 ? 0xFFFFF000U : 0xFFFFFFFFU;
        }
        const auto value = std::bit_cast<float>(bits);
        if (std::isfinite(value)) {
            ASSERT_EQ(nearest(value, 5), kvcrush::to_f16(value).bits) << value;
            ASSERT_EQ(nearest(value, 8), kvcrush::to_bf16(value).bits) << value;
        }
    }
}

TEST(Types, NanAndInfinityStayWhatTheyAre) {
    for (const std::uint32_t sign : {0U, 0x80000000U}) {
        const auto half_sign = static_cast<std::uint16_t>(sign >> 16);
        const auto infinity = std::bit_cast<float>(sign | 0x7F800000U);
        EXPECT_EQ(half_sign | 0x7C00, kvcrush::to_f16(infinity).bits);
        EXPECT_EQ(half_sign | 0x7F80, kvcrush::to_bf16(infinity).bits);
        for (const std::uint32_t payload : {1U, 0x1FFFU, 0x3FFFFFU, 0x400000U, 0x7FFFFFU}) {
            const auto nan = std::bit_cast<float>(sign | 0x7F800000U | payload);
            // Quiet, with the upper bits of the payload, as hardware does it.
            EXPECT_EQ(half_sign | 0x7E00U | (payload >> 13), kvcrush::to_f16(nan).bits);
            EXPECT_EQ(half_sign | 0x7FC0U | (payload >> 16), kvcrush::to_bf16(nan).bits);
        }
    }
}

} // namespace
