// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/allocation/ada_kv.hpp>
#include <kvcrush/cache/kv_cache.hpp>
#include <kvcrush/recipe/model_plans.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/retention/squared_attention.hpp>
#include <kvcrush/select/prefix_suffix.hpp>

#include "unit/recipe/model_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

namespace kvcrush {
namespace {

void expect_protected(const kv_cache& cache) {
    for (std::size_t l = 0; l < num_layers; ++l) {
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            const auto ages = cache.layer(l).heads()[head].by_age();
            ASSERT_GE(ages.size(), few.num_sink_tokens + few.num_recent_tokens);
            EXPECT_EQ(ages[1].position, 1U);
            EXPECT_EQ(ages[ages.size() - few.num_recent_tokens].position,
                      cache.tokens_seen() - few.num_recent_tokens);
        }
    }
}

TEST(ModelPlans, LayersOfAPyramidKeepLessAndLess) {
    kv_cache cache = filled({.scorer = snapkv_scorer{},
                             .model_allocator = pyramid_kv{},
                             .keep = cache_budget::keep_ratio(0.25)});
    cache.compress();
    const std::vector<std::size_t> wanted =
        pyramid_kv{}.layer_tokens(num_layers, 200, budget::keep_ratio(0.25, few));
    for (std::size_t l = 0; l < num_layers; ++l) {
        EXPECT_EQ(rows_of_layer(cache, l), num_kv_heads * wanted[l]) << l;
    }
    expect_protected(cache);
}

TEST(ModelPlans, APyramidStaysOneWhenTheCacheIsCompressedAgain) {
    kv_cache cache = filled({.scorer = snapkv_scorer{},
                             .allocator = ada_kv_allocator{},
                             .model_allocator = pyramid_kv{},
                             .keep = cache_budget::tokens(50)});
    for (int round = 0; round < 3; ++round) {
        cache.compress();
        EXPECT_EQ(rows_of(cache), num_layers * num_kv_heads * 50) << round;
        EXPECT_GT(rows_of_layer(cache, 0), rows_of_layer(cache, num_layers - 1) + 40) << round;
        expect_protected(cache);
        feed(cache, 30);
    }
}

TEST(ModelPlans, BlocksAreFreedWhereTheyCostLeast) {
    const kv_compress blocks{.block_size = 8};
    kv_cache cache = filled({.scorer = squared_attention_scorer{},
                             .model_allocator = blocks,
                             .keep = cache_budget::keep_ratio(0.3)},
                            203);
    std::vector<std::vector<float>> scores;
    std::vector<const_head_scores> metrics;
    for (std::size_t l = 0; l < num_layers; ++l) {
        scores.push_back(cache.scores(l));
    }
    for (const std::vector<float>& own : scores) {
        metrics.emplace_back(own, num_kv_heads, std::size_t{203});
    }
    const head_counts wanted = blocks.counts(metrics, budget::keep_ratio(0.3, few));
    cache.compress();
    for (std::size_t l = 0; l < num_layers; ++l) {
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            EXPECT_EQ(rows_of(cache, l, head), wanted.layer(l)[head]) << l << ' ' << head;
        }
    }
}

TEST(ModelPlans, EverythingStaysWhereThereIsRoomForIt) {
    kv_cache cache = filled({.scorer = snapkv_scorer{}, .model_allocator = kv_compress{}}, 203);
    cache.compress();
    EXPECT_EQ(rows_of(cache), num_layers * num_kv_heads * 203);
}

TEST(ModelPlans, HeadsOfDifferentLengthsGiveBlocksAgain) {
    kv_cache cache = filled({.scorer = snapkv_scorer{},
                             .allocator = ada_kv_allocator{},
                             .model_allocator = kv_compress{.block_size = 4},
                             .keep = cache_budget::tokens(40)});
    for (int round = 0; round < 3; ++round) {
        cache.compress();
        EXPECT_LE(rows_of(cache), num_layers * num_kv_heads * 40) << round;
        EXPECT_GT(rows_of(cache), num_layers * num_kv_heads * 35) << round;
        expect_protected(cache);
        feed(cache, 17);
    }
}

/// Every method, on caches whose heads become longer and shorter.
TEST(ModelPlans, AnyMethodCompressesAgainAndAgain) {
    const std::vector<any_model_allocator> methods{
        pyramid_kv{},
        kv_compress{.block_size = 4},
        baklava{},
        baklava{.form = baklava_form::two_classes},
        duo_attention_plan{},
        head_level{},
        dbudget_kv{.threshold = 0.3, .num_sink_tokens = 2}};
    for (const any_model_allocator& method : methods) {
        kv_cache cache = filled({.scorer = snapkv_scorer{},
                                 .allocator = ada_kv_allocator{},
                                 .model_allocator = method,
                                 .keep = cache_budget::keep_ratio(0.4)});
        const bool takes_budget = method.policy_name() != "dbudget_kv";
        for (int round = 0; round < 3; ++round) {
            cache.compress();
            const auto seen = static_cast<double>(cache.tokens_seen());
            if (takes_budget) {
                EXPECT_LE(cache.mean_rows(), 0.4 * seen + 1e-9) << method.policy_name();
                expect_protected(cache);
            } else {
                EXPECT_LT(cache.mean_rows(), seen) << method.policy_name();
            }
            feed(cache, 25);
        }
    }
}

TEST(ModelPlans, OnFirstCompressionBudgetsAreExact) {
    for (const any_model_allocator& method : {any_model_allocator(pyramid_kv{}),
                                              any_model_allocator(baklava{}),
                                              any_model_allocator(head_level{})}) {
        kv_cache cache = filled({.scorer = snapkv_scorer{},
                                 .model_allocator = method,
                                 .keep = cache_budget::tokens(60)});
        cache.compress();
        EXPECT_EQ(rows_of(cache), num_layers * num_kv_heads * 60) << method.policy_name();
    }
}

TEST(ModelPlans, SelectorsThatLookAtNoScoresLeavePlansTheirs) {
    const auto counts = [](any_selector selector) {
        kv_cache cache = filled({.scorer = snapkv_scorer{},
                                 .selector = std::move(selector),
                                 .model_allocator = head_level{},
                                 .keep = cache_budget::keep_ratio(0.3)});
        cache.compress();
        std::vector<std::size_t> rows;
        for (std::size_t i = 0; i < num_layers * num_kv_heads; ++i) {
            rows.push_back(rows_of(cache, i / num_kv_heads, i % num_kv_heads));
        }
        return rows;
    };
    EXPECT_EQ(counts(top_k_selector{}), counts(prefix_suffix_selector{}));
}

TEST(ModelPlans, SomeHeadsKeepEverythingTheOthersStream) {
    kv_cache cache = filled({.scorer = snapkv_scorer{},
                             .model_allocator = duo_attention_plan{},
                             .keep = cache_budget::keep_ratio(0.52)});
    cache.compress();
    std::size_t full = 0;
    for (std::size_t i = 0; i < num_layers * num_kv_heads; ++i) {
        const std::size_t rows = rows_of(cache, i / num_kv_heads, i % num_kv_heads);
        EXPECT_TRUE(rows == 200 || rows == 8) << rows;
        full += rows == 200 ? 1U : 0U;
    }
    EXPECT_EQ(full, 4U);

    kv_cache fixed = filled({.scorer = snapkv_scorer{},
                             .model_allocator = duo_attention{.full_share = 0.25},
                             .keep = cache_budget::keep_ratio(0.9)});
    fixed.compress();
    EXPECT_EQ(rows_of(fixed), 2U * 200U + 6U * 8U) << "whatever the budget";
    EXPECT_THROW(any_model_allocator(duo_attention_plan{1.5}), std::invalid_argument);
}

TEST(ModelPlans, DbudgetKeepsSinksAndTheEnd) {
    const dbudget_kv how{.threshold = 0.2, .num_sink_tokens = 3, .last = 4, .full_layers = 1};
    kv_cache cache = filled({.model_allocator = how});
    const auto choice = cache.choose();
    ASSERT_EQ(choice.size(), num_layers);
    EXPECT_EQ(choice[0].kept.total(), num_kv_heads * 200);
    for (std::size_t l = 1; l < num_layers; ++l) {
        const auto first = choice[l].kept.kept(0);
        const auto second = choice[l].kept.kept(1);
        EXPECT_TRUE(std::equal(first.begin(), first.end(), second.begin(), second.end()));
        ASSERT_LT(first.size(), 200U);
        ASSERT_GT(first.size(), 3U);
        EXPECT_EQ(first[2], 2U);
        EXPECT_EQ(first.back(), 199U);
        EXPECT_EQ(first[3], 200 - (first.size() - 3)) << "no gap but one";
    }
    EXPECT_THROW(any_model_allocator(dbudget_kv{.last = 0}), std::invalid_argument);
}

TEST(ModelPlans, DbudgetOfRaggedHeadsIsThatOfTheirRows) {
    kv_cache cache = filled({.scorer = snapkv_scorer{},
                             .allocator = ada_kv_allocator{},
                             .keep = cache_budget::keep_ratio(0.4)});
    cache.compress();
    ASSERT_NE(rows_of(cache, 3, 0), rows_of(cache, 3, 1));
    cache.use({.model_allocator = dbudget_kv{.threshold = 0.0, .full_layers = 0}, .areas = few});
    feed(cache, 1);
    const std::size_t before = rows_of(cache);
    cache.compress();
    EXPECT_EQ(rows_of(cache), before) << "nothing may be lost, so nothing is";
    cache.use({.model_allocator = dbudget_kv{.threshold = 0.5, .full_layers = 0}, .areas = few});
    feed(cache, 1);
    cache.compress();
    EXPECT_LT(rows_of(cache), before);
}

TEST(ModelPlans, DirectionsAreUndoneTurns) {
    // RoPE first, then its undoing: what comes out is what went in.
    for (const rope_pairs pairs : {rope_pairs::half_split, rope_pairs::interleaved}) {
        for (const std::size_t turned : {std::size_t{0}, std::size_t{8}}) {
            const rope angles{.theta = 500.0, .rotary_dim = turned, .pairing = pairs};
            const detail::rope_undo undo(angles, head_dim);
            const std::size_t width = turned == 0 ? head_dim : turned;
            std::vector<double> frequencies(width / 2);
            rope_frequencies(500.0, frequencies);
            std::vector<float> row(head_dim);
            std::iota(row.begin(), row.end(), 1.0F);
            std::vector<float> there = row;
            for (std::size_t j = 0; j < width / 2; ++j) {
                const bool mixed = pairs == rope_pairs::interleaved;
                const std::size_t x = mixed ? 2 * j : j;
                const std::size_t y = mixed ? 2 * j + 1 : j + width / 2;
                const double angle = 1234.0 * frequencies[j];
                there[x] = static_cast<float>(row[x] * std::cos(angle) - row[y] * std::sin(angle));
                there[y] = static_cast<float>(row[y] * std::cos(angle) + row[x] * std::sin(angle));
            }
            undo(1234, there);
            for (std::size_t c = 0; c < head_dim; ++c) {
                EXPECT_NEAR(there[c], row[c], 1e-5F) << c;
            }
        }
    }
}

} // namespace
} // namespace kvcrush
