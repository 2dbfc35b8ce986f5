// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/select/partition.hpp>

#include "reference/partition.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <array>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

static_assert(Selector<partition_selector>);

using tokens = std::vector<token_index>;

tokens select(const std::vector<float>& scores,
              const area_sizes& sizes,
              std::size_t count,
              std::size_t lag) {
    const areas area(sizes, scores.size());
    const std::array<std::size_t, 1> counts{count};
    selection out;
    out.reserve(1, scores.size());
    partition_selector{.lag = lag}.select(
        {const_head_scores(scores, 1, scores.size()), {}, area, counts, {}}, out);
    return test::list(out.kept(0));
}

TEST(PartitionSelector, EachPartitionKeepsItsShare) {
    // |0 .. 3| 4 .. 7|: two each, although the best four all lie in the second.
    EXPECT_EQ(select({1, 2, 0, 0, 9, 8, 7, 6}, {0, 0}, 4, 4), (tokens{0, 1, 4, 5}));
}

TEST(PartitionSelector, KeepsSinksAndRecentBesides) {
    EXPECT_EQ(select({0, 1, 2, 5, 6, 0}, {1, 1}, 4, 2), (tokens{0, 2, 4, 5}));
}

TEST(PartitionSelector, TheLargestRemainderGetsTheTokenThatIsLeft) {
    // Lengths 4, 4, 3 and a budget of 4: quotas 16/11, 16/11, 12/11; the earlier of two equal remainders wins.
    EXPECT_EQ(select({1, 2, 0, 0, 1, 2, 0, 0, 1, 2, 0}, {0, 0}, 4, 4), (tokens{0, 1, 5, 9}));
    // Lengths 4, 4, 1 and a budget of 8: quotas 32/9, 32/9, 8/9: the last one first.
    EXPECT_EQ(select({4, 3, 2, 1, 4, 3, 2, 1, 0}, {0, 0}, 8, 4), (tokens{0, 1, 2, 3, 4, 5, 6, 8}));
}

TEST(PartitionSelector, TiesKeepTheEarlierTokenAndNanIsLowest) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(select({nan, 0, 0, nan, nan, nan}, {0, 0}, 2, 3), (tokens{1, 3}));
}

TEST(PartitionSelector, EqualsTheReference) {
    for (const std::size_t length :
         std::initializer_list<std::size_t>{0, 1, 2, 63, 64, 65, 130, 500}) {
        for (const std::size_t lag : std::initializer_list<std::size_t>{1, 3, 64, 128, 1000}) {
            for (const std::size_t sinks : std::initializer_list<std::size_t>{0, 4}) {
                const std::vector<float> scores = test::random_scores(length, lag);
                const areas area({sinks, sinks * 2}, length);
                const std::size_t always = area.num_protected();
                for (const std::size_t share : std::initializer_list<std::size_t>{0, 1, 3, 7, 8}) {
                    const std::size_t budget = area.num_middle() * share / 8;
                    const tokens kept = select(scores, {sinks, sinks * 2}, always + budget, lag);
                    EXPECT_EQ(kept.size(), always + budget);
                    EXPECT_EQ(kept,
                              reference::partition_wise(
                                  scores, area.middle_begin, area.middle_end, lag, budget))
                        << length << " tokens, lag " << lag << ", budget " << budget;
                }
            }
        }
    }
}

TEST(PartitionSelector, BudgetsBeyondTheSequenceKeepAll) {
    EXPECT_EQ(select({3, 1, 2}, {0, 0}, 100, 2), (tokens{0, 1, 2}));
    EXPECT_TRUE(select({3, 1, 2}, {0, 0}, 0, 2).empty());
    EXPECT_TRUE(select({}, {4, 32}, 10, 2).empty());
}

TEST(PartitionSelector, RefusesEmptyPartitions) {
    EXPECT_THROW(partition_selector{.lag = 0}.validate(), std::invalid_argument);
    EXPECT_NO_THROW(partition_selector{}.validate());
}

} // namespace
} // namespace kvcrush
