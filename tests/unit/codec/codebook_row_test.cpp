// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/codec/codebook_row.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "../../reference/turbo_quant.hpp"
#include "../simd/every_rung.hpp"
#include "codec_properties.hpp"
#include "gaussian_rows.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace {

using namespace kvcrush;
using reference::guarded_buffer;

std::span<const float> positive_of(std::size_t bits) {
    return bits == 2   ? std::span<const float>(detail::positive_centroids<2>)
           : bits == 3 ? std::span<const float>(detail::positive_centroids<3>)
           : bits == 4 ? std::span<const float>(detail::positive_centroids<4>)
                       : std::span<const float>(detail::positive_centroids<5>);
}

/// Decoded value of the f16 norm.
float norm_of(std::span<const std::byte> bytes) {
    f16 norm;
    std::memcpy(&norm, bytes.data(), 2);
    return to_float(norm);
}

struct CodebookRow : reference::every_rung {};
KVCRUSH_ON_EVERY_RUNG(CodebookRow);

TEST(CodebookRow, SaysWhatItNeeds) {
    for (const std::size_t bits : std::initializer_list<std::size_t>{0, 1, 6, 8}) {
        EXPECT_THROW(codebook_row_codec{.bits = bits}.validate(), std::invalid_argument);
    }
    EXPECT_THROW(codebook_row_codec{}.validate_for(0), std::invalid_argument);
    try {
        codebook_row_codec{.bits = 3}.validate_for(100);
        FAIL();
    } catch (const std::invalid_argument& error) {
        EXPECT_STREQ(error.what(),
                     "kvcrush::codebook_row: rows have 100 channels; 3 bits need a multiple of 8");
    }
    codebook_row_codec{.bits = 2}.validate_for(100);
    codebook_row_codec{.bits = 4}.validate_for(90);
    EXPECT_THROW(codebook_row_codec{.bits = 4}.validate_for(91), std::invalid_argument);
}

TEST(CodebookRow, SizesAreTheFormula) {
    EXPECT_EQ(codebook_row_codec{.bits = 4}.group_bytes(128), 66U);
    EXPECT_EQ(codebook_row_codec{.bits = 3}.group_bytes(128), 50U);
    EXPECT_EQ(codebook_row_codec{.bits = 2}.group_bytes(128), 34U);
    EXPECT_DOUBLE_EQ(bits_per_element(codebook_row_codec{.bits = 3}, 128), 3.125);
}

TEST_P(CodebookRow, KnownAnswer) {
    const std::vector<float> row{1.5909903F,
                                 -0.8838835F,
                                 2.6516504F,
                                 2.2980971F,
                                 1.2374369F,
                                 2.2980971F,
                                 0.1767767F,
                                 1.9445436F};
    const codebook_row_codec plain{.bits = 2, .correct_norm = false};
    std::vector<std::byte> bytes(4);
    ASSERT_TRUE(plain.encode(row, 8, bytes, rung()));
    EXPECT_EQ(std::to_integer<int>(bytes[2]), 0xF6);
    EXPECT_EQ(std::to_integer<int>(bytes[3]), 0xEE);
    EXPECT_NEAR(norm_of(bytes), 5.1234754F, 0.002F);
    const codebook_row_codec corrected{.bits = 2};
    ASSERT_TRUE(corrected.encode(row, 8, bytes, rung()));
    EXPECT_EQ(std::to_integer<int>(bytes[2]), 0xF6);
    EXPECT_NEAR(norm_of(bytes), 5.1234754F / 1.1149823F, 0.002F);
}

TEST_P(CodebookRow, AgreesWithTheReferenceAndWithScalarBitForBit) {
    for (const std::size_t bits : std::initializer_list<std::size_t>{2, 3, 4, 5}) {
        for (const std::size_t dim : std::initializer_list<std::size_t>{
                 2, 4, 8, 12, 16, 18, 24, 40, 64, 72, 80, 96, 100, 120, 128, 130, 256, 1000}) {
            for (const bool correct : {false, true}) {
                const codebook_row_codec codec{.bits = bits, .correct_norm = correct};
                if (bits * dim % 8 != 0) {
                    EXPECT_THROW(codec.validate_for(dim), std::invalid_argument);
                    continue;
                }
                for (std::uint64_t seed = 0; seed < 20; ++seed) {
                    guarded_buffer<float> row(dim);
                    reference::fill_gaussian(row.span(), seed, 3.0F);
                    if (seed == 1) {
                        row[dim / 2] = 1000.0F;
                    }
                    guarded_buffer<std::byte> bytes(codec.group_bytes(dim));
                    guarded_buffer<std::byte> scalar(codec.group_bytes(dim));
                    ASSERT_TRUE(codec.encode(row.span(), dim, bytes.span(), rung()));
                    ASSERT_TRUE(codec.encode(row.span(), dim, scalar.span(), simd::isa::scalar));
                    ASSERT_TRUE(std::ranges::equal(bytes.span(), scalar.span()))
                        << bits << " bits, dim " << dim << ", seed " << seed;
                    const reference::codebook_row expected = reference::encode_codebook_row(
                        std::span<const float>(row.span()), positive_of(bits), correct);
                    ASSERT_NEAR(norm_of(bytes.span()) / expected.norm, 1.0, 6e-4);
                    std::size_t different = 0;
                    for (std::size_t i = 0; i < dim; ++i) {
                        std::size_t code = 0;
                        for (std::size_t b = 0; b < bits; ++b) {
                            const std::size_t at = bits * i + b;
                            code |= std::to_integer<std::size_t>(bytes[2 + at / 8] >> (at % 8) &
                                                                 std::byte{1})
                                    << b;
                        }
                        different += code != static_cast<std::size_t>(expected.codes[i]) ? 1U : 0U;
                    }
                    ASSERT_EQ(different, 0U) << bits << " bits, dim " << dim << ", seed " << seed;
                    guarded_buffer<float> decoded(dim);
                    guarded_buffer<float> decoded_scalar(dim);
                    codec.decode(bytes.span(), dim, decoded.span(), rung());
                    codec.decode(bytes.span(), dim, decoded_scalar.span(), simd::isa::scalar);
                    ASSERT_EQ(std::memcmp(&decoded[0], &decoded_scalar[0], dim * 4), 0);
                    for (std::size_t i = 0; i < dim; ++i) {
                        ASSERT_NEAR(
                            decoded[i], expected.decoded[i], 1e-3 * std::abs(expected.decoded[i]));
                    }
                }
            }
        }
    }
}

TEST_P(CodebookRow, AValueOnAThresholdTakesTheUpperCode) {
    // Zero is the threshold in the middle, with either sign.
    const codebook_row_codec codec{.bits = 4};
    std::vector<float> row(16, 0.0F);
    row[0] = 1.0F;
    row[2] = -0.0F;
    std::vector<std::byte> bytes(codec.group_bytes(16));
    ASSERT_TRUE(codec.encode(row, 16, bytes, rung()));
    EXPECT_EQ(std::to_integer<int>(bytes[2]), 0x8F);
    for (std::size_t i = 3; i < bytes.size(); ++i) {
        EXPECT_EQ(std::to_integer<int>(bytes[i]), 0x88);
    }
}

TEST_P(CodebookRow, CorrectedRowsKeepTheirLength) {
    for (const std::size_t bits : std::initializer_list<std::size_t>{2, 3, 4, 5}) {
        const codebook_row_codec codec{.bits = bits};
        std::vector<float> row(128);
        reference::fill_gaussian(row, bits, 2.0F);
        std::vector<std::byte> bytes(codec.group_bytes(128));
        std::vector<float> decoded(128);
        ASSERT_TRUE(codec.encode(row, 128, bytes, rung()));
        codec.decode(bytes, 128, decoded, rung());
        EXPECT_NEAR(simd::square_sum(decoded) / simd::square_sum(row), 1.0, 1.1e-3);
    }
}

TEST_P(CodebookRow, OddRows) {
    for (const std::size_t bits : std::initializer_list<std::size_t>{2, 3, 4, 5}) {
        const codebook_row_codec codec{.bits = bits};
        std::vector<std::byte> bytes(codec.group_bytes(64), std::byte{0xAB});
        std::vector<float> row(64, 0.0F);
        std::vector<float> decoded(64, 1.0F);
        // Zeros, and what f16 cannot hold as a norm, are zeros.
        for (const float value : {0.0F, 1e-12F, std::numeric_limits<float>::denorm_min()}) {
            std::ranges::fill(row, value);
            ASSERT_TRUE(codec.encode(row, 64, bytes, rung()));
            codec.decode(bytes, 64, decoded, rung());
            EXPECT_EQ(decoded, std::vector<float>(64, 0.0F));
        }
        // Constant rows are exact but for the norm.
        for (const float value : {1.0F, -3.0F, 1e-3F, 5000.0F}) {
            std::ranges::fill(row, value);
            ASSERT_TRUE(codec.encode(row, 64, bytes, rung()));
            codec.decode(bytes, 64, decoded, rung());
            for (const float got : decoded) {
                EXPECT_NEAR(got / value, 1.0F, 1e-3F);
            }
        }
    }
}

TEST_P(CodebookRow, RefusesWhatItCannotHoldAndWritesNothing) {
    const float bad[] = {std::numeric_limits<float>::quiet_NaN(),
                         std::numeric_limits<float>::infinity(),
                         -std::numeric_limits<float>::infinity(),
                         std::numeric_limits<float>::max(),
                         1e6F};
    for (const std::size_t bits : std::initializer_list<std::size_t>{2, 3, 4, 5}) {
        const codebook_row_codec codec{.bits = bits};
        for (const std::size_t dim : std::initializer_list<std::size_t>{8, 64, 72}) {
            for (const float value : bad) {
                for (const std::size_t at : {std::size_t{0}, dim - 1}) {
                    std::vector<float> row(dim, 1.0F);
                    row[at] = value;
                    std::vector<std::byte> bytes(codec.group_bytes(dim), std::byte{0xAB});
                    EXPECT_FALSE(codec.encode(row, dim, bytes, rung()));
                    EXPECT_EQ(bytes, std::vector<std::byte>(bytes.size(), std::byte{0xAB}));
                }
            }
        }
        // A spike of 50000 fits as a norm, but not once that is corrected for 2 bits.
        std::vector<float> row(128, 0.0F);
        row[5] = 50000.0F;
        std::vector<std::byte> bytes(codec.group_bytes(128), std::byte{0xAB});
        const bool fits = codec.encode(row, 128, bytes, rung());
        if (!fits) {
            EXPECT_EQ(bytes, std::vector<std::byte>(bytes.size(), std::byte{0xAB}));
        }
        EXPECT_EQ(fits, codec.encode(row, 128, bytes, simd::isa::scalar));
        const codebook_row_codec plain{.bits = bits, .correct_norm = false};
        EXPECT_TRUE(plain.encode(row, 128, bytes, rung()));
        if (bits == 2) {
            EXPECT_FALSE(fits);
        }
    }
}

template <std::size_t Bits>
struct codebook_case {
    static codebook_row_codec codec() { return {.bits = Bits}; }
    static bool allows(std::size_t) { return true; }
    static std::size_t bytes(std::size_t dim) { return 2 + Bits * dim / 8; }
    static constexpr double gaussian_nmse = Bits == 2 ? 0.117 : Bits == 3 ? 0.0335 : 0.0092;
    /// A row that was not turned, all in one channel, is what this format must not be given.
    static constexpr double rough_nmse = 2.0;
};
using codebook_cases = testing::Types<codebook_case<2>, codebook_case<3>, codebook_case<4>>;
using namespace kvcrush::reference;
INSTANTIATE_TYPED_TEST_SUITE_P(CodebookRow, CodecProperties, codebook_cases);

} // namespace
