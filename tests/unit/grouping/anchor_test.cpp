// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/budget.hpp>
#include <kvcrush/grouping/anchor.hpp>
#include <kvcrush/signature/head_signature.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <initializer_list>
#include <vector>

namespace kvcrush {
namespace {

template <typename Code>
std::vector<Code>
make(const anchor& kind, const std::vector<Code>& codes, std::size_t bits, std::size_t words = 1) {
    std::vector<Code> out(words);
    kind.make(std::span<const Code>(codes), bits, std::span<Code>(out));
    return out;
}

TEST(Anchor, FixedKinds) {
    using codes = std::vector<std::uint16_t>;
    EXPECT_EQ(make<std::uint16_t>({anchor_kind::zeros}, {1, 2}, 9), (codes{0}));
    EXPECT_EQ(make<std::uint16_t>({anchor_kind::ones}, {1, 2}, 9), (codes{0x1FF}));
    EXPECT_EQ(make<std::uint16_t>({anchor_kind::alternate}, {1, 2}, 9), (codes{0b010101010}));
}

TEST(Anchor, MeanOfSpecificationCodes) {
    // 1010 1100 1110 0010 0000 -> 1010, written with slot 0 first.
    const std::vector<std::uint8_t> codes{0b0101, 0b0011, 0b0111, 0b0100, 0b0000};
    EXPECT_EQ(make<std::uint8_t>({anchor_kind::mean}, codes, 4).front(), 0b0101);
    EXPECT_EQ(make<std::uint8_t>({anchor_kind::inverse_mean}, codes, 4).front(), 0b1010);
}

TEST(Anchor, HalfIsNeitherMeanNorInverseMean) {
    const std::vector<std::uint8_t> codes{1, 0, 1, 0};
    EXPECT_EQ(make<std::uint8_t>({anchor_kind::mean}, codes, 1).front(), 0);
    EXPECT_EQ(make<std::uint8_t>({anchor_kind::inverse_mean}, codes, 1).front(), 0);
}

TEST(Anchor, MeanOfTokenSignaturesIsAllZerosUpToHalfAndAllOnesAbove) {
    for (const std::size_t tokens : std::initializer_list<std::size_t>{7, 8, 64, 101}) {
        const std::vector<float> scores = test::random_scores(5 * tokens, tokens);
        for (const double quantile : {0.25, 0.5, 0.7, 0.9}) {
            const head_signature signature{.quantile = quantile};
            std::vector<std::uint8_t> codes(tokens);
            test::owned_scratch memory(signature.scratch_bytes(5));
            signature.build(const_head_scores(scores, 5, tokens),
                            areas({0, 0}, tokens),
                            std::span(codes),
                            memory.get());
            const bool above =
                static_cast<double>(static_cast<std::size_t>(
                    quantile * static_cast<double>(tokens))) > 0.5 * static_cast<double>(tokens);
            EXPECT_EQ(make<std::uint8_t>({anchor_kind::mean}, codes, 5).front(), above ? 0x1F : 0)
                << tokens << " tokens, quantile " << quantile;
        }
    }
}

TEST(Anchor, RandomDependsOnItsSeedAlone) {
    const std::vector<std::uint64_t> codes(4);
    const auto first = make<std::uint64_t>({anchor_kind::random, 1}, codes, 100, 2);
    EXPECT_EQ(first, make<std::uint64_t>({anchor_kind::random, 1}, codes, 100, 2));
    EXPECT_NE(first, make<std::uint64_t>({anchor_kind::random, 2}, codes, 100, 2));
    EXPECT_EQ(first[1] >> 36, 0U) << "bits above the code stay 0";
}

TEST(Anchor, NoCodesNoBits) {
    EXPECT_EQ(make<std::uint8_t>({anchor_kind::mean}, {}, 8).front(), 0);
}

} // namespace
} // namespace kvcrush
