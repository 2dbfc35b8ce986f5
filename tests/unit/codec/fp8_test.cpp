// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/codec/fp8.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/types.hpp>

#include "unit/codec/codec_properties.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

template <typename C>
unsigned encoded(const C& codec, float value) {
    const auto group = reference::encode_group(codec, std::vector<float>{value}, 1);
    EXPECT_TRUE(group.stored) << value;
    return std::to_integer<unsigned>(group.bytes[0]);
}
template <typename C>
float decoded(const C& codec, unsigned code) {
    const std::vector<std::byte> bytes{static_cast<std::byte>(code)};
    return reference::decode_group(codec, bytes, 1)[0];
}

TEST(Fp8Codecs, GiveTheKnownAnswers) {
    struct answer {
        float value;
        unsigned e4m3;
        unsigned e5m2;
    };
    const answer answers[] = {{0.1F, 0x1D, 0x2E},
                              {0.3F, 0x2A, 0x35},
                              {1.0F, 0x38, 0x3C},
                              {-1.0F, 0xB8, 0xBC},
                              {3.14159F, 0x45, 0x42},
                              {-17.0F, 0xD8, 0xCC},
                              {240.0F, 0x77, 0x5C},
                              {448.0F, 0x7E, 0x5F},
                              {500.0F, 0x7E, 0x60},
                              {0x1p-9F, 0x01, 0x18},
                              {0x1p-10F, 0x00, 0x14},
                              {0.0F, 0x00, 0x00},
                              {-0.0F, 0x80, 0x80},
                              {1e6F, 0x7E, 0x7B},
                              {-3e38F, 0xFE, 0xFB},
                              {1e-40F, 0x00, 0x00}};
    for (const answer& a : answers) {
        EXPECT_EQ(encoded(fp8_e4m3_codec{}, a.value), a.e4m3) << a.value;
        EXPECT_EQ(encoded(fp8_e5m2_codec{}, a.value), a.e5m2) << a.value;
    }
}

/// What a code stands for, by its definition.
double meaning(unsigned code, int mantissa_bits, int bias) {
    const int exponent = static_cast<int>(code & 0x7FU) >> mantissa_bits;
    const int fraction = static_cast<int>(code & 0x7FU) & ((1 << mantissa_bits) - 1);
    const double magnitude = exponent == 0 ? std::ldexp(fraction, 1 - bias - mantissa_bits)
                                           : std::ldexp((1 << mantissa_bits) + fraction,
                                                        exponent - bias - mantissa_bits);
    return (code & 0x80U) != 0 ? -magnitude : magnitude;
}

template <typename C>
void expect_all_codes(const C& codec, int mantissa_bits, int bias, unsigned first_special) {
    for (unsigned code = 0; code < 256; ++code) {
        const float value = decoded(codec, code);
        if ((code & 0x7FU) >= first_special) {
            EXPECT_FALSE(std::isfinite(value)) << code;
            EXPECT_EQ(std::isinf(value), code == 0x7C || code == 0xFC) << code;
            continue;
        }
        EXPECT_EQ(static_cast<double>(value),
                  static_cast<double>(codec.scale) * meaning(code, mantissa_bits, bias))
            << code;
        EXPECT_EQ(encoded(codec, value), code);
    }
}

TEST(Fp8Codecs, TakeEveryCodeThereAndBack) {
    for (const float scale : {1.0F, 0.25F, 64.0F}) {
        expect_all_codes(fp8_e4m3_codec{scale}, 3, 7, 0x7F);
        expect_all_codes(fp8_e5m2_codec{scale}, 2, 15, 0x7C);
    }
}

/// The nearest finite code by trying them all, even codes before odd ones.
unsigned nearest(double value, int mantissa_bits, int bias, unsigned first_special) {
    unsigned best = 0;
    for (unsigned code = 1; code < first_special; ++code) {
        const double gain = std::abs(std::abs(value) - meaning(best, mantissa_bits, bias)) -
                            std::abs(std::abs(value) - meaning(code, mantissa_bits, bias));
        if (gain > 0 || (gain == 0 && code % 2 == 0)) {
            best = code;
        }
    }
    return best | (std::signbit(value) ? 0x80U : 0U);
}

TEST(Fp8Codecs, RoundToTheNearestAndTiesToEven) {
    std::vector<float> values;
    for (std::uint64_t i = 0; i < 4000; ++i) {
        const double size = std::exp2(60.0 * static_cast<double>(random_unit(1, 0, i)) - 30.0);
        values.push_back(static_cast<float>(i % 2 == 0 ? size : -size));
    }
    for (const int mantissa_bits : {2, 3}) { // halfway between neighbours, and just beside
        const int bias = mantissa_bits == 2 ? 15 : 7;
        for (unsigned code = 0; code < 0x7BU; ++code) {
            const auto middle = static_cast<float>(0.5 * (meaning(code, mantissa_bits, bias) +
                                                          meaning(code + 1, mantissa_bits, bias)));
            values.push_back(middle);
            values.push_back(-std::nextafter(middle, 0.0F));
            values.push_back(std::nextafter(middle, 1e9F));
        }
    }
    for (const float value : values) {
        ASSERT_EQ(encoded(fp8_e4m3_codec{}, value), nearest(value, 3, 7, 0x7F)) << value;
        ASSERT_EQ(encoded(fp8_e5m2_codec{}, value), nearest(value, 2, 15, 0x7C)) << value;
    }
}

TEST(Fp8Codecs, E5m2IsTheUpperHalfOfAnF16) {
    for (unsigned code = 0; code < 256; ++code) {
        const f16 half{static_cast<std::uint16_t>(code << 8)};
        const float value = decoded(fp8_e5m2_codec{}, code);
        if (std::isnan(value)) {
            EXPECT_TRUE(std::isnan(to_float(half)));
        } else {
            EXPECT_EQ(value, to_float(half)) << code;
        }
    }
}

TEST(Fp8Codecs, TheScaleMovesTheRange) {
    EXPECT_EQ(decoded(fp8_e4m3_codec{}, encoded(fp8_e4m3_codec{}, 1000.0F)), 448.0F);
    const fp8_e4m3_codec wide{.scale = 4.0F};
    EXPECT_EQ(decoded(wide, encoded(wide, 1000.0F)), 1024.0F);
    EXPECT_EQ(decoded(wide, encoded(wide, 3e38F)), 1792.0F);
    // x / scale overflows: still the largest number.
    const fp8_e4m3_codec narrow{.scale = 1e-30F};
    EXPECT_EQ(encoded(narrow, 3e38F), 0x7EU);
    EXPECT_EQ(encoded(narrow, -3e38F), 0xFEU);
}

TEST(Fp8Codecs, SayWhatIsWrongWithTheirScale) {
    for (const float scale : {0.0F,
                              -1.0F,
                              std::numeric_limits<float>::quiet_NaN(),
                              std::numeric_limits<float>::infinity(),
                              1e37F}) {
        EXPECT_THROW(fp8_e4m3_codec{scale}.validate(), std::invalid_argument) << scale;
        EXPECT_THROW(fp8_e5m2_codec{scale}.validate(), std::invalid_argument) << scale;
    }
    EXPECT_NO_THROW(fp8_e4m3_codec{0.01F}.validate());
}

/// Without a scale, large constants and outliers saturate.
struct e4m3_case {
    static fp8_e4m3_codec codec() { return {}; }
    static bool allows(std::size_t) { return true; }
    static std::size_t bytes(std::size_t dim) { return dim; }
    static constexpr double gaussian_nmse = 7.1e-4;
    static constexpr double rough_nmse = 1.0;
};
struct scaled_e4m3_case {
    static fp8_e4m3_codec codec() { return {.scale = 32.0F}; }
    static bool allows(std::size_t) { return true; }
    static std::size_t bytes(std::size_t dim) { return dim; }
    static constexpr double gaussian_nmse = 0.0;
    static constexpr double rough_nmse = 4e-3;
};
struct e5m2_case {
    static fp8_e5m2_codec codec() { return {}; }
    static bool allows(std::size_t) { return true; }
    static std::size_t bytes(std::size_t dim) { return dim; }
    static constexpr double gaussian_nmse = 2.78e-3;
    static constexpr double rough_nmse = 1.6e-2;
};
using cases = testing::Types<e4m3_case, scaled_e4m3_case, e5m2_case>;

} // namespace

namespace reference {
INSTANTIATE_TYPED_TEST_SUITE_P(Fp8, CodecProperties, cases);
} // namespace reference
} // namespace kvcrush
