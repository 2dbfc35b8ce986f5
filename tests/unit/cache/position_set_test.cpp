// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/cache/position_set.hpp>
#include <kvcrush/core/random.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace kvcrush {
namespace {

using positions = std::vector<token_index>;

TEST(PositionSet, HoldsNothingAtFirst) {
    const position_set set;
    EXPECT_EQ(set.size(), 0U);
    EXPECT_EQ(set.end(), 0U);
    EXPECT_EQ(set.values(), positions{});
    EXPECT_EQ(set.bytes_held(), 0U);
}

TEST(PositionSet, GivesBackWhatWasPushedInOrder) {
    for (const token_index first : {0U, 1U, 63U, 64U, 65U, 4000000000U}) {
        position_set set;
        positions wanted;
        for (const token_index step : {0U, 1U, 62U, 63U, 64U, 127U, 128U, 1000U, 1001U}) {
            set.push(first + step);
            wanted.push_back(first + step);
            EXPECT_EQ(set.end(), std::size_t{first} + step + 1);
        }
        EXPECT_EQ(set.size(), wanted.size());
        EXPECT_EQ(set.values(), wanted);
    }
}

TEST(PositionSet, TakesBackTheLargest) {
    for (std::size_t count = 0; count <= 6; ++count) {
        position_set set;
        positions wanted{3, 63, 64, 300, 301, 1000};
        for (const token_index position : wanted) {
            set.push(position);
        }
        set.pop(count);
        wanted.resize(wanted.size() - count);
        EXPECT_EQ(set.size(), wanted.size());
        EXPECT_EQ(set.values(), wanted);
        EXPECT_EQ(set.end(), wanted.empty() ? 0U : wanted.back() + 1U);
        // What was taken back may come again, or something lower if nothing is left.
        const token_index next = wanted.empty() ? 2 : wanted.back() + 1;
        set.push(next);
        wanted.push_back(next);
        EXPECT_EQ(set.values(), wanted);
    }
}

TEST(PositionSet, KeepsWhatItIsTold) {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        position_set set;
        positions all;
        for (token_index position = 0; position < 500; ++position) {
            if (random_bits(seed, 0, position) % (1 + seed) == 0) {
                set.push(position);
                all.push_back(position);
            }
        }
        positions kept;
        positions wanted;
        for (std::size_t i = 0; i < all.size(); ++i) {
            if (random_bits(seed, 1, i) % 3 == 0) {
                kept.push_back(static_cast<token_index>(i));
                wanted.push_back(all[i]);
            }
        }
        set.keep(kept);
        EXPECT_EQ(set.size(), wanted.size()) << seed;
        EXPECT_EQ(set.values(), wanted) << seed;
        set.push(777);
        wanted.push_back(777);
        EXPECT_EQ(set.values(), wanted) << seed;
        set.keep({});
        EXPECT_EQ(set.size(), 0U);
        EXPECT_EQ(set.end(), 0U);
        EXPECT_EQ(set.values(), positions{});
    }
}

TEST(PositionSet, SaysWhetherTheLargestLieSideBySide) {
    for (const token_index gap : {1U, 200U, 70000U}) { // in words, and as a list
        position_set set;
        EXPECT_TRUE(set.holds_last(0));
        EXPECT_FALSE(set.holds_last(1));
        set.push(3);
        for (token_index i = 0; i < 130; ++i) {
            set.push(4 + gap + i);
        }
        EXPECT_TRUE(set.holds_last(0));
        EXPECT_TRUE(set.holds_last(130));
        EXPECT_FALSE(set.holds_last(131));
        EXPECT_FALSE(set.holds_last(132));
    }
}

TEST(PositionSet, TakesABitPerTokenOfItsSpan) {
    position_set set;
    for (token_index position = 100000; position < 100640; ++position) {
        set.push(position);
    }
    set.shrink_to_fit();
    EXPECT_LE(set.bytes_held(), 11 * sizeof(std::uint64_t));
    EXPECT_EQ(set.size(), 640U);
    set.keep(positions{639});
    set.shrink_to_fit();
    EXPECT_EQ(set.bytes_held(), sizeof(std::uint64_t));
    EXPECT_EQ(set.values(), positions{100639});
}

} // namespace
} // namespace kvcrush
