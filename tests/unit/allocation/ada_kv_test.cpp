// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/allocation/ada_kv.hpp>
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/select/top_k.hpp>

#include "reference/ada_kv.hpp"
#include "unit/simd/scores.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

using rows = std::vector<std::vector<float>>;

std::vector<std::size_t> counts_of(const ada_kv_allocator& ada,
                                   const rows& scores,
                                   std::size_t tokens,
                                   const area_sizes& sizes = {0, 0}) {
    const std::size_t seq_len = scores.empty() ? 0 : scores.front().size();
    std::vector<float> flat;
    for (const std::vector<float>& row : scores) {
        flat.insert(flat.end(), row.begin(), row.end());
    }
    ada.validate();
    std::vector<std::byte> memory(ada.scratch_bytes({{scores.size(), seq_len, 1, 1}, 0}));
    std::vector<std::size_t> counts(scores.size(), 12345);
    ada.allocate(const_head_scores(flat, scores.size(), seq_len),
                 areas(sizes, seq_len),
                 tokens,
                 counts,
                 scratch(memory));
    return counts;
}

rows random_rows(reference::score_kind kind, std::size_t heads, std::size_t tokens) {
    rows scores(heads, std::vector<float>(tokens));
    for (std::size_t head = 0; head < heads; ++head) {
        reference::fill_scores(scores[head], kind, 7 + head);
        for (float& score : scores[head]) {
            score *= static_cast<float>(1 + head * head);
        }
    }
    return scores;
}

using counts = std::vector<std::size_t>;
const rows two_heads{{10, 1, 1, 1, 1, 1}, {6, 5, 4, 3, 2, 1}};

TEST(AdaKv, KnownAnswersOfThePooledForm) {
    EXPECT_EQ(counts_of({.floor = 0.34}, two_heads, 3), (counts{1, 5}));
    EXPECT_EQ(counts_of({.floor = 0.67}, two_heads, 3), (counts{2, 4}));
    EXPECT_EQ(counts_of({.floor = 1.0}, two_heads, 3), (counts{3, 3}));
}

TEST(AdaKv, KnownAnswersOfThePublishedForm) {
    const auto published = [](double floor, bool normalise = false) {
        return ada_kv_allocator{
            .form = ada_kv_form::published, .floor = floor, .normalise = normalise};
    };
    EXPECT_EQ(counts_of(published(0.0), two_heads, 3), (counts{1, 5}));
    EXPECT_EQ(counts_of(published(0.5), two_heads, 3), (counts{2, 4}));
    EXPECT_EQ(counts_of(published(0.0, true), two_heads, 3), (counts{1, 5}));
    EXPECT_EQ(counts_of(published(0.2), two_heads, 4), (counts{2, 4})) << "2 tokens are lost";
    EXPECT_EQ(counts_of(published(0.5), two_heads, 4), (counts{4, 4}));
}

TEST(AdaKv, MixedKeepsTheTotalThatPublishedLoses) {
    // c = 3, 5; ceil(0.2 * 4) = 1 each, 6 more in proportion to c: 2.25 and 3.75.
    EXPECT_EQ(counts_of({.form = ada_kv_form::mixed, .floor = 0.2}, two_heads, 4), (counts{3, 5}));
    // ceil(0.5 * 3) = 2 each, 2 more: 1/3 and 5/3.
    EXPECT_EQ(counts_of({.form = ada_kv_form::mixed, .floor = 0.5}, two_heads, 3), (counts{2, 4}));
}

TEST(AdaKv, ProtectedTokensAreNoPartOfTheContest) {
    rows scores = two_heads;
    for (std::vector<float>& row : scores) {
        row.insert(row.begin(), 1000.0F);
        row.insert(row.end(), 2, -1000.0F);
    }
    EXPECT_EQ(counts_of({.floor = 0.34}, scores, 6, {1, 2}), (counts{4, 8}));
    EXPECT_EQ(counts_of({}, scores, 3, {1, 2}), (counts{3, 3})) << "room for the protected alone";
    EXPECT_EQ(counts_of({}, scores, 9, {1, 2}), (counts{9, 9}));
    EXPECT_EQ(counts_of({}, scores, 9, {50, 2}), (counts{9, 9}));
}

TEST(AdaKv, NormaliseWeighsHeadsByWhatTheirBestHold) {
    // The second head is twice as large but flat: 2 best of 4 hold half of it, of the first 95 %.
    const rows scores{{10.0F, 9.0F, 0.5F, 0.5F}, {10.5F, 10.5F, 10.5F, 10.5F}};
    EXPECT_EQ(counts_of({.floor = 0.0}, scores, 2), (counts{0, 4}));
    EXPECT_EQ(counts_of({.floor = 0.0, .normalise = true}, scores, 2), (counts{2, 2}));
}

TEST(AdaKv, AgreesWithSortingEverything) {
    for (const reference::score_kind kind : reference::all_score_kinds) {
        for (const std::size_t heads : std::initializer_list<std::size_t>{1, 2, 3, 8}) {
            for (const std::size_t tokens : std::initializer_list<std::size_t>{1, 2, 63, 65, 300}) {
                const rows scores = random_rows(kind, heads, tokens);
                for (const double part : {0.0, 0.1, 0.5, 0.9, 1.0}) {
                    const auto even = static_cast<std::size_t>(part * static_cast<double>(tokens));
                    for (const double floor : {0.0, 0.2, 0.7, 1.0}) {
                        const std::string where =
                            std::to_string(static_cast<int>(kind)) + ": " + std::to_string(heads) +
                            " x " + std::to_string(tokens) + ", " + std::to_string(even) +
                            " safe " + std::to_string(floor);
                        const auto safe =
                            static_cast<std::size_t>(floor * static_cast<double>(even));
                        ASSERT_EQ(counts_of({.floor = floor}, scores, even),
                                  reference::ada_kv_pooled(scores, even, safe))
                            << where;
                        if (even > 0 && even < tokens) {
                            ASSERT_EQ(counts_of({.form = ada_kv_form::published, .floor = floor},
                                                scores,
                                                even),
                                      reference::ada_kv_published(scores, even, floor))
                                << where;
                        }
                        const counts mixed =
                            counts_of({.form = ada_kv_form::mixed, .floor = floor}, scores, even);
                        ASSERT_EQ(std::accumulate(mixed.begin(), mixed.end(), std::size_t{0}),
                                  heads * even)
                            << where;
                        ASSERT_GE(*std::min_element(mixed.begin(), mixed.end()), safe) << where;
                        ASSERT_LE(*std::max_element(mixed.begin(), mixed.end()), tokens) << where;
                    }
                }
            }
        }
    }
}

TEST(AdaKv, InfiniteAndMissingScoresOfOneHeadLeaveTheOthersTheirFloor) {
    const float inf = std::numeric_limits<float>::infinity();
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const rows scores{
        std::vector<float>(50, inf), std::vector<float>(50, 1.0F), std::vector<float>(50, nan)};
    for (const bool normalise : {false, true}) {
        EXPECT_EQ(counts_of({.normalise = normalise}, scores, 10), (counts{26, 2, 2}));
    }
}

TEST(AdaKv, RefusesAFloorOutsideZeroToOne) {
    EXPECT_THROW((ada_kv_allocator{.floor = -0.1}.validate()), std::invalid_argument);
    EXPECT_THROW((ada_kv_allocator{.floor = 1.1}.validate()), std::invalid_argument);
    EXPECT_THROW((ada_kv_allocator{.floor = std::nan("")}.validate()), std::invalid_argument);
    EXPECT_THROW((ada_kv_allocator{}.validate_for({{65536, 65536, 1, 1}, 0})),
                 std::invalid_argument);
    EXPECT_NO_THROW((ada_kv_allocator{}.validate_for({{65536, 65535, 1, 1}, 0})));
}

TEST(AdaKv, TheCompressorKeepsTheExactTotal) {
    const kv_shape shape{4, 300, 8, 8};
    std::vector<float> keys(4 * 300 * 8);
    std::vector<float> queries(8 * 32 * 8);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        keys[i] = static_cast<float>(1 + i / 2400) * (random_unit(1, 0, i) - 0.5F);
    }
    for (std::size_t i = 0; i < queries.size(); ++i) {
        queries[i] = 6.0F * (random_unit(2, 0, i) - 0.5F);
    }
    compressor crush(snapkv_scorer{}, top_k_selector{}, ada_kv_allocator{});
    crush.plan({shape, 8}, budget::tokens(100));
    const selection& kept =
        crush.select(kv_view<float>(keys, keys, shape), query_view(queries, 8, 32, 8));
    EXPECT_EQ(kept.total(), 400U);
    EXPECT_NE(kept.kept(0).size(), 100U);
    for (std::size_t head = 0; head < 4; ++head) {
        EXPECT_GE(kept.kept(head).size(), 36U + 12U) << "a fifth of 64 is safe";
    }
}

} // namespace
} // namespace kvcrush
