// SPDX-License-Identifier: Apache-2.0
#include "dequantise.hpp"
#include "gguf_builder.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <tuple>
#include <vector>

namespace {

using lab::tensor_type;
using lab_test::put;

// binary16 patterns of numbers that are exact in it
constexpr std::uint16_t half_1 = 0x3C00;
constexpr std::uint16_t half_0_5 = 0x3800;
constexpr std::uint16_t half_minus_2 = 0xC000;
constexpr std::uint16_t half_smallest = 0x0001; // 2^-24

std::vector<float> floats_of(tensor_type type, const std::string& blocks, std::size_t count) {
    std::vector<float> floats(count, -99.0F);
    lab::dequantise(type, std::as_bytes(std::span(blocks.data(), blocks.size())), floats);
    return floats;
}

TEST(Dequantise, CopiesF32) {
    std::string bytes;
    put(bytes, 1.5F);
    put(bytes, -3.0F);
    EXPECT_EQ(floats_of(tensor_type::f32, bytes, 2), (std::vector<float>{1.5F, -3.0F}));
    EXPECT_TRUE(floats_of(tensor_type::f32, "", 0).empty());
}

TEST(Dequantise, WidensF16) {
    std::string bytes;
    for (const std::uint16_t bits : {half_1, half_minus_2, half_smallest}) {
        put(bytes, bits);
    }
    EXPECT_EQ(floats_of(tensor_type::f16, bytes, 3), (std::vector<float>{1.0F, -2.0F, 0x1p-24F}));
}

TEST(Dequantise, Q8Zero) {
    std::string bytes;
    put(bytes, half_0_5);
    for (int i = 0; i < 32; ++i) {
        put(bytes, static_cast<std::int8_t>(i == 31 ? -128 : i * 4));
    }
    const auto floats = floats_of(tensor_type::q8_0, bytes, 32);
    EXPECT_EQ(floats[0], 0.0F);
    EXPECT_EQ(floats[1], 2.0F);
    EXPECT_EQ(floats[30], 60.0F);
    EXPECT_EQ(floats[31], -64.0F);
}

TEST(Dequantise, Q4Zero) {
    std::string bytes;
    put(bytes, half_minus_2);
    for (int i = 0; i < 16; ++i) { // low half i, high half 15 - i
        put(bytes, static_cast<std::uint8_t>((15 - i) << 4 | i));
    }
    const auto floats = floats_of(tensor_type::q4_0, bytes, 32);
    for (int i = 0; i < 16; ++i) {
        EXPECT_EQ(floats[static_cast<std::size_t>(i)], -2.0F * static_cast<float>(i - 8));
        EXPECT_EQ(floats[static_cast<std::size_t>(i + 16)], -2.0F * static_cast<float>(7 - i));
    }
}

TEST(Dequantise, Q4One) {
    std::string bytes;
    put(bytes, half_0_5);
    put(bytes, half_minus_2);
    for (int i = 0; i < 16; ++i) {
        put(bytes, static_cast<std::uint8_t>((15 - i) << 4 | i));
    }
    const auto floats = floats_of(tensor_type::q4_1, bytes, 32);
    for (int i = 0; i < 16; ++i) {
        EXPECT_EQ(floats[static_cast<std::size_t>(i)], 0.5F * static_cast<float>(i) - 2.0F);
        EXPECT_EQ(floats[static_cast<std::size_t>(i + 16)],
                  0.5F * static_cast<float>(15 - i) - 2.0F);
    }
}

TEST(Dequantise, ReadsBlocksOneAfterTheOtherAtAnyAlignment) {
    std::string bytes = "x"; // shifts everything by one byte
    for (const std::uint16_t scale : {half_1, half_minus_2}) {
        put(bytes, scale);
        bytes += std::string(32, '\x03');
    }
    std::vector<float> floats(64);
    lab::dequantise(
        tensor_type::q8_0, std::as_bytes(std::span(bytes.data(), bytes.size())).subspan(1), floats);
    EXPECT_EQ(floats[0], 3.0F);
    EXPECT_EQ(floats[31], 3.0F);
    EXPECT_EQ(floats[32], -6.0F);
    EXPECT_EQ(floats[63], -6.0F);
}

bool finite(tensor_type type, const std::string& bytes) {
    return lab::all_finite(type, std::as_bytes(std::span(bytes.data(), bytes.size())));
}

TEST(Dequantise, FindsWhatIsNotFinite) {
    for (const std::uint32_t bits : {0x7F800000U, 0xFF800000U, 0x7F800001U, 0xFFC00000U}) {
        std::string bytes;
        put(bytes, 0.0F);
        put(bytes, 0x7F7FFFFFU);
        EXPECT_TRUE(finite(tensor_type::f32, bytes));
        put(bytes, bits);
        EXPECT_FALSE(finite(tensor_type::f32, bytes));
    }
    for (const std::uint16_t bits :
         std::initializer_list<std::uint16_t>{0x7C00, 0xFC00, 0x7C01, 0xFE00}) {
        std::string bytes;
        put(bytes, std::uint16_t{0x7BFF});
        EXPECT_TRUE(finite(tensor_type::f16, bytes));
        put(bytes, bits);
        EXPECT_FALSE(finite(tensor_type::f16, bytes));
        for (const auto& [type, bytes_in_block, with_minimum] :
             {std::tuple{tensor_type::q8_0, 32U, false},
              std::tuple{tensor_type::q4_0, 16U, false},
              std::tuple{tensor_type::q4_1, 16U, true}}) {
            // Copies: lambdas cannot capture structured bindings with clang 14.
            const std::size_t in_block = bytes_in_block;
            const bool holds_minimum = with_minimum;
            const auto block = [&](std::uint16_t scale, std::uint16_t minimum) {
                std::string stored;
                put(stored, scale);
                if (holds_minimum) {
                    put(stored, minimum);
                }
                return stored + std::string(in_block, '\xFF'); // integers are always finite
            };
            const std::string good = block(half_0_5, half_minus_2);
            EXPECT_TRUE(finite(type, good + good));
            EXPECT_FALSE(finite(type, good + block(bits, half_0_5) + good));
            EXPECT_EQ(finite(type, good + block(half_0_5, bits)), !holds_minimum);
        }
    }
    EXPECT_TRUE(finite(tensor_type::q4_1, ""));
}

} // namespace
