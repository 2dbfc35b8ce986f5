// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/signature/key_sign.hpp>

#include "reference/key_sign.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

struct portrait {
    std::vector<std::vector<bool>> bits;
    std::vector<bool> anchor;
};

template <typename Code>
std::vector<bool> unpack(std::span<const Code> code, std::size_t num_bits) {
    constexpr std::size_t width = std::numeric_limits<Code>::digits;
    std::vector<bool> bits;
    for (std::size_t b = 0; b < code.size() * width; ++b) {
        const bool set = ((code[b / width] >> (b % width)) & 1U) != 0;
        if (b < num_bits) {
            bits.push_back(set);
        } else {
            EXPECT_FALSE(set) << "bit " << b << " of " << num_bits;
        }
    }
    return bits;
}

template <typename Code, typename Kv>
portrait
build(const key_sign_signature& signature, const Kv& kv, std::size_t head, const areas& area) {
    const problem_size size{kv.shape(), 0};
    const std::size_t num_bits = signature.num_bits(size);
    const std::size_t words = simd::words_per_code<Code>(num_bits);
    std::vector<Code> codes(words * area.num_middle(), static_cast<Code>(0xA5));
    std::vector<Code> anchor(words, static_cast<Code>(0xA5));
    test::owned_scratch memory(signature.scratch_bytes(size));
    signature.build(kv, head, area, std::span<Code>(codes), std::span<Code>(anchor), memory.get());
    portrait made;
    for (std::size_t t = 0; t < area.num_middle(); ++t) {
        made.bits.push_back(
            unpack(std::span<const Code>(codes).subspan(t * words, words), num_bits));
    }
    made.anchor = unpack(std::span<const Code>(anchor), num_bits);
    return made;
}

template <typename Kv>
std::vector<std::vector<double>> middle_keys(const Kv& kv, std::size_t head, const areas& area) {
    std::vector<std::vector<double>> keys;
    for (std::size_t t = area.middle_begin; t < area.middle_end; ++t) {
        keys.emplace_back();
        for (std::size_t c = 0; c < kv.shape().key_dim; ++c) {
            keys.back().push_back(static_cast<double>(to_float(kv.key(head, t)[c])));
        }
    }
    return keys;
}

template <typename Code, typename Kv>
void expect_reference(const key_sign_signature& signature, const Kv& kv, const areas& area) {
    const std::size_t num_bits = signature.num_bits({kv.shape(), 0});
    for (std::size_t head = 0; head < kv.shape().num_kv_heads; ++head) {
        const reference::key_signs expected =
            reference::key_sign(middle_keys(kv, head, area), kv.shape().key_dim, num_bits);
        const portrait made = build<Code>(signature, kv, head, area);
        ASSERT_EQ(expected.bits, made.bits) << "head " << head << ", " << num_bits << " bits";
        ASSERT_EQ(expected.anchor, made.anchor) << "head " << head << ", " << num_bits << " bits";
    }
}

/// One head of contiguous keys; each channel has a mean of its own.
std::vector<float> skewed_keys(std::size_t tokens, std::size_t dim, std::uint64_t seed) {
    std::vector<float> keys(tokens * dim);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        const float mean = 2.0F * random_unit(seed, 1, i % dim) - 1.0F;
        keys[i] = mean + (random_unit(seed, 2, i) - 0.5F) * 3.0F * random_unit(seed, 3, i % dim);
    }
    return keys;
}

kv_view<const float> view_of(const std::vector<float>& keys, std::size_t tokens, std::size_t dim) {
    return {keys, {}, kv_shape{1, tokens, dim, 0}};
}

TEST(KeySign, EqualsTheReferenceForEveryLayoutAndElement) {
    const kv_shape shape{2, 45, 24, 3};
    const areas area({3, 5}, shape.seq_len);
    const auto check = [&](const auto& kv) {
        expect_reference<std::uint32_t>({}, kv, area);
        expect_reference<std::uint32_t>({.channels = 0}, kv, area);
        expect_reference<std::uint8_t>({.channels = 7}, kv, area);
        expect_reference<std::uint16_t>({.channels = 16}, kv, area);
        expect_reference<std::uint64_t>({.channels = 23}, kv, area);
    };
    test::with_every_layout<float>(shape, check);
    test::with_every_layout<f16>(shape, check);
    test::with_every_layout<bf16>(shape, check);
}

TEST(KeySign, EqualsTheReferenceAtRaggedSizes) {
    for (const std::size_t dim :
         std::initializer_list<std::size_t>{1, 7, 15, 63, 64, 65, 96, 128, 200, 256, 300, 576}) {
        for (const std::size_t tokens : std::initializer_list<std::size_t>{1, 2, 5, 17, 100}) {
            const std::vector<float> keys = skewed_keys(tokens, dim, dim + tokens);
            const auto kv = view_of(keys, tokens, dim);
            for (const std::size_t channels :
                 std::initializer_list<std::size_t>{0, 1, 32, 33, 64, 100, 255, 256}) {
                expect_reference<std::uint64_t>({.channels = channels}, kv, areas({0, 0}, tokens));
            }
        }
    }
}

TEST(KeySign, NonFiniteKeysPoisonNothing) {
    constexpr float inf = std::numeric_limits<float>::infinity();
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    constexpr std::size_t tokens = 70;
    constexpr std::size_t dim = 40;
    std::vector<float> keys = skewed_keys(tokens, dim, 3);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        const std::uint64_t dice = random_bits(4, 0, i) % 40;
        keys[i] = dice == 0 ? nan : dice == 1 ? inf : dice == 2 ? -inf : dice == 3 ? -nan : keys[i];
    }
    for (std::size_t t = 0; t < tokens; ++t) {
        keys[t * dim + 5] = nan;                   // nothing finite
        keys[t * dim + 6] = t == 60 ? 1.0F : -inf; // one finite value
    }
    for (const std::size_t channels : std::initializer_list<std::size_t>{0, 8, 32, 39}) {
        expect_reference<std::uint64_t>(
            {.channels = channels}, view_of(keys, tokens, dim), areas({2, 3}, tokens));
    }
}

TEST(KeySign, ConstantChannelsAreTheStrongestUnlessTheyAreZero) {
    // Channels: constant 0, alternating, constant -0.1, constant 3, alternating around 5.
    std::vector<float> keys;
    for (std::size_t t = 0; t < 50; ++t) {
        const float swing = t % 2 == 0 ? 1.0F : -1.0F;
        keys.insert(keys.end(), {0.0F, swing, -0.1F, 3.0F, 5.0F + swing});
    }
    const auto kv = view_of(keys, 50, 5);
    const areas area({0, 0}, 50);
    const portrait two = build<std::uint8_t>({.channels = 2}, kv, 0, area);
    EXPECT_EQ((std::vector<bool>{false, true}), two.anchor); // -0.1 and 3
    const portrait three = build<std::uint8_t>({.channels = 3}, kv, 0, area);
    EXPECT_EQ((std::vector<bool>{false, true, true}), three.anchor);
    const portrait four = build<std::uint8_t>({.channels = 4}, kv, 0, area);
    EXPECT_EQ((std::vector<bool>{false, false, true, true}), four.anchor); // 0 before alternating
    EXPECT_EQ((std::vector<bool>{false, false, true, true}), four.bits[1]);
}

TEST(KeySign, EqualStrengthsGoToTheEarlierChannel) {
    std::vector<float> keys;
    for (std::size_t t = 0; t < 40; ++t) {
        const float value = static_cast<float>(t % 3) + 1.0F;
        keys.insert(keys.end(), {value, -value, 2.0F * value, value});
    }
    const portrait made =
        build<std::uint8_t>({.channels = 2}, view_of(keys, 40, 4), 0, areas({0, 0}, 40));
    EXPECT_EQ((std::vector<bool>{true, false}), made.anchor);
}

TEST(KeySign, MeansMuchLargerThanTheirDeviationsAreTold) {
    // Neighbouring floats: the sum of squares alone would lose the variance.
    std::vector<float> keys;
    for (std::size_t t = 0; t < 1000; ++t) {
        keys.insert(keys.end(),
                    {1.0F + 0x1p-23F * static_cast<float>(t % 9),
                     -1.0F - 0x1p-23F * static_cast<float>(t % 7),
                     1.0F + 0x1p-23F * static_cast<float>(t % 8)});
    }
    const portrait made =
        build<std::uint8_t>({.channels = 1}, view_of(keys, 1000, 3), 0, areas({0, 0}, 1000));
    EXPECT_EQ((std::vector<bool>{false}), made.anchor);
}

TEST(KeySign, AnEmptyMiddleGivesAnEmptyPortrait) {
    const std::vector<float> keys = skewed_keys(10, 40, 1);
    const portrait made = build<std::uint32_t>({}, view_of(keys, 10, 40), 0, areas({4, 32}, 10));
    EXPECT_TRUE(made.bits.empty());
    EXPECT_EQ(std::vector<bool>(32, false), made.anchor);
}

TEST(KeySign, CountsItsBits) {
    const problem_size narrow{{1, 10, 24, 24}, 1};
    const problem_size wide{{1, 10, 576, 512}, 1};
    EXPECT_EQ(24U, key_sign_signature{}.num_bits(narrow));
    EXPECT_EQ(24U, key_sign_signature{.channels = 0}.num_bits(narrow));
    EXPECT_EQ(32U, key_sign_signature{}.num_bits(wide));
    EXPECT_EQ(256U, key_sign_signature{.channels = 0}.num_bits(wide));
}

TEST(KeySign, RefusesMoreThan256Channels) {
    EXPECT_NO_THROW(key_sign_signature{.channels = 256}.validate());
    EXPECT_THROW(key_sign_signature{.channels = 257}.validate(), std::invalid_argument);
}

static_assert(Policy<key_sign_signature>);

} // namespace
} // namespace kvcrush
