// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/cache/compact.hpp>
#include <kvcrush/cache/free_pages.hpp>
#include <kvcrush/core/paged_kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/select/openvino_compat.hpp>

#include "reference/openvino_compat.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

using blocks = std::vector<std::uint32_t>;

blocks evict(openvino_evictor& evictor, std::size_t layer = 0) {
    const std::span<const std::uint32_t> evicted = evictor.evict(layer);
    return {evicted.begin(), evicted.end()};
}

void add(openvino_evictor& evictor, const std::vector<float>& scores, std::size_t scored = 1) {
    for (std::size_t layer = 0; layer < evictor.num_layers(); ++layer) {
        evictor.register_scores(layer, scores, scored);
    }
}

/// Known answer 1b of the specification with a sink block in front and a recent block behind: six blocks of two
/// tokens, of which two are to stay. No pool.
openvino_compat known_settings(anchor_kind kind, std::size_t budget) {
    return {.block_size = 2,
            .num_sink_tokens = 2,
            .num_recent_tokens = 2,
            .max_cache_tokens = 8,
            .pooling_kernel_size = 1,
            .observation_window = 0,
            .num_representative_blocks = budget,
            .anchor = kind};
}

blocks known(block_aggregation aggregation, anchor_kind kind, std::size_t budget) {
    openvino_compat settings = known_settings(kind, budget);
    settings.aggregation = aggregation;
    openvino_evictor evictor(settings, 1, 16);
    add(evictor, {50, 50, 8, 1, 2, 9, 1, 1, 6, 7, 3, 2, 5, 4, 0, 0});
    return evict(evictor);
}

TEST(OpenvinoCompat, KnownAnswersWithoutRepresentatives) { // blocks of the sequence: one more
    EXPECT_EQ(known(block_aggregation::sum, anchor_kind::zeros, 0), (blocks{1, 3, 5, 6}));
}

TEST(OpenvinoCompat, KnownAnswersWithRepresentatives) {
    // Reach is 14 to 3 behind one recent block, which leaves the order of known answer 1b: 0, 1, 2 and 4 would go.
    EXPECT_EQ(known(block_aggregation::norm_sum, anchor_kind::zeros, 0), (blocks{1, 2, 3, 5}));
    EXPECT_EQ(known(block_aggregation::norm_sum, anchor_kind::zeros, 2), (blocks{2, 5}));
    EXPECT_EQ(known(block_aggregation::norm_sum, anchor_kind::alternate, 2), (blocks{1, 3}));
    EXPECT_EQ(known(block_aggregation::norm_sum, anchor_kind::ones, 2), (blocks{2, 5}));
    EXPECT_EQ(known(block_aggregation::norm_sum, anchor_kind::mean, 2), (blocks{2, 5}));
    EXPECT_EQ(known(block_aggregation::norm_sum, anchor_kind::mean, 5), (blocks{1, 2, 3, 5}));
    EXPECT_EQ(known(block_aggregation::norm_sum, anchor_kind::mean, 4), blocks{});
}

TEST(OpenvinoCompat, CountsScoredQueriesOfEachChunk) {
    const openvino_compat settings{.observation_window = 8};
    EXPECT_EQ(settings.scored_queries(20, 0, 5), 0U);
    EXPECT_EQ(settings.scored_queries(20, 5, 5), 0U);
    EXPECT_EQ(settings.scored_queries(20, 10, 5), 3U);
    EXPECT_EQ(settings.scored_queries(20, 15, 5), 5U);
    EXPECT_EQ(settings.scored_queries(20, 20, 1), 1U);
    EXPECT_EQ(settings.scored_queries(5, 0, 5), 5U); // shorter than the window
    EXPECT_EQ(openvino_compat{.observation_window = 0}.scored_queries(20, 0, 5), 5U);
}

TEST(OpenvinoCompat, WaitsUntilAWholeBlockIsOverTheLimit) {
    const openvino_compat settings = known_settings(anchor_kind::zeros, 0);
    openvino_evictor evictor(settings, 2, 10);
    add(evictor, std::vector<float>(1, 1.0F)); // sinks only
    EXPECT_FALSE(evictor.needs_eviction());
    add(evictor, std::vector<float>(9, 1.0F));
    EXPECT_FALSE(evictor.needs_eviction());
    EXPECT_EQ(evict(evictor), blocks{});
    add(evictor, std::vector<float>(10, 1.0F));
    EXPECT_TRUE(evictor.needs_eviction());
    EXPECT_EQ(evictor.num_cached(), 10U);
    EXPECT_EQ(evict(evictor).size(), 1U);
    EXPECT_EQ(evictor.num_cached(), 8U);
    EXPECT_TRUE(evictor.needs_eviction(1)); // layers are asked one by one
}

TEST(OpenvinoCompat, OfEqualBlocksTheEarlierGo) {
    openvino_compat settings = known_settings(anchor_kind::zeros, 0);
    settings.aggregation = block_aggregation::sum;
    openvino_evictor evictor(settings, 1, 16);
    add(evictor, std::vector<float>(16, 1.0F));
    EXPECT_EQ(evict(evictor), (blocks{1, 2, 3, 4}));
}

/// Cached tokens after a long prompt and many decoded tokens.
std::size_t settled(const openvino_compat& settings, std::size_t prompt, std::size_t decoded) {
    openvino_evictor evictor(settings, 1, prompt + decoded);
    std::size_t cached = prompt;
    for (std::size_t step = 0; step <= decoded; ++step) {
        std::vector<float> scores;
        for (std::size_t t = 0; t < cached; ++t) {
            scores.push_back(random_unit(settings.seed, step, t));
        }
        add(evictor, scores, step == 0 ? settings.observation_window : 1);
        cached -= evict(evictor).size() * settings.block_size;
        ++cached;
    }
    return cached - 1;
}

TEST(OpenvinoCompat,
     TheBudgetComesOnTopForLongPrompts) { // 672 + 4 * 32, and the block being filled
    EXPECT_EQ(settled({}, 2048, 10 * 32), 672U);
    EXPECT_EQ(settled({.num_representative_blocks = 4}, 2048, 10 * 32), 672U + 4U * 32U);
}

TEST(OpenvinoCompat, AShortPromptNeverGivesTheBudgetAChance) {
    // The cache grows by one block at a time, so there is one candidate, which a budget of two and more passes by.
    EXPECT_EQ(settled({.num_representative_blocks = 4}, 600, 72 + 10 * 32), 672U);
    EXPECT_EQ(settled({.num_representative_blocks = 1}, 600, 72 + 10 * 32), 672U + 32U);
}

TEST(OpenvinoCompat, DrawsAnchorsAsTheStandardLibraryOfGccDoes) {
#ifdef __GLIBCXX__
    for (const std::uint32_t seed : {0U, 1U, 42U, 0xFFFFFFFFU}) {
        std::mt19937 ours(seed);
        std::mt19937 theirs(seed);
        std::uniform_int_distribution<int> coin(0, 1);
        for (int i = 0; i < 10000; ++i) {
            ASSERT_EQ(static_cast<int>(ours() >> 31), coin(theirs));
        }
    }
#else
    GTEST_SKIP() << "another standard library";
#endif
}

TEST(OpenvinoCompat, TheGeneratorGoesOnOverLayers) {
    // With the same scores in all layers, only the anchors differ.
    const openvino_compat settings{.block_size = 16,
                                   .num_sink_tokens = 16,
                                   .num_recent_tokens = 16,
                                   .max_cache_tokens = 48,
                                   .observation_window = 0,
                                   .num_representative_blocks = 3};
    openvino_evictor evictor(settings, 8, 640);
    openvino_evictor again(settings, 8, 640);
    std::vector<float> scores;
    for (std::size_t t = 0; t < 640; ++t) {
        scores.push_back(random_unit(1, 0, t));
    }
    add(evictor, scores);
    add(again, scores);
    bool differ = false;
    const blocks first = evict(evictor, 0);
    EXPECT_EQ(evict(again, 0), first);
    for (std::size_t layer = 1; layer < 8; ++layer) {
        const blocks next = evict(evictor, layer);
        EXPECT_EQ(evict(again, layer), next);
        EXPECT_EQ(next.size(), first.size());
        differ = differ || next != first;
    }
    EXPECT_TRUE(differ);
}

TEST(OpenvinoCompat, EvictedBlocksGiveWholePagesBack) {
    constexpr std::size_t page_size = 2;
    constexpr std::size_t heads = 3;
    constexpr std::size_t tokens = 17; // the last page is half full
    constexpr std::size_t pages = 9;
    std::vector<f16> keys(pages * page_size * heads * 4);
    std::vector<f16> values(pages * page_size * heads * 5);
    const std::vector<page_index> table{8, 0, 7, 1, 6, 2, 5, 3, 4};
    const page_pool pool{pages,
                         page_size,
                         page_strides::hnd(heads, page_size, 4),
                         page_strides::nhd(heads, page_size, 5)};
    const paged_kv_view<f16> kv(
        keys, values, pool, shared_table{table}, kv_shape{heads, tokens, 4, 5});
    test::fill(kv);

    openvino_evictor evictor(known_settings(anchor_kind::alternate, 2), 1, tokens);
    add(evictor, {50, 50, 8, 1, 2, 9, 1, 1, 6, 7, 3, 2, 5, 4, 0, 0, 0});
    const blocks evicted = evict(evictor);
    ASSERT_EQ(evicted, (blocks{1, 3}));
    selection kept;
    kept.reserve(heads, heads * tokens);
    keep_other_blocks(evicted, page_size, tokens, heads, kept);
    const std::vector<token_index> expected{0, 1, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    compact(kv, kept);
    for (std::size_t head = 0; head < heads; ++head) {
        ASSERT_EQ(test::list(kept.kept(head)), expected);
        for (std::size_t i = 0; i < expected.size(); ++i) {
            EXPECT_EQ(to_float(kv.key(head, i)[3]), test::marked(false, head, expected[i], 3));
            EXPECT_EQ(to_float(kv.value(head, i)[4]), test::marked(true, head, expected[i], 4));
        }
    }
    std::vector<page_index> freed(pages);
    freed.resize(free_pages(kv, kept, freed));
    EXPECT_EQ(freed, (std::vector<page_index>{3, 4})); // two blocks went, two pages are free
    EXPECT_EQ(evictor.num_cached(), expected.size());
}

TEST(OpenvinoCompat, KeepsEverythingWhereNoBlockGoes) {
    selection kept;
    kept.reserve(2, 10);
    keep_other_blocks({}, 4, 5, 2, kept);
    EXPECT_EQ(test::list(kept.kept(1)), (std::vector<token_index>{0, 1, 2, 3, 4}));
    keep_other_blocks(blocks{0}, 5, 5, 2, kept);
    EXPECT_EQ(kept.num_kv_heads(), 2U);
    EXPECT_EQ(kept.total(), 0U);
}

std::string refusal(const openvino_compat& settings) {
    try {
        settings.validate();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "";
}

TEST(OpenvinoCompat, RefusesSettingsThatMakeNoSense) {
    EXPECT_EQ(refusal({}), "");
    EXPECT_EQ(refusal({.block_size = 0}),
              "kvcrush::block_refinement: block_size is 0; it must lie in [1, 4096]");
    EXPECT_EQ(refusal({.num_sink_tokens = 33}),
              "kvcrush::openvino_compat: num_sink_tokens is 33; it must be a positive multiple of "
              "block_size, which is 32");
    EXPECT_NE(refusal({.num_sink_tokens = 0}), "");
    EXPECT_NE(refusal({.num_recent_tokens = 0}), "");
    EXPECT_NE(refusal({.num_recent_tokens = 100}), "");
    EXPECT_NE(refusal({.max_cache_tokens = 0}), "");
    EXPECT_NE(refusal({.max_cache_tokens = 673}), "");
    EXPECT_EQ(refusal({.max_cache_tokens = 160}),
              "kvcrush::openvino_compat: max_cache_tokens is 160; it must be larger than 32 sinks "
              "+ 128 recent tokens");
    EXPECT_EQ(refusal({.max_cache_tokens = 192}), "");
    EXPECT_EQ(refusal({.pooling_kernel_size = 0}),
              "kvcrush::openvino_compat: pooling_kernel_size is 0; it must lie in [1, 64]");
    EXPECT_EQ(refusal({.anchor = anchor_kind::inverse_mean}),
              "kvcrush::openvino_compat: anchor is inverse_mean; it must be random, zeros, ones, "
              "mean or alternate");
}

TEST(OpenvinoCompat, RefusesSequencesItCannotServe) {
    EXPECT_NO_THROW(openvino_evictor({}, 1, 673));
    EXPECT_THROW(openvino_evictor({}, 0, 4096), std::invalid_argument);
    EXPECT_THROW(openvino_evictor({}, 1, 672), std::invalid_argument);
    EXPECT_THROW(openvino_evictor({}, 1, std::size_t{1} << 32), std::invalid_argument);
    EXPECT_THROW(openvino_evictor({.num_sink_tokens = 0}, 1, 4096), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
