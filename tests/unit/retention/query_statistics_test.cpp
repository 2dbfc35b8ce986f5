// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/rope.hpp>
#include <kvcrush/retention/query_statistics.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <vector>

namespace kvcrush {
namespace {

// Known answer 11 of the specification.
TEST(MeanRotation, IsTheMeanOfTheRotations) {
    const mean_turn known = mean_rotation(1.0, 10.0, 4);
    EXPECT_NEAR(known.cos, 0.229164, 1e-6);
    EXPECT_NEAR(known.sin, -0.415104, 1e-6);
    for (const double angle : {0.0, 1e-9, 1e-3, 0.5, 3.0, 6.283185307179586, 7.0}) {
        for (const std::size_t count : std::initializer_list<std::size_t>{1, 2, 5, 512}) {
            double cos = 0.0;
            double sin = 0.0;
            for (std::size_t i = 0; i < count; ++i) {
                cos += std::cos((37.0 + static_cast<double>(i)) * angle);
                sin += std::sin((37.0 + static_cast<double>(i)) * angle);
            }
            const mean_turn turn = mean_rotation(angle, 37.0, count);
            EXPECT_NEAR(turn.cos, cos / static_cast<double>(count), 1e-9) << angle << " " << count;
            EXPECT_NEAR(turn.sin, sin / static_cast<double>(count), 1e-9) << angle << " " << count;
        }
    }
}

// Five queries of two channels: 100, 100 belongs to a sink, the others have mean (1, 0) and covariance diag(1, 2).
TEST(QueryStatistics, LeaveTheSinksOut) {
    const float root = std::sqrt(2.0F);
    const std::vector<float> queries{100, 100, 0, root, 0, -root, 2, root, 2, -root};
    const std::array<double, 1> no_rotation{0.0};
    const std::vector<std::vector<float>> spreads{{0.25F, 0, 0, 0.5F}, {0.25F, 0.5F}, {}};
    std::size_t next = 0;
    for (const query_covariance covariance :
         {query_covariance::full, query_covariance::diagonal, query_covariance::none}) {
        test::owned_scratch owned(query_statistics::held_bytes(covariance, 1, 2) +
                                  query_statistics::working_bytes(1, 2));
        scratch memory = owned.get();
        const query_statistics statistics(
            {.num_sink_tokens = 1, .covariance = covariance, .rope = {.frequencies = no_rotation}},
            query_view(queries, 1, 5, 2),
            5,
            memory);
        EXPECT_NEAR(statistics.mean(0)[0], 1.0 / std::sqrt(2.0), 1e-6);
        EXPECT_NEAR(statistics.mean(0)[1], 0.0, 1e-6);
        const std::vector<float>& expected = spreads[next++];
        ASSERT_EQ(statistics.spread(0).size(), expected.size());
        for (std::size_t i = 0; i < expected.size(); ++i) {
            EXPECT_NEAR(statistics.spread(0)[i], expected[i], 1e-6) << i;
        }
    }
}

// One query alone: one position ahead of it, it has turned by its angle.
TEST(QueryStatistics, TurnQueriesToThePositionsAhead) {
    const std::vector<float> queries{1, 0, 0, 1, 5, 5, 5, 5};
    const std::array<double, 2> angles{0.5, 0.25};
    test::owned_scratch owned(query_statistics::held_bytes(query_covariance::none, 2, 4) +
                              query_statistics::working_bytes(2, 4));
    scratch memory = owned.get();
    const query_statistics statistics(
        {.covariance = query_covariance::none,
         .rope = {.pairing = rope_pairs::interleaved, .frequencies = angles}},
        query_view(queries, 2, 1, 4),
        9,
        memory);
    EXPECT_NEAR(2.0F * statistics.mean(0)[0], std::cos(0.5), 1e-6);
    EXPECT_NEAR(2.0F * statistics.mean(0)[1], std::sin(0.5), 1e-6);
    EXPECT_NEAR(2.0F * statistics.mean(0)[2], -std::sin(0.25), 1e-6);
    EXPECT_NEAR(2.0F * statistics.mean(0)[3], std::cos(0.25), 1e-6);
}

} // namespace
} // namespace kvcrush
