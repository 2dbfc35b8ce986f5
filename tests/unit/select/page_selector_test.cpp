// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/cache/compact.hpp>
#include <kvcrush/cache/free_pages.hpp>
#include <kvcrush/compressor.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/select/page_selector.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

using tokens = std::vector<token_index>;

static_assert(Selector<page_selector<>, kv_view<float>>);

selection select(const page_selector<>& selector,
                 const std::vector<float>& scores,
                 std::size_t heads,
                 std::size_t budget,
                 const area_sizes& sizes = {0, 0}) {
    const std::size_t length = scores.size() / heads;
    const std::vector<std::size_t> counts(heads, budget);
    selection out;
    out.reserve(heads, scores.size());
    test::owned_scratch memory(selector.scratch_bytes({{heads, length, 1, 1}, heads}));
    const const_head_scores view(scores, heads, length);
    selector.select({view, view, areas(sizes, length), counts, memory.get()}, out);
    return out;
}

// Known answer 1c of the specification: page sums 10 4 15 4 and 3 18 2 11, important pages 2 and 1, distances to the
// alternating anchor 3 0 4 1. The published code lets head 0 alone say which pages are taken: head 1 gets page 1 twice.
const std::vector<float> known_scores{9, 1, 2, 2, 8, 7, 1, 3, 1, 2, 9, 9, 1, 1, 3, 8};

TEST(PageSelector, KnownAnswerWithCandidatesPerHead) {
    const selection kept = select({.page_size = 2, .share = 0.5}, known_scores, 2, 4);
    EXPECT_EQ(test::list(kept.kept(0)), (tokens{2, 3, 4, 5})) << "page 2, and page 1 for the rest";
    EXPECT_EQ(test::list(kept.kept(1)), (tokens{2, 3, 6, 7}))
        << "page 1, and the nearest that it does not have yet: page 3";
}

TEST(PageSelector, OneTableForAllHeadsKeepsTheSamePages) { // sums 13 22 17 15
    const selection kept =
        select({.page_size = 2, .share = 0.5, .table = page_table::shared}, known_scores, 2, 4);
    EXPECT_EQ(test::list(kept.kept(0)), (tokens{2, 3, 6, 7})) << "page 1, then 3 at distance 1";
    EXPECT_EQ(test::list(kept.kept(1)), test::list(kept.kept(0)));
}

TEST(PageSelector, TheBudgetIsABoundAndProtectedAreasStay) {
    const std::vector<float> scores = test::random_scores(3 * 300, 4);
    for (std::size_t budget = 48; budget <= 310; budget += 7) {
        const selection kept = select({.page_size = 16}, scores, 3, budget, {16, 32});
        for (std::size_t head = 0; head < 3; ++head) {
            const auto list = kept.kept(head);
            ASSERT_LE(list.size(), budget);
            ASSERT_GT(list.size() + 16, (std::min)(budget, std::size_t{300}));
            for (std::size_t t = 0; t < 16; ++t) {
                ASSERT_EQ(list[t], t);
            }
            for (std::size_t t = 0; t < 32; ++t) {
                ASSERT_EQ(list[list.size() - 1 - t], 299 - t);
            }
        }
    }
}

TEST(PageSelector, WithoutAWholePageTheNewestTokensStay) {
    const std::vector<float> scores = test::random_scores(100, 4);
    const selection kept = select({.page_size = 1000}, scores, 1, 50, {4, 6});
    ASSERT_EQ(kept.kept(0).size(), 50U);
    EXPECT_EQ(kept.kept(0)[3], 3U);
    EXPECT_EQ(kept.kept(0)[4], 54U);
}

TEST(PageSelector, FreesPagesOfTheCache) {
    constexpr std::size_t page_size = 4;
    const kv_shape shape{2, 32, 3, 3};
    std::vector<float> keys(shape.seq_len * 6);
    std::vector<float> values(keys.size());
    std::vector<page_index> table;
    for (std::size_t i = 0; i < shape.seq_len / page_size; ++i) {
        table.push_back(static_cast<page_index>(7 - i));
    }
    const page_pool pool{
        8, page_size, page_strides::hnd(2, page_size, 3), page_strides::hnd(2, page_size, 3)};
    const paged_kv_view<float> kv(keys, values, pool, shared_table{table}, shape);
    test::fill(kv);
    compressor crush(knorm_scorer{},
                     page_selector<>{.page_size = page_size, .table = page_table::shared});
    crush.plan({shape}, budget::tokens(16, {4, 4}));
    const selection& kept = crush.select(kv);
    EXPECT_EQ(kept.kept(0).size(), 16U);
    std::array<page_index, 8> freed{};
    EXPECT_EQ(droppable_pages(kv, kept, std::span(freed)), 4U) << "where nothing moves";
    for (std::size_t i = 0; i < 4; ++i) {
        const std::size_t page = static_cast<std::size_t>(7 - freed[i]); // of the sequence
        for (const token_index token : kept.kept(0)) {
            EXPECT_NE(token / page_size, page);
        }
    }
    EXPECT_EQ(droppable_pages(kv, selection{}, std::span(freed)), 0U) << "no answer frees nothing";
    EXPECT_EQ(free_pages(kv, selection{}, std::span(freed)), 0U);
    compact(kv, kept);
    EXPECT_EQ(free_pages(kv, kept, std::span(freed)), 4U);
    for (std::size_t i = 0; i < 16; ++i) { // whole pages moved as they were
        EXPECT_EQ(kv.key(1, i)[2], test::marked(false, 1, kept.kept(1)[i], 2));
    }
}

TEST(PageSelector, RefusesWhatMakesNoSense) {
    const auto refuses = [](const page_selector<>& selector) {
        EXPECT_THROW(selector.validate(), std::invalid_argument);
    };
    refuses({.page_size = 0});
    refuses({.page_size = 4097});
    refuses({.share = 1.5});
    refuses({.share = std::numeric_limits<double>::quiet_NaN()});
    refuses({.quantile = -0.1});
    refuses({.bits = page_bits::summed_rest});
    refuses({.anchor = {.count = 0}});
    refuses({.anchor = {.kind = anchor_kind::mean}, .span = anchor_span::page});
    refuses({.anchor = {.count = 2}, .span = anchor_span::page});
    EXPECT_NO_THROW(page_selector<>{}.validate());

    compressor crush(knorm_scorer{}, page_selector<>{.page_size = 512});
    EXPECT_NO_THROW(crush.plan({{8, 4096, 4, 4}}, budget::tokens(2048)));
    EXPECT_THROW(crush.plan({{9, 4096, 4, 4}}, budget::tokens(2048)), std::invalid_argument)
        << "4608 bits a page";
}

} // namespace
} // namespace kvcrush
