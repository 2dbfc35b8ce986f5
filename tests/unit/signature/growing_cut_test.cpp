// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/signature/growing_cut.hpp>

#include "unit/simd/scores.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

std::vector<bool> members(std::span<const float> scores, simd::rank_cut cut) {
    std::vector<bool> inside;
    for (std::size_t t = 0; t < scores.size(); ++t) {
        inside.push_back(cut.contains(scores[t], t));
    }
    return inside;
}

/// Appends the scores in pieces and compares members and flips with a fresh cut after each.
void expect_fresh(
    std::span<const float> scores, std::size_t begin, std::size_t most, double quantile, int kind) {
    growing_cut growing;
    growing.plan(scores.size(), quantile);
    growing.start(scores.first(begin));
    std::vector<bool> before = members(scores.first(begin), growing.cut());
    for (std::size_t n = begin; n < scores.size();) {
        const std::size_t count = (std::min)(scores.size() - n, 1 + random_bits(1, most, n) % most);
        growing.append(scores.subspan(n, count));
        n += count;
        const std::span<const float> seen = scores.first(n);
        const auto inside = static_cast<std::size_t>(quantile * static_cast<double>(n));
        const std::vector<bool> expected = members(seen, simd::find_rank_cut(seen, inside));
        ASSERT_EQ(expected, members(seen, growing.cut()))
            << "kind " << kind << ", quantile " << quantile << ", " << n << " tokens";
        std::vector<token_index> flipped(growing.flipped().begin(), growing.flipped().end());
        std::sort(flipped.begin(), flipped.end());
        std::vector<token_index> expected_flips;
        for (std::size_t t = 0; t < before.size(); ++t) {
            if (before[t] != expected[t]) {
                expected_flips.push_back(static_cast<token_index>(t));
            }
        }
        ASSERT_EQ(expected_flips, flipped)
            << "kind " << kind << ", quantile " << quantile << ", " << n << " tokens";
        before = expected;
    }
}

TEST(GrowingCut, EqualsAFreshCutAfterEveryAppend) {
    std::vector<float> scores(3000);
    for (const auto kind : reference::all_score_kinds) {
        reference::fill_scores(scores, kind, 11);
        for (const double quantile : {0.0, 0.1, 0.5, 0.97, 1.0}) {
            expect_fresh(scores, 0, 128, quantile, static_cast<int>(kind));
            expect_fresh(scores, 2000, 16, quantile, static_cast<int>(kind));
        }
    }
}

TEST(GrowingCut, FollowsScoresThatMoveAway) {
    // First all scores rise, so that the cut runs away from every window; then all new ones are lowest.
    std::vector<float> scores(12000);
    for (std::size_t t = 0; t < scores.size(); ++t) {
        scores[t] = t < 6000 ? static_cast<float>(t) : -static_cast<float>(t / 3);
    }
    for (const double quantile : {0.01, 0.5, 0.9}) {
        expect_fresh(scores, 0, 128, quantile, -1);
    }
}

TEST(GrowingCut, RefusesWhatCannotBe) {
    growing_cut cut;
    EXPECT_THROW(cut.plan(10, 1.5), std::invalid_argument);
    EXPECT_THROW(cut.plan(10, std::numeric_limits<double>::quiet_NaN()), std::invalid_argument);
    EXPECT_THROW(cut.plan(std::numeric_limits<std::size_t>::max(), 0.5), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
