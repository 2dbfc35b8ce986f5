// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/kivi.hpp>
#include <kvcrush/core/types.hpp>

#include "reference/kivi.hpp"
#include "unit/attend/stored_cache.hpp"
#include "unit/codec/codec_properties.hpp"
#include "unit/simd/every_rung.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

using reference::bits_of;
using reference::decode_group;
using reference::encode_group;
using reference::gaussian_rows;
using reference::placing;

static_assert(!RotatingCodec<kivi_key_codec> && !CentringCodec<kivi_key_codec>);

std::vector<std::byte> bytes_of(std::initializer_list<unsigned> values) {
    std::vector<std::byte> bytes;
    for (const unsigned value : values) {
        bytes.push_back(static_cast<std::byte>(value));
    }
    return bytes;
}

float half_at(std::span<const std::byte> bytes, std::size_t i) {
    f16 value;
    std::memcpy(&value, bytes.data() + 2 * i, sizeof value);
    return to_float(value);
}

// Tokens (0, -1), (1, 0), (2, 1), (3, 2.5).
TEST(KiviKeyCodec, GivesTheKnownAnswer) {
    const kivi_key_codec codec{.bits = 2, .tokens = 4};
    const std::vector<float> rows{0.0F, -1.0F, 1.0F, 0.0F, 2.0F, 1.0F, 3.0F, 2.5F};
    const auto group = encode_group(codec, rows, 2);
    ASSERT_TRUE(group.stored);
    EXPECT_EQ(group.bytes, bytes_of({0x00, 0x3C, 0xAB, 0x3C, 0x00, 0x00, 0x00, 0xBC, 0xE4, 0xE4}));
    const std::vector<float> decoded = decode_group(codec, group.bytes, 2);
    const float logits[] = {-2.0F, 1.333984375F, 4.66796875F, 8.001953125F};
    for (std::size_t t = 0; t < 4; ++t) {
        EXPECT_EQ(decoded[2 * t] + 2.0F * decoded[2 * t + 1], logits[t]) << t;
    }
}

TEST(KiviValueCodec, GivesTheKnownAnswer) {
    const kivi_value_codec codec{.bits = 2, .channels = 4};
    const auto first = encode_group(codec, std::vector<float>{0.1F, -0.2F, 0.5F, 1.0F}, 4);
    EXPECT_EQ(first.bytes, bytes_of({0x66, 0x36, 0x66, 0xB2, 0xE1}));
    const auto second = encode_group(codec, std::vector<float>(4, -1.0F), 4);
    EXPECT_EQ(second.bytes, bytes_of({0x00, 0x00, 0x00, 0xBC, 0x00}));
    const std::vector<float> a = decode_group(codec, first.bytes, 4);
    const std::vector<float> b = decode_group(codec, second.bytes, 4);
    const float wanted[] = {-0.70001221F, -0.79998779F, -0.60003662F, -0.50006104F};
    for (std::size_t c = 0; c < 4; ++c) {
        EXPECT_NEAR(0.25F * a[c] + 0.75F * b[c], wanted[c], 1e-7F) << c;
    }
}

TEST(KiviKeyCodec, StoresWhatTheReferenceComputes) {
    for (const std::size_t bits : std::initializer_list<std::size_t>{2, 4}) {
        for (const std::size_t tokens : std::initializer_list<std::size_t>{4, 12, 32, 128, 256}) {
            const kivi_key_codec codec{.bits = bits, .tokens = tokens};
            codec.validate();
            for (const std::size_t dim :
                 std::initializer_list<std::size_t>{1, 2, 31, 32, 33, 64, 80, 97}) {
                for (const auto& [name, rows] : reference::kinds_of_rows(tokens * dim)) {
                    const auto group = encode_group(codec, rows, dim);
                    ASSERT_TRUE(group.stored) << name;
                    ASSERT_EQ(group.bytes.size(), 4 * dim + tokens * dim * bits / 8);
                    const std::vector<float> decoded = decode_group(codec, group.bytes, dim);
                    for (std::size_t c = 0; c < dim; ++c) {
                        std::vector<float> channel;
                        for (std::size_t t = 0; t < tokens; ++t) {
                            channel.push_back(rows[t * dim + c]);
                        }
                        const auto wanted = reference::kivi_range(channel, bits);
                        ASSERT_EQ(static_cast<double>(half_at(group.bytes, c)), wanted.scale)
                            << name << ", channel " << c;
                        ASSERT_EQ(static_cast<double>(half_at(group.bytes, dim + c)), wanted.min)
                            << name << ", channel " << c;
                        for (std::size_t t = 0; t < tokens; ++t) {
                            const std::size_t per_byte = 8 / bits;
                            const auto byte = std::to_integer<unsigned>(
                                group.bytes[4 * dim + t / per_byte * dim + c]);
                            const double code = byte >> (t % per_byte * bits) & ((1U << bits) - 1);
                            ASSERT_NEAR(code, wanted.codes[t], 0.50001) << name;
                            const double value = wanted.scale * code + wanted.min;
                            ASSERT_NEAR(static_cast<double>(decoded[t * dim + c]),
                                        value,
                                        1e-6 * (wanted.scale * code + std::abs(wanted.min)))
                                << name;
                        }
                    }
                }
            }
        }
    }
}

TEST(KiviValueCodec, StoresWhatTheReferenceComputes) {
    for (const std::size_t bits : std::initializer_list<std::size_t>{2, 4}) {
        for (const std::size_t channels : std::initializer_list<std::size_t>{4, 16, 32, 64, 128}) {
            const kivi_value_codec codec{.bits = bits, .channels = channels};
            codec.validate();
            const std::size_t dim = 2 * channels;
            const std::size_t block = 4 + channels * bits / 8;
            for (const auto& [name, row] : reference::kinds_of_rows(dim)) {
                const auto group = encode_group(codec, row, dim);
                ASSERT_TRUE(group.stored) << name;
                ASSERT_EQ(group.bytes.size(), 2 * block);
                const std::vector<float> decoded = decode_group(codec, group.bytes, dim);
                for (std::size_t b = 0; b < 2; ++b) {
                    const auto stored = std::span(group.bytes).subspan(b * block, block);
                    const auto wanted =
                        reference::kivi_range(std::span(row).subspan(b * channels, channels), bits);
                    ASSERT_EQ(static_cast<double>(half_at(stored, 0)), wanted.scale) << name;
                    ASSERT_EQ(static_cast<double>(half_at(stored, 1)), wanted.min) << name;
                    const std::size_t bytes = channels * bits / 8;
                    for (std::size_t c = 0; c < channels; ++c) {
                        const auto byte = std::to_integer<unsigned>(stored[4 + c % bytes]);
                        const double code = byte >> (c / bytes * bits) & ((1U << bits) - 1);
                        ASSERT_NEAR(code, wanted.codes[c], 0.50001) << name;
                        ASSERT_NEAR(static_cast<double>(decoded[b * channels + c]),
                                    wanted.scale * code + wanted.min,
                                    1e-6 * (wanted.scale * code + std::abs(wanted.min)))
                            << name;
                    }
                }
            }
        }
    }
}

TEST(KiviKeyCodec, AConstantChannelHasScaleZeroAndItsOwnValue) {
    const kivi_key_codec codec{.bits = 2, .tokens = 8};
    std::vector<float> rows = gaussian_rows(8 * 64, 1);
    for (std::size_t t = 0; t < 8; ++t) {
        rows[t * 64 + 7] = -3.5F;
    }
    const auto group = encode_group(codec, rows, 64);
    EXPECT_EQ(half_at(group.bytes, 7), 0.0F);
    EXPECT_EQ(half_at(group.bytes, 64 + 7), -3.5F);
    const std::vector<float> decoded = decode_group(codec, group.bytes, 64);
    for (std::size_t t = 0; t < 8; ++t) {
        EXPECT_EQ(decoded[t * 64 + 7], -3.5F);
    }
}

// What the method is for: a channel that is large for every token costs the others nothing.
TEST(KiviKeyCodec, ALargeChannelLeavesTheOthersAlone) {
    const kivi_key_codec codec{.bits = 4, .tokens = 32};
    std::vector<float> rows = gaussian_rows(32 * 64, 2);
    const auto plain = decode_group(codec, encode_group(codec, rows, 64).bytes, 64);
    for (std::size_t t = 0; t < 32; ++t) {
        rows[t * 64 + 9] *= 1000.0F;
    }
    const auto large = decode_group(codec, encode_group(codec, rows, 64).bytes, 64);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        if (i % 64 != 9) {
            ASSERT_EQ(large[i], plain[i]);
        }
    }
}

TEST(KiviCodecs, RefuseWhatAnHalfCannotHold) {
    const kivi_key_codec keys{.tokens = 8};
    const kivi_value_codec values{};
    for (const float value : {65519.0F, -65519.0F}) {
        std::vector<float> rows = gaussian_rows(8 * 64, 3);
        rows[70] = value;
        rows[134] = -value;
        EXPECT_TRUE(encode_group(keys, rows, 64).stored);
        std::vector<float> row = gaussian_rows(64, 3);
        row[3] = value;
        row[4] = -value;
        const auto group = encode_group(values, row, 64);
        EXPECT_TRUE(group.stored);
        for (const float decoded : decode_group(values, group.bytes, 64)) {
            EXPECT_TRUE(std::isfinite(decoded));
        }
    }
    for (const float value : {65520.0F, -65520.0F, 3e38F}) {
        std::vector<float> rows = gaussian_rows(8 * 64, 3);
        rows.back() = value;
        EXPECT_FALSE(encode_group(keys, rows, 64).stored);
        EXPECT_FALSE(encode_group(values, std::span(rows).last(64), 64).stored);
    }
}

TEST(KiviCodecs, SayWhatIsWrongWithTheirParameters) {
    EXPECT_THROW((kivi_key_codec{.bits = 3}.validate()), std::invalid_argument);
    EXPECT_THROW((kivi_key_codec{.bits = 4, .tokens = 0}.validate()), std::invalid_argument);
    EXPECT_THROW((kivi_key_codec{.bits = 2, .tokens = 6}.validate()), std::invalid_argument);
    EXPECT_THROW((kivi_key_codec{.bits = 4, .tokens = 258}.validate()), std::invalid_argument);
    EXPECT_THROW((kivi_value_codec{.bits = 8}.validate()), std::invalid_argument);
    EXPECT_THROW((kivi_value_codec{.bits = 4, .channels = 3}.validate()), std::invalid_argument);
    EXPECT_THROW((kivi_value_codec{.channels = 0}.validate()), std::invalid_argument);
    EXPECT_THROW((kivi_value_codec{}.validate_for(80)), std::invalid_argument);
    EXPECT_NO_THROW((kivi_value_codec{.channels = 16}.validate_for(80)));
}

TEST(KiviCodecs, TakeTheBitsOfTheirFormulas) {
    EXPECT_EQ(bits_per_element(kivi_key_codec{.bits = 2, .tokens = 32}, 128), 3.0);
    EXPECT_EQ(bits_per_element(kivi_key_codec{.bits = 2, .tokens = 64}, 128), 2.5);
    EXPECT_EQ(bits_per_element(kivi_key_codec{.bits = 4, .tokens = 128}, 128), 4.25);
    EXPECT_EQ(bits_per_element(kivi_value_codec{.bits = 4, .channels = 32}, 128), 5.0);
    EXPECT_EQ(bits_per_element(kivi_value_codec{.bits = 2, .channels = 128}, 128), 2.25);
}

struct KiviAttention : reference::every_rung {};
KVCRUSH_ON_EVERY_RUNG(KiviAttention);

TEST_P(KiviAttention, IsThatOverTheDecodedRows) {
    const dense_codec<f16> f16_rows{};
    for (const std::size_t bits : std::initializer_list<std::size_t>{2, 4}) {
        const kivi_key_codec keys{.bits = bits, .tokens = 32};
        const kivi_key_codec few{.bits = bits, .tokens = 8};
        const kivi_value_codec values{.bits = bits, .channels = 32};
        for (const std::size_t group : std::initializer_list<std::size_t>{1, 3, 4, 7, 8}) {
            for (const std::size_t dim : std::initializer_list<std::size_t>{64, 96, 128, 256}) {
                reference::stored_cache cache(dim, dim, rung());
                cache.begin_head();
                cache.add_segment(f16_rows, f16_rows, 4);
                cache.add_segment(keys, values, 96);
                cache.add_segment(few, values, 72, placing::in_a_row, true);
                cache.add_segment(f16_rows, f16_rows, 7);
                reference::expect_exact(cache,
                                        group,
                                        1,
                                        std::to_string(bits) + " bits, dim " + std::to_string(dim),
                                        2e-5);
            }
        }
        for (const placing place : {placing::strided, placing::selected, placing::paged}) {
            reference::stored_cache cache(80, 64, rung());
            cache.begin_head();
            cache.add_segment(few, values, 64, place);
            cache.add_segment(keys, few, 130, place);
            reference::expect_exact(cache, 4, 3, "placing");
        }
    }
}

template <std::size_t Bits, std::size_t Tokens, int ErrorPpm>
struct key_case {
    static kivi_key_codec codec() { return {.bits = Bits, .tokens = Tokens}; }
    static bool allows(std::size_t) { return true; }
    static std::size_t bytes(std::size_t dim) { return Tokens * dim * Bits / 8 + 4 * dim; }
    static constexpr double gaussian_nmse = ErrorPpm * 1e-6;
    static constexpr double rough_nmse = 1e-2;
};
template <std::size_t Bits, std::size_t Channels, int ErrorPpm>
struct value_case {
    static kivi_value_codec codec() { return {.bits = Bits, .channels = Channels}; }
    static bool allows(std::size_t dim) { return dim % Channels == 0; }
    static std::size_t bytes(std::size_t dim) { return dim * Bits / 8 + dim / Channels * 4; }
    static constexpr double gaussian_nmse = ErrorPpm * 1e-6;
    static constexpr double rough_nmse = 1e-2;
};
using cases = testing::Types<key_case<4, 32, 6000>,
                             key_case<2, 32, 153000>,
                             key_case<4, 8, 0>,
                             key_case<2, 128, 0>,
                             value_case<4, 32, 6000>,
                             value_case<4, 128, 9900>,
                             value_case<2, 32, 153000>,
                             value_case<2, 16, 0>>;

} // namespace

namespace reference {
INSTANTIATE_TYPED_TEST_SUITE_P(Kivi, CodecProperties, cases);
} // namespace reference
} // namespace kvcrush
