// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/signature/head_signature.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

// Known answer 1a of the specification: four heads, eight tokens.
const std::vector<float> known{9, 1, 8, 2, 7, 3, 6, 4, 9, 8, 7, 6, 5, 4, 3, 2,
                               1, 2, 3, 4, 5, 6, 7, 8, 5, 5, 5, 5, 1, 1, 9, 9};

template <typename Code>
std::vector<Code> build(const head_signature& signature,
                        const std::vector<float>& scores,
                        std::size_t heads,
                        const areas& area) {
    constexpr std::size_t bits = std::numeric_limits<Code>::digits;
    std::vector<Code> codes((heads + bits - 1) / bits * area.num_middle());
    test::owned_scratch memory(signature.scratch_bytes(heads));
    signature.build(
        const_head_scores(scores, heads, area.seq_len), area, std::span<Code>(codes), memory.get());
    return codes;
}

TEST(HeadSignature, MarksTheTopHalfOfEachHead) {
    // Bit h is head h: the specification writes head 0 first, as 1101 for token 0.
    const std::vector<std::uint8_t> expected{
        0b1011, 0b1010, 0b0011, 0b0010, 0b0101, 0b0100, 0b1101, 0b1100};
    EXPECT_EQ(build<std::uint8_t>({}, known, 4, areas({0, 0}, 8)), expected);
}

TEST(HeadSignature, EveryCodeWidthHoldsTheSameBits) {
    const areas area({1, 2}, 100);
    for (const std::size_t heads : std::initializer_list<std::size_t>{1, 5, 8}) {
        const std::vector<float> scores = test::random_scores(heads * 100, heads);
        const auto narrow = build<std::uint8_t>({}, scores, heads, area);
        const auto half = build<std::uint16_t>({}, scores, heads, area);
        const auto single = build<std::uint32_t>({}, scores, heads, area);
        const auto wide = build<std::uint64_t>({}, scores, heads, area);
        for (std::size_t t = 0; t < narrow.size(); ++t) {
            EXPECT_EQ(narrow[t], half[t]);
            EXPECT_EQ(narrow[t], single[t]);
            EXPECT_EQ(narrow[t], wide[t]);
        }
    }
}

TEST(HeadSignature, TiesGoToTheEarlierTokenAndNanToNobody) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const areas all({0, 0}, 4);
    EXPECT_EQ(build<std::uint8_t>({}, {1, 1, 1, 1}, 1, all),
              (std::vector<std::uint8_t>{1, 1, 0, 0}));
    EXPECT_EQ(build<std::uint8_t>({}, {nan, nan, 1, 0}, 1, all),
              (std::vector<std::uint8_t>{0, 0, 1, 1}));
}

/// Few different scores, some of them NaN: exact in every element type.
std::vector<float> coarse_scores(std::size_t count, std::uint64_t seed) {
    std::vector<float> scores(count);
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t bits = random_bits(seed, 0, i) % 200;
        scores[i] = bits == 0 ? std::numeric_limits<float>::quiet_NaN()
                              : (static_cast<float>(bits) - 100.0F) / 64.0F;
    }
    return scores;
}

/// Both orders, and rows with a gap, give the codes of the same scores in fp32.
template <typename T, typename Code>
void expect_same_codes(const head_signature& signature, std::size_t heads, const areas& area) {
    const std::size_t tokens = area.seq_len;
    const std::vector<float> scores = coarse_scores(heads * tokens, heads + tokens);
    const std::vector<Code> expected = build<Code>(signature, scores, heads, area);
    std::vector<T> by_head(heads * (tokens + 3));
    std::vector<T> padded(heads * (tokens + 3));
    std::vector<T> by_token(heads * tokens);
    for (std::size_t h = 0; h < heads; ++h) {
        for (std::size_t t = 0; t < tokens; ++t) {
            const T score = from_float<T>(scores[h * tokens + t]);
            by_head[h * tokens + t] = score;
            padded[h * (tokens + 3) + t] = score;
            by_token[t * heads + h] = score;
        }
    }
    const auto check = [&](const score_view<T>& view) {
        std::vector<Code> codes(expected.size(), static_cast<Code>(0xA5));
        test::owned_scratch memory(signature.scratch_bytes(heads, tokens));
        signature.build(view, area, std::span<Code>(codes), memory.get());
        ASSERT_EQ(expected, codes) << heads << " heads, " << tokens << " tokens";
    };
    check(score_view<T>::heads_by_tokens(by_head, heads, tokens));
    check(score_view<T>(padded, heads, tokens, {tokens + 3, 1}));
    check(score_view<T>::tokens_by_heads(by_token, heads, tokens));
}

TEST(HeadSignature, EveryElementAndOrderGivesTheSameCodes) {
    for (const std::size_t tokens : std::initializer_list<std::size_t>{0, 1, 17, 64, 100, 131}) {
        const areas area({1, 2}, tokens);
        for (const std::size_t heads : std::initializer_list<std::size_t>{1, 7, 8, 9, 32}) {
            expect_same_codes<float, std::uint64_t>({}, heads, area);
            expect_same_codes<f16, std::uint32_t>({}, heads, area);
            expect_same_codes<bf16, std::uint64_t>({.quantile = 0.3}, heads, area);
            expect_same_codes<f16, std::uint64_t>({.rule = bit_rule::mean}, heads, area);
        }
        expect_same_codes<bf16, std::uint8_t>({}, 8, area);
        expect_same_codes<float, std::uint64_t>({}, 130, area);
    }
}

TEST(HeadSignature, TakesFourThousandHeads) {
    expect_same_codes<f16, std::uint64_t>({}, 4096, areas({1, 2}, 40));
    const std::size_t heads = 4096;
    const std::vector<float> scores = test::random_scores(heads * 50, 3);
    const std::vector<std::uint64_t> codes =
        build<std::uint64_t>({.quantile = 0.25}, scores, heads, areas({0, 0}, 50));
    for (std::size_t h = 0; h < heads; ++h) {
        std::size_t ones = 0;
        for (std::size_t t = 0; t < 50; ++t) {
            ones += (codes[t * 64 + h / 64] >> (h % 64)) & 1U;
        }
        ASSERT_EQ(12U, ones) << "head " << h;
    }
}

TEST(HeadSignature, QuantileSaysHowManyTokensAHeadMarks) {
    const std::vector<float> scores = test::random_scores(10, 1);
    for (const double quantile : {0.0, 0.25, 0.5, 1.0}) {
        std::size_t ones = 0;
        for (const std::uint8_t code :
             build<std::uint8_t>({.quantile = quantile}, scores, 1, areas({0, 0}, 10))) {
            ones += code;
        }
        EXPECT_EQ(ones, static_cast<std::size_t>(quantile * 10.0));
    }
}

TEST(HeadSignature, MeanRuleMarksWhatLiesAboveTheMean) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const head_signature by_mean{.rule = bit_rule::mean};
    EXPECT_EQ(build<std::uint8_t>(by_mean, {1, 2, 3, 10}, 1, areas({0, 0}, 4)),
              (std::vector<std::uint8_t>{0, 0, 0, 1}));
    EXPECT_EQ(build<std::uint8_t>(by_mean, {1, nan, 3, 8}, 1, areas({0, 0}, 4)),
              (std::vector<std::uint8_t>{0, 0, 0, 1}));
    EXPECT_EQ(build<std::uint8_t>(by_mean, {2, 2, 2, 2}, 1, areas({0, 0}, 4)),
              (std::vector<std::uint8_t>{0, 0, 0, 0}));
}

TEST(HeadSignature, RefusesQuantilesOutsideTheUnitInterval) {
    EXPECT_THROW(head_signature{.quantile = 1.5}.validate(), std::invalid_argument);
    EXPECT_THROW(head_signature{.quantile = -0.1}.validate(), std::invalid_argument);
    EXPECT_THROW(head_signature{.quantile = std::numeric_limits<double>::quiet_NaN()}.validate(),
                 std::invalid_argument);
}

} // namespace
} // namespace kvcrush
