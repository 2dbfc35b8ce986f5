// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/simd/top_k.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "../../reference/top_k.hpp"
#include "every_rung.hpp"
#include "scores.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <vector>

namespace {

namespace simd = kvcrush::simd;
namespace reference = kvcrush::reference;

static_assert(noexcept(simd::top_k({}, 0, {})));

class TopK : public reference::every_rung {};

TEST_P(TopK, EqualsSortingAtEverySizeAndKind) {
    for (const std::size_t n : std::initializer_list<std::size_t>{
             0U, 1U, 2U, 7U, 8U, 9U, 15U, 16U, 17U, 63U, 64U, 65U, 700U, 2500U}) {
        reference::guarded_buffer<float> scores(n);
        for (const auto kind : reference::all_score_kinds) {
            reference::fill_scores(scores.span(), kind, n + 1);
            for (const std::size_t k : reference::ranks_to_test(n)) {
                reference::guarded_buffer<std::uint32_t> out((std::min)(n, k));
                ASSERT_EQ(out.span().size(), simd::top_k(scores.span(), k, out.span(), 0, rung()));
                const std::vector<std::uint32_t> actual(out.span().begin(), out.span().end());
                ASSERT_EQ(reference::top_k<float>(scores.span(), k), actual)
                    << "kind " << static_cast<int>(kind) << ", n " << n << ", k " << k;
            }
        }
    }
}

TEST_P(TopK, WritesNothingBehindTheLastIndex) {
    std::vector<float> scores(1000);
    reference::fill_scores(scores, reference::score_kind::uniform, 3);
    for (const std::size_t k :
         std::initializer_list<std::size_t>{0U, 1U, 15U, 16U, 17U, 500U, 999U, 1000U, 2000U}) {
        std::vector<std::uint32_t> out(1040, 12345678);
        const std::size_t kept = simd::top_k(scores, k, out, 0, rung());
        EXPECT_EQ((std::min)(k, scores.size()), kept);
        EXPECT_EQ(static_cast<std::ptrdiff_t>(out.size() - kept),
                  std::count(out.begin(), out.end(), 12345678U));
    }
}

TEST_P(TopK, AddsTheOffsetToEveryIndex) {
    const std::vector<float> scores{1, 5, 2, 5, std::numeric_limits<float>::quiet_NaN(), 3};
    std::vector<std::uint32_t> out(3);
    simd::top_k(scores, 3, out, 100, rung());
    EXPECT_EQ((std::vector<std::uint32_t>{101, 103, 105}), out);
}

TEST_P(TopK, KeepsTheEarlierOfEqualScores) {
    const std::vector<float> scores{0.0F, -0.0F, 0.0F, -0.0F, 1.0F, 0.0F};
    std::vector<std::uint32_t> out(4);
    simd::top_k(scores, 4, out, 0, rung());
    EXPECT_EQ((std::vector<std::uint32_t>{0, 1, 2, 4}), out);
}

TEST_P(TopK, TakesNanOnlyWhenNothingElseIsLeft) {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const std::vector<float> scores{nan, -infinity, nan, infinity};
    std::vector<std::uint32_t> out(3);
    simd::top_k(scores, 2, out, 0, rung());
    EXPECT_EQ((std::vector<std::uint32_t>{1, 3}),
              std::vector<std::uint32_t>(out.begin(), out.begin() + 2));
    simd::top_k(scores, 3, out, 0, rung());
    EXPECT_EQ((std::vector<std::uint32_t>{0, 1, 3}), out);
}

KVCRUSH_ON_EVERY_RUNG(TopK);

} // namespace
