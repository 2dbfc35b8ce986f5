// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/signature/growing_signatures.hpp>
#include <kvcrush/signature/head_signature.hpp>

#include "unit/simd/scores.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <set>
#include <span>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

/// Each head has scores of another kind.
std::vector<std::vector<float>>
mixed_scores(std::size_t heads, std::size_t tokens, std::uint64_t seed) {
    std::vector<std::vector<float>> rows(heads, std::vector<float>(tokens));
    for (std::size_t h = 0; h < heads; ++h) {
        const auto kind = reference::all_score_kinds[h % reference::all_score_kinds.size()];
        reference::fill_scores(rows[h], kind, seed + h);
    }
    return rows;
}

std::vector<float>
piece(const std::vector<std::vector<float>>& rows, std::size_t begin, std::size_t end) {
    std::vector<float> scores;
    for (const std::vector<float>& row : rows) {
        scores.insert(scores.end(),
                      row.begin() + static_cast<std::ptrdiff_t>(begin),
                      row.begin() + static_cast<std::ptrdiff_t>(end));
    }
    return scores;
}

template <typename Code>
std::vector<Code>
fresh(const std::vector<std::vector<float>>& rows, std::size_t tokens, double quantile) {
    const std::vector<float> scores = piece(rows, 0, tokens);
    std::vector<Code> codes(tokens * simd::words_per_code<Code>(rows.size()));
    const head_signature signature{.quantile = quantile};
    signature.build(const_head_scores(scores, rows.size(), tokens),
                    areas({0, 0}, tokens),
                    std::span<Code>(codes),
                    scratch());
    return codes;
}

template <typename Code>
void expect_fresh(
    std::size_t heads, std::size_t begin, std::size_t tokens, std::size_t most, double quantile) {
    const auto rows = mixed_scores(heads, tokens, heads + tokens);
    growing_signatures<Code> growing;
    growing.plan(heads, tokens, quantile);
    growing.start(const_head_scores(piece(rows, 0, begin), heads, begin));
    std::vector<Code> before = fresh<Code>(rows, begin, quantile);
    const std::size_t words = growing.words_per_code();
    ASSERT_EQ(before, std::vector<Code>(growing.codes().begin(), growing.codes().end()));
    for (std::size_t n = begin; n < tokens;) {
        const std::size_t count = (std::min)(tokens - n, 1 + random_bits(2, most, n) % most);
        growing.append(const_head_scores(piece(rows, n, n + count), heads, count));
        n += count;
        ASSERT_EQ(n, growing.num_tokens());
        const std::vector<Code> expected = fresh<Code>(rows, n, quantile);
        ASSERT_EQ(expected, std::vector<Code>(growing.codes().begin(), growing.codes().end()))
            << heads << " heads, " << n << " tokens, quantile " << quantile;
        std::set<std::size_t> listed(growing.changed().begin(), growing.changed().end());
        ASSERT_EQ(listed.size(), growing.changed().size());
        for (std::size_t t = 0; t < before.size() / words; ++t) {
            const auto at = static_cast<std::ptrdiff_t>(t * words);
            const auto end = at + static_cast<std::ptrdiff_t>(words);
            const bool same =
                std::equal(before.begin() + at, before.begin() + end, expected.begin() + at);
            if (count <= growing_cut::max_append) {
                ASSERT_EQ(!same, listed.count(t) != 0) << "token " << t << " of " << n;
            } else {
                ASSERT_TRUE(same || listed.count(t) != 0) << "token " << t << " of " << n;
            }
        }
        before = expected;
    }
}

TEST(GrowingSignatures, EqualAFreshBuildAfterEveryAppend) {
    expect_fresh<std::uint32_t>(28, 0, 3000, 40, 0.5);
    expect_fresh<std::uint64_t>(14, 1500, 3000, 16, 0.5);
    expect_fresh<std::uint64_t>(70, 100, 1500, 40, 0.3);
    expect_fresh<std::uint8_t>(5, 0, 2500, 3, 0.9);
    expect_fresh<std::uint16_t>(14, 0, 2500, 40, 0.0);
    expect_fresh<std::uint16_t>(14, 0, 2500, 40, 1.0);
}

TEST(GrowingSignatures, TakeManyTokensAtOnce) {
    expect_fresh<std::uint32_t>(28, 10, 5000, 900, 0.5);
}

TEST(GrowingSignatures, StartAgainForgetsEverything) {
    const auto rows = mixed_scores(8, 200, 3);
    growing_signatures<std::uint8_t> growing;
    growing.plan(8, 200, 0.5);
    growing.start(const_head_scores(piece(rows, 0, 150), 8, 150));
    growing.append(const_head_scores(piece(rows, 150, 200), 8, 50));
    growing.start(const_head_scores(piece(rows, 0, 20), 8, 20));
    EXPECT_TRUE(growing.changed().empty());
    EXPECT_EQ(fresh<std::uint8_t>(rows, 20, 0.5),
              std::vector<std::uint8_t>(growing.codes().begin(), growing.codes().end()));
}

TEST(GrowingSignatures, RefuseWhatCannotBe) {
    growing_signatures<std::uint8_t> narrow;
    EXPECT_THROW(narrow.plan(9, 10, 0.5), std::invalid_argument);
    EXPECT_THROW(narrow.plan(0, 10, 0.5), std::invalid_argument);
    EXPECT_THROW(narrow.plan(8, 10, -0.5), std::invalid_argument);
    growing_signatures<> wide;
    EXPECT_NO_THROW(wide.plan(4096, 10, 0.5));
    EXPECT_THROW(wide.plan(4097, 10, 0.5), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
