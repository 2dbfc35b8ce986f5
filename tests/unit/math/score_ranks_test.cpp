// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/math/score_ranks.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <vector>

namespace kvcrush {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float inf = std::numeric_limits<float>::infinity();

std::vector<std::uint32_t> ranks_of(const std::vector<float>& scores) {
    std::vector<std::uint32_t> ranks(scores.size());
    test::owned_scratch memory(score_ranks_bytes(scores.size()));
    score_ranks(scores, ranks, memory.get());
    return ranks;
}

std::vector<std::uint32_t> naive_ranks(const std::vector<float>& scores) {
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        if (std::isnan(scores[a]) || std::isnan(scores[b])) {
            return !std::isnan(scores[a]) && std::isnan(scores[b]);
        }
        return scores[a] > scores[b];
    });
    std::vector<std::uint32_t> ranks(scores.size());
    for (std::size_t rank = 0; rank < order.size(); ++rank) {
        ranks[order[rank]] = static_cast<std::uint32_t>(rank);
    }
    return ranks;
}

TEST(ScoreRanks, TheBestIsFirstAndTiesKeepTheEarlier) {
    EXPECT_EQ(ranks_of({}), std::vector<std::uint32_t>{});
    EXPECT_EQ(ranks_of({7.0F}), std::vector<std::uint32_t>{0});
    EXPECT_EQ(ranks_of({1.0F, 3.0F, 2.0F, 3.0F}), (std::vector<std::uint32_t>{3, 0, 2, 1}));
}

TEST(ScoreRanks, ZerosAreEqualAndNaNIsLast) {
    EXPECT_EQ(ranks_of({nan, -inf, 0.0F, -0.0F, inf, -nan, -1.0F}),
              (std::vector<std::uint32_t>{5, 4, 1, 2, 0, 6, 3}));
}

TEST(ScoreRanks, AreThoseOfAStableSort) {
    for (const std::size_t size :
         std::initializer_list<std::size_t>{1, 2, 63, 64, 65, 1000, 4097}) {
        std::vector<float> scores(size);
        for (std::size_t i = 0; i < size; ++i) {
            const float draw = random_unit(5, size, i) - 0.5F;
            switch (i % 5) {
            case 0: scores[i] = std::round(draw * 8.0F); break; // ties
            case 1: scores[i] = draw * 1e-40F; break;           // subnormal
            case 2: scores[i] = draw * 1e30F; break;
            case 3: scores[i] = i % 3 == 0 ? nan : -inf; break;
            default: scores[i] = draw; break;
            }
        }
        EXPECT_EQ(ranks_of(scores), naive_ranks(scores)) << size;
    }
}

} // namespace
} // namespace kvcrush
