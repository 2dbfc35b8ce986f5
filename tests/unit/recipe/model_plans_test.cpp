// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/allocation/ada_kv.hpp>
#include <kvcrush/cache/kv_cache.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/recipe/kvzip_plan.hpp>
#include <kvcrush/recipe/model_plans.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/retention/squared_attention.hpp>
#include <kvcrush/select/prefix_suffix.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace kvcrush {
namespace {

using testing::HasSubstr;

constexpr std::size_t num_layers = 4;
constexpr std::size_t num_kv_heads = 2;
constexpr std::size_t num_q_heads = 4;
constexpr std::size_t head_dim = 16;
constexpr area_sizes few{2, 6};

model_shape shape_of_model() {
    return {.num_layers = num_layers,
            .num_q_heads = num_q_heads,
            .num_kv_heads = num_kv_heads,
            .head_dim = head_dim};
}

/// Feeds `count` tokens more: random keys and values; heads of odd numbers look around, the others at what is near.
void feed(kv_cache& cache, std::size_t count) {
    const std::size_t first = cache.tokens_seen();
    for (std::size_t l = 0; l < num_layers; ++l) {
        const auto numbers = [&](std::size_t width, std::uint64_t what, float scale) {
            std::vector<float> rows(count * width);
            for (std::size_t i = 0; i < rows.size(); ++i) {
                rows[i] = scale * (random_unit(7 + l, what, first * width + i) - 0.5F);
            }
            return rows;
        };
        const std::vector<float> keys = numbers(num_kv_heads * head_dim, 1, 4.0F);
        const std::vector<float> values = numbers(num_kv_heads * head_dim, 2, 1.0F);
        std::vector<float> queries = numbers(num_q_heads * head_dim, 3, 4.0F);
        for (std::size_t i = 0; i < queries.size();
             ++i) { // the layers differ in how sharp they look
            queries[i] *= 1.0F + static_cast<float>(l + i / head_dim % num_q_heads);
        }
        EXPECT_TRUE(cache.append(l, keys, values));
        cache.observe(l, queries);
    }
}

kv_cache filled(recipe how, std::size_t count = 200) {
    how.areas = few;
    kv_cache cache(shape_of_model(), std::move(how));
    feed(cache, count);
    return cache;
}

/// Rows of all layers and heads together, or of one.
std::size_t rows_of(const kv_cache& cache) {
    return static_cast<std::size_t>(
        std::lround(cache.mean_rows() * static_cast<double>(num_layers * num_kv_heads)));
}
std::size_t rows_of(const kv_cache& cache, std::size_t layer, std::size_t head) {
    return cache.layer(layer).heads()[head].rows();
}
std::size_t rows_of_layer(const kv_cache& cache, std::size_t layer) {
    return rows_of(cache, layer, 0) + rows_of(cache, layer, 1);
}

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

std::string message_of(const std::function<void()>& work) {
    try {
        work();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing was thrown";
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
            const rope angles{.theta = 500.0, .rotary_dim = turned, .pairs = pairs};
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

/// A model that looks at the row that it repeats: its query points where the key of that row does.
class Kvzip : public testing::Test {
protected:
    void SetUp() override { feed(cache_, 120); }

    /// Rows of repeated tokens: the request first, which looks nowhere, then the context again.
    void repeat(std::span<const std::int32_t> tokens, kv_cache& copy) {
        ++passes_;
        for (std::size_t l = 0; l < num_layers; ++l) {
            const std::vector<float> rows(tokens.size() * num_kv_heads * head_dim, 0.0F);
            std::vector<float> queries(tokens.size() * num_q_heads * head_dim, 0.0F);
            for (std::size_t t = 0; t < tokens.size(); ++t) {
                if (tokens[t] == 77) { // the token that head 1 of layer 2 is asked for
                    for (std::size_t c = 0; c < head_dim && l == 2; ++c) {
                        queries[(t * num_q_heads + 2) * head_dim + c] = 50.0F * key_77_[c];
                    }
                }
            }
            EXPECT_TRUE(copy.append(l, rows, rows));
            copy.observe(l, queries);
        }
    }

    compress_request request() {
        return {.replay = [this](std::span<const std::int32_t> tokens,
                                 kv_cache& copy) { repeat(tokens, copy); },
                .context = ids_,
                .repeat_request = asks_};
    }

    kv_cache cache_ = kv_cache(shape_of_model(),
                               {.model_allocator = kvzip{.reconstruction = {.chunk_size = 50}},
                                .areas = {4, 0},
                                .keep = cache_budget::keep_ratio(0.25)});
    std::vector<std::int32_t> ids_ = [] {
        std::vector<std::int32_t> ids(120);
        std::iota(ids.begin(), ids.end(), 0);
        return ids;
    }();
    std::vector<std::int32_t> asks_{900, 901};
    std::vector<float> key_77_ = [] {
        std::vector<float> key(head_dim);
        const std::size_t width = num_kv_heads * head_dim;
        for (std::size_t c = 0; c < head_dim; ++c) {
            key[c] = 4.0F * (random_unit(7 + 2, 1, 77 * width + head_dim + c) - 0.5F);
        }
        return key;
    }();
    std::size_t passes_ = 0;
};

TEST_F(Kvzip, WhatIsLookedAtForRepeatingStays) {
    const std::size_t before = cache_.tokens_seen();
    const auto choice = cache_.choose(request());
    EXPECT_EQ(passes_, 3U) << "116 rows behind the sinks, 50 at a time";
    EXPECT_EQ(cache_.tokens_seen(), before) << "the model repeats behind a copy";
    std::size_t total = 0;
    for (const layer_choice& layer : choice) {
        total += layer.kept.total();
    }
    EXPECT_EQ(total, num_layers * num_kv_heads * 30);
    const auto kept = choice[2].kept.kept(1);
    EXPECT_TRUE(std::binary_search(kept.begin(), kept.end(), token_index{77}));
}

TEST_F(Kvzip, WhatItNeedsIsNamed) {
    compress_request none = request();
    none.replay = {};
    EXPECT_THAT(message_of([&] { static_cast<void>(cache_.choose(none)); }),
                HasSubstr("kvzip: the model has to repeat its context"));
    compress_request other = request();
    other.context = other.context.first(100);
    EXPECT_THAT(message_of([&] { static_cast<void>(cache_.choose(other)); }),
                HasSubstr("the context has 100 token ids; the cache has seen 120"));
}

TEST_F(Kvzip, SaysWhatItIsMadeOf) {
    const any_model_allocator how =
        kvzip{.reconstruction = {.chunk_size = 64}, .selector = {.level = kvzip_level::head}};
    EXPECT_EQ(how.arguments(), "chunk=64,level=head");
    EXPECT_THROW(any_model_allocator(kvzip{.reconstruction = {.chunk_size = 0}}),
                 std::invalid_argument);
}

TEST_F(Kvzip, ACacheIsCompressedOnce) {
    cache_.compress(request());
    EXPECT_EQ(rows_of(cache_), num_layers * num_kv_heads * 30);
    EXPECT_THAT(message_of([&] { cache_.compress(request()); }),
                HasSubstr("kvzip: compresses a cache once, right after it was filled"));
}

} // namespace
} // namespace kvcrush
