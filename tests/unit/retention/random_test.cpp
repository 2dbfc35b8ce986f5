// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/random.hpp>

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace kvcrush {
namespace {

static_assert(KeyScorer<random_scorer, kv_view<f16>>);

std::vector<float> draw(std::uint64_t seed) {
    std::vector<float> memory(2 * 50);
    std::vector<float> scores(2 * 50);
    random_scorer{seed}.score(kv_view<float>(memory, memory, kv_shape{2, 50, 1, 1}),
                              {scores, 2, 50});
    return scores;
}

TEST(RandomScorer, SameSeedSameScores) {
    EXPECT_EQ(draw(3), draw(3));
    EXPECT_NE(draw(3), draw(4));
}

TEST(RandomScorer, HeadsDrawApart) {
    const std::vector<float> scores = draw(0);
    EXPECT_EQ(std::set<float>(scores.begin(), scores.end()).size(), scores.size());
}

} // namespace
} // namespace kvcrush
