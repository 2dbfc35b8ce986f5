// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/select/prefix_suffix.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <vector>

namespace kvcrush {
namespace {

static_assert(Selector<prefix_suffix_selector>);

using tokens = std::vector<token_index>;

tokens select(std::size_t prefix, std::size_t n, const area_sizes& sizes, std::size_t count) {
    const std::vector<float> scores(n);
    const std::array<std::size_t, 1> counts{count};
    selection out;
    out.reserve(1, n);
    prefix_suffix_selector{prefix}.select(
        {const_head_scores(scores, 1, n), {}, areas(sizes, n), counts, {}}, out);
    return test::list(out.kept(0));
}

TEST(PrefixSuffixSelector, ReproducesTheKnownAnswers) {
    // Known answers 11 (StreamingLLM) and 9 (T = 5 % and 1 %) of the specification.
    EXPECT_EQ(select(2, 10, {0, 0}, 6), (tokens{0, 1, 6, 7, 8, 9}));
    EXPECT_EQ(select(2, 8, {0, 0}, 4), (tokens{0, 1, 6, 7}));
    EXPECT_EQ(select(2, 8, {0, 0}, 5), (tokens{0, 1, 5, 6, 7}));
}

TEST(PrefixSuffixSelector, AreasComeFirst) {
    EXPECT_EQ(select(4, 10, {1, 3}, 6), (tokens{0, 1, 2, 7, 8, 9})) << "the prefix is shorter";
    EXPECT_EQ(select(1, 10, {3, 1}, 6), (tokens{0, 1, 2, 7, 8, 9})) << "the sinks are longer";
    EXPECT_EQ(select(0, 6, {0, 0}, 2), (tokens{4, 5}));
    EXPECT_EQ(select(9, 6, {0, 0}, 2), (tokens{0, 1}));
}

TEST(PrefixSuffixSelector, BudgetsBeyondTheSequenceKeepAll) {
    EXPECT_EQ(select(4, 3, {0, 0}, 100), (tokens{0, 1, 2}));
    EXPECT_EQ(select(4, 3, {4, 32}, 0), (tokens{0, 1, 2}));
    EXPECT_TRUE(select(4, 0, {4, 32}, 10).empty());
    EXPECT_TRUE(select(4, 5, {0, 0}, 0).empty());
}

} // namespace
} // namespace kvcrush
