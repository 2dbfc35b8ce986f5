// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/hadamard.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/turbo_quant.hpp>

#include "../../reference/turbo_quant.hpp"
#include "../simd/every_rung.hpp"
#include "codec_properties.hpp"
#include "gaussian_rows.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace {

using namespace kvcrush;

static_assert(RotatingCodec<hadamard_codec<int8_row_codec>>);
static_assert(RotatingCodec<hadamard_codec<dense_codec<f16>>>);
static_assert(!CentringCodec<hadamard_codec<int8_row_codec>>);
static_assert(!RotatingCodec<int8_row_codec>);

template <typename C>
concept Wrapped = requires { typename hadamard_codec<C>; };
static_assert(Wrapped<codebook_row_codec>);
static_assert(!Wrapped<turbo_quant_codec> && !Wrapped<hadamard_codec<int8_row_codec>>);

constexpr std::size_t dims[] = {64, 80, 96, 128, 256, 576, 1024};

/// Two tokens at a time.
struct pair_codec : int8_row_codec {
    [[nodiscard]] static constexpr std::size_t group_size() noexcept { return 2; }
};

struct HadamardCodec : reference::every_rung {};
KVCRUSH_ON_EVERY_RUNG(HadamardCodec);

TEST(Rotation, TakesTheLargestPowerOfTwoThatDividesTheRow) {
    EXPECT_EQ(rotation::block_size(64), 64U);
    EXPECT_EQ(rotation::block_size(80), 16U);
    EXPECT_EQ(rotation::block_size(96), 32U);
    EXPECT_EQ(rotation::block_size(128), 128U);
    EXPECT_EQ(rotation::block_size(576), 64U);
}

TEST(HadamardCodec, SaysWhatItNeeds) {
    using codec = hadamard_codec<int8_row_codec>;
    codec{}.validate();
    codec{}.validate_for(80);
    EXPECT_THROW(codec{}.validate_for(0), std::invalid_argument);
    EXPECT_THROW(codec{}.validate_for(20), std::invalid_argument);
    EXPECT_THROW(codec{}.validate_for(2048), std::invalid_argument);
    EXPECT_THROW(hadamard_codec<codebook_row_codec>{.inner = {.bits = 7}}.validate(),
                 std::invalid_argument);
    EXPECT_THROW(hadamard_codec<pair_codec>{}.validate(), std::invalid_argument);
    EXPECT_EQ(codec{}.group_bytes(96), int8_row_codec::group_bytes(96));
}

TEST_P(HadamardCodec, StoresWhatTheInnerCodecMakesOfTheTurnedRow) {
    for (const std::size_t dim : dims) {
        for (const bool signs : {false, true}) {
            const hadamard_codec<int8_row_codec> codec{.signs = signs, .seed = 9};
            std::vector<float> row(dim);
            reference::fill_gaussian(row, dim, 3.0F);
            std::vector<std::byte> bytes(codec.group_bytes(dim));
            std::vector<std::byte> inner(codec.group_bytes(dim));
            ASSERT_TRUE(codec.encode(row, dim, bytes, rung()));
            std::vector<float> turned = row;
            codec.rotate(turned, dim, rung());
            ASSERT_TRUE(codec.stored().encode(turned, dim, inner, rung()));
            EXPECT_EQ(bytes, inner);
            std::vector<std::byte> scalar(codec.group_bytes(dim));
            ASSERT_TRUE(codec.encode(row, dim, scalar, simd::isa::scalar));
            EXPECT_EQ(bytes, scalar);
            std::vector<float> decoded(dim);
            codec.decode(bytes, dim, decoded, rung());
            for (std::size_t i = 0; i < dim; ++i) {
                EXPECT_NEAR(decoded[i], row[i], 0.25F);
            }
        }
    }
}

TEST_P(HadamardCodec, TurningBackGivesTheRowsAgain) {
    for (const std::size_t dim : dims) {
        for (const bool signs : {false, true}) {
            const hadamard_codec<dense_codec<float>> codec{.signs = signs};
            std::vector<float> rows(3 * dim);
            reference::fill_gaussian(rows, dim);
            const std::vector<float> given = rows;
            codec.rotate(rows, dim, rung());
            EXPECT_NE(rows, given);
            // A row is turned alike, wherever it stands.
            std::vector<float> alone(given.begin() + static_cast<std::ptrdiff_t>(dim),
                                     given.begin() + static_cast<std::ptrdiff_t>(2 * dim));
            codec.rotate(alone, dim, rung());
            EXPECT_TRUE(std::equal(
                alone.begin(), alone.end(), rows.begin() + static_cast<std::ptrdiff_t>(dim)));
            double dot = 0;
            double expected = 0;
            double terms = 0;
            for (std::size_t i = 0; i < dim; ++i) {
                dot += double(rows[i]) * double(rows[dim + i]);
                expected += double(given[i]) * double(given[dim + i]);
                terms += std::abs(double(given[i]) * double(given[dim + i]));
            }
            EXPECT_NEAR(dot, expected, 1e-5 * terms);
            codec.unrotate(rows, dim, rung());
            for (std::size_t i = 0; i < rows.size(); ++i) {
                ASSERT_NEAR(rows[i], given[i], 3e-6F);
            }
        }
    }
}

TEST_P(HadamardCodec, WithoutSignsItIsItsOwnInverse) {
    const hadamard_codec<dense_codec<float>> codec{};
    std::vector<float> row(64);
    reference::fill_gaussian(row, 1);
    const std::vector<float> given = row;
    codec.rotate(row, 64, rung());
    codec.rotate(row, 64, rung());
    for (std::size_t i = 0; i < 64; ++i) {
        EXPECT_NEAR(row[i], given[i], 2e-6F);
    }
}

TEST_P(HadamardCodec, SpreadsAnOutlier) {
    const hadamard_codec<int8_row_codec> turned{};
    const int8_row_codec plain{};
    std::vector<float> row(128);
    reference::fill_gaussian(row, 2);
    row[40] = 500.0F;
    const auto error = [&](const auto& codec) {
        std::vector<std::byte> bytes(codec.group_bytes(128));
        std::vector<float> decoded(128);
        EXPECT_TRUE(codec.encode(row, 128, bytes, rung()));
        codec.decode(bytes, 128, decoded, rung());
        double sum = 0;
        for (std::size_t i = 0; i < 128; ++i) {
            sum += std::pow(double(decoded[i]) - double(row[i]), 2.0);
        }
        return sum;
    };
    EXPECT_LT(error(turned), 0.05 * error(plain));
}

TEST_P(HadamardCodec, OddRowsAndWhatItRefuses) {
    const hadamard_codec<int8_row_codec> codec{};
    for (const std::size_t dim : dims) {
        std::vector<std::byte> bytes(codec.group_bytes(dim), std::byte{0xAB});
        std::vector<float> decoded(dim);
        for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                                std::numeric_limits<float>::infinity(),
                                -std::numeric_limits<float>::infinity()}) {
            for (const std::size_t at : {std::size_t{0}, dim - 1}) {
                std::vector<float> row(dim, 1.0F);
                row[at] = bad;
                EXPECT_FALSE(codec.encode(row, dim, bytes, rung()));
            }
        }
        // The sum of the channels overflows.
        EXPECT_FALSE(codec.encode(
            std::vector<float>(dim, std::numeric_limits<float>::max()), dim, bytes, rung()));
        EXPECT_EQ(bytes, std::vector<std::byte>(bytes.size(), std::byte{0xAB}));
        for (const float value : {0.0F, 1.0F, -1e30F, 1e-40F}) {
            const std::vector<float> row(dim, value);
            ASSERT_TRUE(codec.encode(row, dim, bytes, rung()));
            codec.decode(bytes, dim, decoded, rung());
            for (const float got : decoded) {
                EXPECT_NEAR(got, value, 0.01F * std::abs(value));
            }
        }
    }
}

struct turned_int8_case {
    static hadamard_codec<int8_row_codec> codec() { return {}; }
    static bool allows(std::size_t) { return true; }
    static std::size_t bytes(std::size_t dim) { return 4 + dim; }
    static constexpr double gaussian_nmse = 0.0;
    static constexpr double rough_nmse = 1e-4;
};
struct turned_f16_case {
    static hadamard_codec<dense_codec<f16>> codec() { return {.signs = true, .seed = 3}; }
    static bool allows(std::size_t) { return true; }
    static std::size_t bytes(std::size_t dim) { return 2 * dim; }
    static constexpr double gaussian_nmse = 0.0;
    static constexpr double rough_nmse = 1e-6;
};
using cases = testing::Types<turned_int8_case, turned_f16_case>;
using namespace kvcrush::reference;
INSTANTIATE_TYPED_TEST_SUITE_P(Hadamard, CodecProperties, cases);

} // namespace
