// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/grouping/distance_order.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <vector>

namespace kvcrush {
namespace {

TEST(DistanceOrder, SortsByDistanceThenIndexWithoutTheTaken) {
    const std::vector<std::uint8_t> distances{3, 2, 2, 1, 2, 1, 3, 2};
    const std::vector<std::uint8_t> taken{1, 0, 0, 0, 0, 0, 1, 0};
    std::vector<std::uint32_t> offsets(5);
    std::vector<token_index> order(8);
    ASSERT_EQ(order_by_distance(std::span<const std::uint8_t>(distances),
                                std::span<const std::uint8_t>(taken),
                                offsets,
                                order),
              6U);
    order.resize(6);
    EXPECT_EQ(order, (std::vector<token_index>{3, 5, 1, 2, 4, 7}))
        << "known answer 1a, anchor zeros";
}

TEST(DistanceOrder, EqualsAStableSort) {
    for (const std::size_t count : std::initializer_list<std::size_t>{0, 1, 63, 64, 65, 1000}) {
        std::vector<std::uint16_t> distances(count);
        std::vector<std::uint8_t> taken(count);
        std::vector<token_index> expected;
        for (std::size_t t = 0; t < count; ++t) {
            distances[t] = static_cast<std::uint16_t>(random_bits(1, count, t) % 300);
            taken[t] = random_bits(2, count, t) % 3 == 0 ? 1 : 0;
            if (taken[t] == 0) {
                expected.push_back(static_cast<token_index>(t));
            }
        }
        std::stable_sort(expected.begin(), expected.end(), [&](token_index a, token_index b) {
            return distances[a] < distances[b];
        });
        std::vector<std::uint32_t> offsets(300);
        std::vector<token_index> order(count);
        order.resize(order_by_distance(std::span<const std::uint16_t>(distances),
                                       std::span<const std::uint8_t>(taken),
                                       offsets,
                                       order));
        EXPECT_EQ(order, expected) << count;
    }
}

} // namespace
} // namespace kvcrush
