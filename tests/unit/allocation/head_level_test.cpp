// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/allocation/fixed_counts.hpp>
#include <kvcrush/allocation/head_level.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

using numbers = std::vector<std::size_t>;

numbers list(const head_counts& counts) { return {counts.values().begin(), counts.values().end()}; }

const model_heads model{2, 2};
const head_profile profile(model, {0.2, 0.9, 0.5, 0.5});

TEST(DuoAttention, TheMostImportantHeadsKeepAll) {
    const auto counts = [](double share, std::size_t seq_len = 1000) {
        return list(duo_attention{.full_share = share}.counts(profile, model, seq_len));
    };
    EXPECT_EQ(counts(0.25), (numbers{384, 1000, 384, 384}));
    EXPECT_EQ(counts(0.5), (numbers{384, 1000, 1000, 384})) << "of equals the earlier";
    EXPECT_EQ(counts(0.0), (numbers{384, 384, 384, 384}));
    EXPECT_EQ(counts(1.0), (numbers{1000, 1000, 1000, 1000}));
    EXPECT_EQ(counts(0.5, 10), (numbers{10, 10, 10, 10}));
    EXPECT_THROW((duo_attention{.full_share = 1.5}.validate()), std::invalid_argument);
    EXPECT_THROW((duo_attention{.full_share = std::nan("")}.validate()), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(duo_attention{}.counts(profile, {2, 3}, 10)),
                 std::invalid_argument);
}

TEST(HeadLevel, FillsHeadsWhileTheBudgetLasts) {
    const budget half = budget::tokens(50, {2, 8});
    EXPECT_EQ(list(head_level{}.counts(profile, model, 100, half)), (numbers{10, 100, 80, 10}));
    EXPECT_EQ(list(head_level{.whole_heads = true}.counts(profile, model, 100, half)),
              (numbers{10, 100, 10, 10}));
    EXPECT_THROW(static_cast<void>(head_level{}.counts(profile, {3, 2}, 100, half)),
                 std::invalid_argument);
}

TEST(HeadLevel, FactorsOfLayersCount) {
    const head_profile weighted(model, {0.2, 0.9, 0.5, 0.4}, {1.0, 2.0});
    EXPECT_EQ(list(head_level{}.counts(weighted, model, 100, budget::tokens(25, {0, 0}))),
              (numbers{0, 0, 100, 0}));
}

TEST(HeadLevel, TotalsAreExact) {
    for (const std::size_t seq_len : std::initializer_list<std::size_t>{0, 1, 10, 36, 37, 500}) {
        for (std::size_t tokens = 10; tokens <= seq_len; tokens += 7) {
            const budget wanted = budget::tokens(tokens, {2, 8});
            const head_counts counts = head_level{}.counts(profile, model, seq_len, wanted);
            ASSERT_EQ(counts.total(), 4 * wanted.tokens_for(seq_len));
            for (const std::size_t count : counts.values()) {
                ASSERT_LE(count, seq_len);
                ASSERT_GE(count, (std::min)(seq_len, std::size_t{10}));
            }
        }
    }
}

TEST(LargestScores, AreThoseOfEachHead) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = std::numeric_limits<float>::infinity();
    const std::vector<float> scores{0.9F, 0.1F, 0.5F, nan, 0.25F, inf, nan, nan, -1.0F};
    std::array<double, 3> importance{};
    largest_scores(const_head_scores(scores, 3, 3), importance);
    EXPECT_EQ(importance, (std::array<double, 3>{static_cast<double>(0.9F), 0.25, 0.0}));
}

TEST(HeadCounts, HoldOneCountPerHead) {
    const head_counts counts({2, 2}, {1, 2, 3, 4});
    EXPECT_EQ(counts.total(), 10U);
    EXPECT_EQ(counts.layer(1)[0], 3U);
    EXPECT_THROW(head_counts({2, 2}, {1, 2, 3}), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
