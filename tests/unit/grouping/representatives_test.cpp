// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/grouping/farthest.hpp>
#include <kvcrush/grouping/linspace.hpp>
#include <kvcrush/grouping/representatives.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace kvcrush {
namespace {

std::vector<std::size_t> divide(std::size_t picks, const std::vector<std::size_t>& candidates) {
    std::vector<anchor_share> shares;
    for (const std::size_t count : candidates) {
        shares.push_back({count, 0});
    }
    divide_picks(picks, shares);
    std::vector<std::size_t> result;
    for (const anchor_share& share : shares) {
        result.push_back(share.picks);
    }
    return result;
}

TEST(DividePicks, ByLargestRemainder) {
    using list = std::vector<std::size_t>;
    EXPECT_EQ(divide(10, {50, 30, 20}), (list{5, 3, 2}));
    EXPECT_EQ(divide(10, {47, 33, 20}), (list{5, 3, 2})) << "4.7 3.3 2.0";
    EXPECT_EQ(divide(1, {1, 1, 1}), (list{1, 0, 0})) << "ties go to the earlier anchor";
    EXPECT_EQ(divide(2, {1, 1, 1}), (list{1, 1, 0}));
    EXPECT_EQ(divide(3, {0, 3, 0}), (list{0, 3, 0}));
    EXPECT_EQ(divide(0, {4, 4}), (list{0, 0}));
    EXPECT_EQ(divide(0, {0, 0}), (list{0, 0}));
    EXPECT_EQ(divide(8, {5, 3}), (list{5, 3})) << "everybody";
}

TEST(DividePicks, NeverMoreThanThereAreAndNoneLost) {
    for (std::uint64_t seed = 0; seed < 500; ++seed) {
        std::vector<std::size_t> candidates;
        std::size_t all = 0;
        for (std::size_t i = 0; i <= seed % anchor::max_count; ++i) {
            candidates.push_back(random_bits(seed, 0, i) % 40);
            all += candidates.back();
        }
        const std::size_t picks = all == 0 ? 0 : random_bits(seed, 1, 0) % (all + 1);
        const std::vector<std::size_t> shares = divide(picks, candidates);
        std::size_t sum = 0;
        for (std::size_t i = 0; i < shares.size(); ++i) {
            EXPECT_LE(shares[i], candidates[i]) << seed;
            sum += shares[i];
        }
        EXPECT_EQ(sum, picks) << seed;
    }
}

/// Representatives of six tokens at the distances 2 0 1 1 2 0 to one anchor; token 1 is taken.
template <typename Picker>
std::uint64_t mark(std::size_t picks, distance_sort sort) {
    const std::vector<std::uint8_t> keys{2, 0, 1, 1, 2, 0};
    const std::vector<std::uint64_t> taken{0b000010};
    std::vector<std::uint64_t> marked{0};
    const group_keys possible{2, 1};
    test::owned_scratch memory(representatives_scratch_bytes(possible, keys.size()));
    mark_representatives(Picker{},
                         std::span<const std::uint8_t>(keys),
                         possible,
                         sort,
                         {},
                         taken,
                         picks,
                         marked,
                         memory.get());
    return marked.front();
}

TEST(MarkRepresentatives, AlongTheOrderOfDistance) { // order 5 | 2 3 | 0 4
    EXPECT_EQ(mark<linspace_picker>(3, distance_sort::ascending), 0b111000U) << "5, 3 and 4";
    EXPECT_EQ(mark<linspace_picker>(1, distance_sort::ascending), 0b100000U);
    EXPECT_EQ(mark<linspace_picker>(1, distance_sort::descending), 0b000001U);
    EXPECT_EQ(mark<linspace_picker>(5, distance_sort::ascending), 0b111101U);
}

TEST(MarkRepresentatives, ThePickersOwnOrderWins) {
    EXPECT_EQ(mark<farthest_picker>(3, distance_sort::ascending), 0b010101U) << "0 4, then 2";
    EXPECT_EQ(mark<farthest_picker>(3, distance_sort::descending), 0b010101U);
}

} // namespace
} // namespace kvcrush
