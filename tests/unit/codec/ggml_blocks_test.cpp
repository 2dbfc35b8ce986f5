// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/codec/iq4_nl.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q4_1.hpp>
#include <kvcrush/codec/q5_0.hpp>
#include <kvcrush/codec/q5_1.hpp>
#include <kvcrush/codec/q8_0.hpp>

#include "reference/ggml_blocks.hpp"
#include "unit/codec/codec_properties.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace kvcrush::reference {
namespace {

/// Cases have also: bytes of a block that ggml's own code was run on, and the least magnitude that it cannot store.
template <typename C, std::size_t BlockBytes>
struct ggml_case {
    using codec_type = C;
    static C codec() { return {}; }
    static bool allows(std::size_t dim) { return dim % 32 == 0; }
    static std::size_t bytes(std::size_t dim) { return dim / 32 * BlockBytes; }
};
struct q8_0_case : ggml_case<q8_0_codec, 34> {
    static constexpr double gaussian_nmse = 2.8e-5;
    static constexpr double rough_nmse = 1e-6;
    static constexpr std::string_view known_block =
        "8924a4d607386ab9eb1c4e7fcf003163b2e4154778c8f92a5cabdd0e4071c0f22355";
    static constexpr float refused_from = 65520.0F * 127.0F;
};
struct q4_0_case : ggml_case<q4_0_codec, 18> {
    static constexpr double gaussian_nmse = 0.0073;
    static constexpr double rough_nmse = 1e-5;
    static constexpr std::string_view known_block = "80b47e4b08c4815c29d6a3704b18c5926d3a";
    static constexpr float refused_from = 65520.0F * 8.0F;
};
struct q4_1_case : ggml_case<q4_1_codec, 20> {
    static constexpr double gaussian_nmse = 0.0060;
    static constexpr double rough_nmse = 1e-5;
    static constexpr std::string_view known_block = "223480be80b3f72a6e91d5084c7fb3e62a5d91c4";
    static constexpr float refused_from = 65520.0F; // as a minimum
};
struct q5_0_case : ggml_case<q5_0_codec, 22> {
    static constexpr double gaussian_nmse = 0.00179;
    static constexpr double rough_nmse = 1e-5;
    static constexpr std::string_view known_block = "80b063cc9831dc751f7913b943bc46e086208a24ca54";
    static constexpr float refused_from = 65520.0F * 16.0F;
};
struct q5_1_case : ggml_case<q5_1_codec, 24> {
    static constexpr double gaussian_nmse = 0.00141;
    static constexpr double rough_nmse = 1e-5;
    static constexpr std::string_view known_block =
        "003080be983367cc0077ee55cc33aa1188ff66dd44bb2299";
    static constexpr float refused_from = 65520.0F;
};
struct iq4_nl_case : ggml_case<iq4_nl_codec, 18> {
    static constexpr double gaussian_nmse = 0.0060;
    static constexpr double rough_nmse = 0.0025; // no entry is 0: beside 1e4 the least is 79
    static constexpr std::string_view known_block = "8da46e3b07c4914d2ae6b2703c18d4915d2a";
    static constexpr float refused_from = 65520.0F * 127.0F; // alone in its block
};
using ggml_cases =
    testing::Types<q8_0_case, q4_0_case, q4_1_case, q5_0_case, q5_1_case, iq4_nl_case>;
INSTANTIATE_TYPED_TEST_SUITE_P(Ggml, CodecProperties, ggml_cases);

constexpr std::array rungs{simd::isa::scalar, simd::isa::avx2, simd::isa::avx512};

[[nodiscard]] std::string hex(const std::vector<std::byte>& bytes) {
    std::string digits;
    for (const std::byte byte : bytes) {
        digits += "0123456789abcdef"[std::to_integer<unsigned>(byte) >> 4];
        digits += "0123456789abcdef"[std::to_integer<unsigned>(byte) & 15U];
    }
    return digits;
}

template <typename Case>
class GgmlBlocks : public testing::Test {
protected:
    using codec_type = typename Case::codec_type;
    static constexpr std::string_view type = codec_type::name;

    /// Bytes of a row by the reference.
    static std::vector<std::byte> reference_bytes(const std::vector<float>& row) {
        std::vector<std::byte> bytes;
        for (std::size_t b = 0; b < row.size(); b += 32) {
            for (const std::uint8_t byte : ggml_block_bytes(type, row.data() + b)) {
                bytes.push_back(static_cast<std::byte>(byte));
            }
        }
        return bytes;
    }

    /// A row of zeros but for `value` at one place.
    static bool is_stored_with(float value, std::size_t at, std::size_t dim, simd::isa rung) {
        std::vector<float> row(dim);
        row[at] = value;
        const auto group = encode_group(codec_type{}, row, dim, rung, std::byte{0x77});
        if (!group.stored) {
            for (const std::byte byte : group.bytes) {
                EXPECT_EQ(byte, std::byte{0x77});
            }
        }
        return group.stored;
    }
};
TYPED_TEST_SUITE(GgmlBlocks, ggml_cases);

TYPED_TEST(GgmlBlocks, HasTheBytesOfGgmlsQuantisers) {
    std::vector<float> row(32);
    for (std::size_t i = 0; i < row.size(); ++i) {
        row[i] = (static_cast<float>(7 * i % 32) - 13.0F) / 8.0F;
    }
    for (const auto rung : rungs) {
        const auto group = encode_group(TypeParam::codec(), row, 32, rung);
        EXPECT_TRUE(group.stored);
        EXPECT_EQ(hex(group.bytes), TypeParam::known_block) << simd::name_of(rung);
    }
}

TYPED_TEST(GgmlBlocks, EncodesAsTheReferenceDoes) {
    for (std::size_t dim = 32; dim <= 11 * 32; dim += 32) {
        for (const auto& [name, row] : kinds_of_rows(dim)) {
            const std::vector<std::byte> wanted = this->reference_bytes(row);
            for (const auto rung : rungs) {
                const auto group = encode_group(TypeParam::codec(), row, dim, rung);
                ASSERT_TRUE(group.stored) << name;
                ASSERT_EQ(hex(group.bytes), hex(wanted))
                    << name << ", dim " << dim << ", " << simd::name_of(rung);
            }
        }
    }
}

TYPED_TEST(GgmlBlocks, ReadsAsTheReferenceDoes) {
    // Any bytes are a row; scales that are infinite or NaN are left out.
    constexpr std::size_t dim = 256;
    std::vector<std::byte> bytes(TypeParam::codec().group_bytes(dim));
    const std::size_t block_bytes = bytes.size() * 32 / dim;
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            bytes[i] = static_cast<std::byte>(random_bits(seed, 3, i) & 0xFFU);
        }
        for (std::size_t b = 0; b < bytes.size(); b += block_bytes) {
            bytes[b + 1] &= std::byte{0xBF};
            bytes[b + 3] &= std::byte{0xBF};
        }
        for (const auto rung : rungs) {
            const std::vector<float> row = decode_group(TypeParam::codec(), bytes, dim, rung);
            for (std::size_t i = 0; i < dim; ++i) {
                const auto* const block =
                    reinterpret_cast<const std::uint8_t*>(bytes.data()) + i / 32 * block_bytes;
                ASSERT_EQ(row[i], static_cast<float>(ggml_element(this->type, block, i % 32)))
                    << simd::name_of(rung) << " at " << i;
            }
        }
    }
}

TYPED_TEST(GgmlBlocks, RefusesScalesThatF16CannotHold) {
    constexpr float huge = std::numeric_limits<float>::max();
    constexpr float limit = TypeParam::refused_from;
    for (const auto rung : rungs) {
        for (const std::size_t dim : std::initializer_list<std::size_t>{32, 128, 160}) {
            for (const std::size_t at : {std::size_t{0}, dim / 2, dim - 1}) {
                EXPECT_TRUE(this->is_stored_with(-limit * 0.999F, at, dim, rung));
                EXPECT_FALSE(this->is_stored_with(-limit, at, dim, rung));
                EXPECT_FALSE(this->is_stored_with(huge, at, dim, rung));
                EXPECT_FALSE(this->is_stored_with(-huge, at, dim, rung));
            }
        }
    }
}

TYPED_TEST(GgmlBlocks, AsksForAMultipleOf32) {
    try {
        TypeParam::codec().validate_for(80);
        FAIL();
    } catch (const std::invalid_argument& error) {
        const std::string message = error.what();
        EXPECT_NE(message.find(std::string(this->type)), std::string::npos) << message;
        EXPECT_NE(message.find("80"), std::string::npos) << message;
        EXPECT_NE(message.find("multiple of 32"), std::string::npos) << message;
    }
}

/// The code of `value` in a block whose scale is set by `extreme`.
template <typename C>
int code_of_second(C codec, float extreme, float value, simd::isa rung) {
    std::vector<float> row(32);
    row[0] = extreme;
    row[1] = value;
    const auto group = encode_group(codec, row, 32, rung);
    constexpr std::size_t second = 3; // after d
    return static_cast<std::int8_t>(std::to_integer<std::uint8_t>(group.bytes[second]));
}

TEST(Q80, RoundsHalvesAwayFromZero) {
    for (const auto rung : rungs) {
        // 127 makes d and its inverse exactly 1.
        for (int k = 0; k < 127; ++k) {
            const float half = static_cast<float>(k) + 0.5F;
            EXPECT_EQ(code_of_second(q8_0_codec{}, 127.0F, half, rung), k + 1);
            EXPECT_EQ(code_of_second(q8_0_codec{}, 127.0F, -half, rung), -k - 1);
            EXPECT_EQ(code_of_second(q8_0_codec{}, 127.0F, std::nextafter(half, 0.0F), rung), k);
            EXPECT_EQ(code_of_second(q8_0_codec{}, 127.0F, -std::nextafter(half, 0.0F), rung), -k);
        }
    }
}

TEST(Q40, TakesItsSignFromTheFirstOfEqualMagnitudes) {
    for (const auto rung : rungs) {
        for (std::size_t at = 0; at < 31; ++at) {
            std::vector<float> row(32, 0.25F);
            row[at] = -2.0F;
            row[at + 1] = 2.0F;
            const auto negative = encode_group(q4_0_codec{}, row, 32, rung);
            EXPECT_EQ(decode_group(q4_0_codec{}, negative.bytes, 32, rung)[at], -2.0F);
            EXPECT_EQ(decode_group(q4_0_codec{}, negative.bytes, 32, rung)[at + 1], 1.75F);
            std::swap(row[at], row[at + 1]);
            const auto positive = encode_group(q4_0_codec{}, row, 32, rung);
            EXPECT_EQ(decode_group(q4_0_codec{}, positive.bytes, 32, rung)[at], 2.0F);
            EXPECT_EQ(decode_group(q4_0_codec{}, positive.bytes, 32, rung)[at + 1], -1.75F);
        }
    }
}

TEST(Q40, StoresZerosWithAScaleOfMinusZero) {
    for (const auto rung : rungs) {
        for (const float zero : {0.0F, -0.0F}) {
            const auto group = encode_group(q4_0_codec{}, std::vector<float>(32, zero), 32, rung);
            EXPECT_EQ(hex(group.bytes), "008088888888888888888888888888888888");
        }
    }
}

TEST(Iq4Nl, TakesTheHigherOfTwoEntries) {
    // -127 makes d0 and its inverse exactly 1.
    for (const auto rung : rungs) {
        for (int k = 0; k < 15; ++k) {
            const float border =
                0.5F * static_cast<float>(iq4_nl_entries[k] + iq4_nl_entries[k + 1]);
            const auto code = [&](float value) {
                return code_of_second(iq4_nl_codec{}, -127.0F, value, rung) & 15;
            };
            EXPECT_EQ(code(border), k + 1) << border;
            EXPECT_EQ(code(std::nextafter(border, 200.0F)), k + 1) << border;
            EXPECT_EQ(code(std::nextafter(border, -200.0F)), k) << border;
        }
    }
}

TEST(Iq4Nl, StoresBlocksThatAreTooSmallAsZeros) {
    for (const auto rung : rungs) {
        const std::vector<float> row(32, 0.9e-15F);
        const auto group = encode_group(iq4_nl_codec{}, row, 32, rung);
        EXPECT_EQ(hex(group.bytes), "000088888888888888888888888888888888");
    }
}

} // namespace
} // namespace kvcrush::reference
