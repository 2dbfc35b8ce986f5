// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/allocation/pyramid_kv.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

using counts = std::vector<std::size_t>;

/// Middle tokens of each layer, the 8 protected ones taken off.
counts middle_of(pyramid_rule rule, std::size_t layers, std::size_t seq_len, std::size_t tokens) {
    counts all = pyramid_kv{.rule = rule}.layer_tokens(
        layers, seq_len, budget::tokens(tokens, area_sizes{0, 8}));
    for (std::size_t& count : all) {
        count -= 8;
    }
    return all;
}

std::size_t sum(const counts& all) {
    return std::accumulate(all.begin(), all.end(), std::size_t{0});
}

TEST(PyramidKv, KnownAnswersOfThePublishedRule) {
    constexpr auto rule = pyramid_rule::published;
    EXPECT_EQ(middle_of(rule, 4, 1000, 72), (counts{125, 85, 45, 5}));
    EXPECT_EQ(middle_of(rule, 4, 130, 72), (counts{122, 84, 46, 8})) << "clipped";
    EXPECT_EQ(middle_of(rule, 4, 100, 72), (counts{64, 64, 64, 64})) << "even";
    const counts large = middle_of(rule, 32, 8000, 2048);
    EXPECT_EQ(large[0], 3978U);
    EXPECT_EQ(large[1], 3853U);
    EXPECT_EQ(large[31], 103U);
    EXPECT_EQ(sum(large), 65296U) << "16 more than 32 * 2040";
}

TEST(PyramidKv, KnownAnswersOfKvpress) {
    const pyramid_kv pyramid{.rule = pyramid_rule::kvpress};
    EXPECT_EQ(pyramid.layer_tokens(4, 1000, budget::tokens(500, {0, 8})),
              (counts{975, 658, 342, 25}));
    EXPECT_EQ(pyramid.layer_tokens(4, 1000, budget::tokens(200, {0, 8})),
              (counts{390, 263, 137, 10}));
    EXPECT_EQ(pyramid.layer_tokens(4, 1000, budget::tokens(100, {0, 8})), (counts(4, 100)))
        << "the last layer would not hold the window";
    const counts odd = pyramid.layer_tokens(30, 1001, budget::keep_ratio(0.5, {0, 32}));
    EXPECT_EQ(odd.front(), 969U) << "the line of 500.5 tokens just holds the window";
    EXPECT_EQ(odd.back(), 32U);
    EXPECT_EQ(pyramid.layer_tokens(4, 1007, budget::keep_ratio(0.1, {0, 8})), (counts(4, 101)))
        << "100.7 tokens, rounded";
}

TEST(PyramidKv, TheExactRuleFollowsTheLine) {
    // first 64 * 2 - 3.2 = 124.8, last 3.2, steps of 40.53.
    EXPECT_EQ(middle_of(pyramid_rule::exact, 4, 1000, 72), (counts{125, 84, 44, 3}));
    EXPECT_EQ(middle_of(pyramid_rule::exact, 4, 130, 72), (counts{122, 83, 45, 6}));
    EXPECT_EQ(middle_of(pyramid_rule::exact, 4, 100, 72), (counts(4, 64)));
    EXPECT_EQ(sum(middle_of(pyramid_rule::exact, 32, 8000, 2048)), 65280U);
}

TEST(PyramidKv, TotalsAreExactAndLayersFallAndHoldWhatIsProtected) {
    for (const std::size_t seq_len : std::initializer_list<std::size_t>{0, 1, 35, 37, 100, 1000}) {
        for (const std::size_t layers : std::initializer_list<std::size_t>{0, 1, 2, 3, 30, 81}) {
            for (const double ratio : {0.04, 0.1, 0.25, 0.5, 0.7, 0.99, 1.0}) {
                for (const double beta : {1.0, 2.5, 20.0, 1e6}) {
                    for (const area_sizes sizes : {area_sizes{4, 32}, area_sizes{0, 0}}) {
                        const auto tokens =
                            static_cast<std::size_t>(ratio * static_cast<double>(seq_len));
                        if (areas(sizes, seq_len).num_protected() > tokens &&
                            areas(sizes, seq_len).num_protected() < seq_len) {
                            continue;
                        }
                        const budget wanted = budget::tokens(tokens, sizes);
                        const counts all =
                            pyramid_kv{.beta = beta}.layer_tokens(layers, seq_len, wanted);
                        ASSERT_EQ(all.size(), layers);
                        ASSERT_EQ(sum(all), layers * wanted.tokens_for(seq_len))
                            << seq_len << " " << layers << " " << ratio << " " << beta;
                        for (std::size_t l = 0; l < layers; ++l) {
                            ASSERT_LE(all[l], seq_len);
                            ASSERT_GE(all[l], areas(sizes, seq_len).num_protected());
                            // Two layers a token apart may be rounded the other way round, where the line is flat.
                            ASSERT_TRUE(l == 0 || all[l] <= all[l - 1] + 1);
                        }
                        for (const pyramid_rule rule :
                             {pyramid_rule::kvpress, pyramid_rule::published}) {
                            for (const std::size_t count :
                                 pyramid_kv{.beta = std::floor(beta), .rule = rule}.layer_tokens(
                                     layers, seq_len, wanted)) {
                                ASSERT_LE(count, seq_len);
                                ASSERT_GE(count, areas(sizes, seq_len).num_protected());
                            }
                        }
                    }
                }
            }
        }
    }
}

TEST(PyramidKv, RefusesWhatMakesNoLine) {
    EXPECT_THROW((pyramid_kv{.beta = 0.5}.validate()), std::invalid_argument);
    EXPECT_THROW((pyramid_kv{.beta = std::nan("")}.validate()), std::invalid_argument);
    EXPECT_THROW((pyramid_kv{.beta = 2.5, .rule = pyramid_rule::published}.validate()),
                 std::invalid_argument);
    EXPECT_THROW(static_cast<void>(pyramid_kv{}.layer_tokens(4, 100, budget::tokens(20))),
                 std::invalid_argument);
}

} // namespace
} // namespace kvcrush
