// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/simd/rank_cut.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "../../reference/top_k.hpp"
#include "every_rung.hpp"
#include "scores.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <vector>

namespace {

namespace simd = kvcrush::simd;
namespace reference = kvcrush::reference;

class RankCut : public reference::every_rung {};

std::vector<std::uint32_t> tokens_inside(std::span<const float> scores, simd::rank_cut cut) {
    std::vector<std::uint32_t> tokens;
    for (std::size_t i = 0; i < scores.size(); ++i) {
        if (cut.contains(scores[i], i)) {
            tokens.push_back(static_cast<std::uint32_t>(i));
        }
    }
    return tokens;
}

TEST_P(RankCut, HoldsTheBestTokens) {
    for (const std::size_t n : std::initializer_list<std::size_t>{
             0U, 1U, 2U, 7U, 15U, 16U, 17U, 63U, 64U, 65U, 511U, 512U, 513U, 1000U, 4099U}) {
        reference::guarded_buffer<float> scores(n);
        for (const auto kind : reference::all_score_kinds) {
            reference::fill_scores(scores.span(), kind, n);
            for (const std::size_t k : reference::ranks_to_test(n)) {
                const simd::rank_cut cut = simd::find_rank_cut(scores.span(), k, rung());
                ASSERT_EQ(reference::top_k<float>(scores.span(), k),
                          tokens_inside(scores.span(), cut))
                    << "kind " << static_cast<int>(kind) << ", n " << n << ", k " << k;
            }
        }
    }
}

TEST_P(RankCut, HoldsTheBestOfManyTokens) {
    constexpr std::size_t n = 40003;
    std::vector<float> scores(n);
    for (const auto kind : reference::all_score_kinds) {
        reference::fill_scores(scores, kind, 5);
        for (const std::size_t k :
             std::initializer_list<std::size_t>{std::size_t{1}, n / 50, n / 4, n / 2, n - 3}) {
            const simd::rank_cut cut = simd::find_rank_cut(scores, k, rung());
            ASSERT_EQ(reference::top_k<float>(scores, k), tokens_inside(scores, cut))
                << "kind " << static_cast<int>(kind) << ", k " << k;
        }
    }
}

TEST_P(RankCut, IsTheSameOnEveryRung) {
    std::vector<float> scores(3001);
    for (const auto kind : reference::all_score_kinds) {
        reference::fill_scores(scores, kind, 9);
        for (const std::size_t k : reference::ranks_to_test(scores.size())) {
            EXPECT_EQ(simd::find_rank_cut(scores, k, simd::isa::scalar).key,
                      simd::find_rank_cut(scores, k, rung()).key);
        }
    }
}

TEST_P(RankCut, HoldsNothingForRankZero) {
    const std::vector<float> scores{1, std::numeric_limits<float>::infinity(), -1};
    EXPECT_TRUE(tokens_inside(scores, simd::find_rank_cut(scores, 0, rung())).empty());
}

TEST_P(RankCut, HoldsEverythingFromTheSizeOn) {
    const std::vector<float> scores{1, std::numeric_limits<float>::quiet_NaN(), -1};
    EXPECT_EQ(3U, tokens_inside(scores, simd::find_rank_cut(scores, 3, rung())).size());
    EXPECT_EQ(3U, tokens_inside(scores, simd::find_rank_cut(scores, 4, rung())).size());
}

KVCRUSH_ON_EVERY_RUNG(RankCut);

} // namespace
