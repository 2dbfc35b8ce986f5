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

static_assert(name_of(distance_sort::ascending) == "ascending");
static_assert(name_of(distance_sort::descending) == "descending");

TEST(DistanceOrder, SortsByDistanceThenIndexWithoutTheTaken) {
    const std::vector<std::uint8_t> distances{3, 2, 2, 1, 2, 1, 3, 2};
    const std::vector<std::uint64_t> taken{0b01000001};
    std::vector<std::uint32_t> offsets(5);
    std::vector<token_index> order(6);
    ASSERT_EQ(order_by_distance(std::span<const std::uint8_t>(distances),
                                taken,
                                distance_sort::ascending,
                                offsets,
                                order),
              6U);
    EXPECT_EQ(order, (std::vector<token_index>{3, 5, 1, 2, 4, 7}))
        << "known answer 1a, anchor zeros";
}

TEST(DistanceOrder, DescendingTurnsTheGroupsAroundAndNotTheTokens) {
    const std::vector<std::uint8_t> distances{3, 2, 2, 1, 2, 1, 3, 2};
    const std::vector<std::uint64_t> taken{0b01000000};
    std::vector<std::uint32_t> offsets(5);
    std::vector<token_index> order(7);
    ASSERT_EQ(order_by_distance(std::span<const std::uint8_t>(distances),
                                taken,
                                distance_sort::descending,
                                offsets,
                                order),
              7U);
    EXPECT_EQ(order, (std::vector<token_index>{0, 1, 2, 4, 7, 3, 5}));
}

TEST(DistanceOrder, GroupsBeginWhereTheOnesBeforeThemEnd) {
    const std::vector<std::uint32_t> counts{3, 0, 2, 1};
    std::vector<std::uint32_t> begins(4);
    EXPECT_EQ(distance_begins(counts, distance_sort::ascending, begins), 6U);
    EXPECT_EQ(begins, (std::vector<std::uint32_t>{0, 3, 3, 5}));
    EXPECT_EQ(distance_begins(counts, distance_sort::descending, begins), 6U);
    EXPECT_EQ(begins, (std::vector<std::uint32_t>{3, 3, 1, 0}));
    begins = counts;
    EXPECT_EQ(distance_begins(begins, distance_sort::ascending, begins), 6U);
    EXPECT_EQ(begins, (std::vector<std::uint32_t>{0, 3, 3, 5})) << "in place";
}

template <typename Distance>
void expect_stable_sort(std::size_t count, std::size_t num_distances, distance_sort sort) {
    std::vector<Distance> distances(count);
    std::vector<std::uint64_t> taken(simd::bitmap_words(count));
    std::vector<token_index> expected;
    for (std::size_t t = 0; t < count; ++t) {
        distances[t] = static_cast<Distance>(random_bits(1, count, t) % num_distances);
        if (random_bits(2, count, t) % 3 == 0) {
            taken[t / 64] |= std::uint64_t{1} << (t % 64);
        } else {
            expected.push_back(static_cast<token_index>(t));
        }
    }
    std::stable_sort(expected.begin(), expected.end(), [&](token_index a, token_index b) {
        return sort == distance_sort::ascending ? distances[a] < distances[b]
                                                : distances[a] > distances[b];
    });
    std::vector<std::uint32_t> offsets(num_distances);
    std::vector<token_index> order(expected.size());
    ASSERT_EQ(expected.size(),
              order_by_distance(std::span<const Distance>(distances), taken, sort, offsets, order));
    EXPECT_EQ(order, expected) << count;
}

TEST(DistanceOrder, EqualsAStableSort) {
    for (const std::size_t count :
         std::initializer_list<std::size_t>{0, 1, 63, 64, 65, 1000, 20000}) {
        for (const distance_sort sort : std::initializer_list<distance_sort>{
                 distance_sort::ascending, distance_sort::descending}) {
            expect_stable_sort<std::uint8_t>(count, 33, sort);
            expect_stable_sort<std::uint16_t>(count, 300, sort);
        }
    }
}

} // namespace
} // namespace kvcrush
