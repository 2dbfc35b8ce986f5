// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/allocation/ada_kv.hpp>
#include <kvcrush/cache/kv_cache.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/presets.hpp>
#include <kvcrush/retention/h2o.hpp>
#include <kvcrush/retention/key_diff.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/retention/tova.hpp>
#include <kvcrush/select/horizons.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>

#include "reference/attention.hpp"
#include "unit/attend/stored_cache.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace kvcrush {
namespace {

using reference::normal_floats;

constexpr model_shape model{
    .num_layers = 2, .num_q_heads = 6, .num_kv_heads = 2, .head_dim = 32, .value_dim = 64};
constexpr std::size_t key_width = model.num_kv_heads * model.head_dim;
constexpr std::size_t value_width = model.num_kv_heads * model.value_dim;
constexpr std::size_t query_width = model.num_q_heads * model.head_dim;

/// Rows of tokens [first, first + count) of a layer, [tokens, heads, dim]: every token draws its own.
std::vector<float>
rows_of(std::size_t layer, std::size_t first, std::size_t count, std::size_t width, std::uint64_t what) {
    std::vector<float> rows;
    for (std::size_t t = first; t < first + count; ++t) {
        const std::vector<float> own = normal_floats(width, (t * 3 + what) * 2 + layer);
        rows.insert(rows.end(), own.begin(), own.end());
    }
    return rows;
}
std::vector<float> keys_of(std::size_t layer, std::size_t first, std::size_t count) {
    return rows_of(layer, first, count, key_width, 0);
}
std::vector<float> values_of(std::size_t layer, std::size_t first, std::size_t count) {
    return rows_of(layer, first, count, value_width, 1);
}
std::vector<float> queries_of(std::size_t layer, std::size_t first, std::size_t count) {
    return rows_of(layer, first, count, query_width, 2);
}

/// Reads the next tokens, all layers; gives what the last layer attended to.
std::vector<float> read(kv_cache& cache, std::size_t count) {
    const std::size_t first = cache.tokens_seen();
    std::vector<float> output(count * model.num_q_heads * model.value_dim);
    for (std::size_t l = 0; l < model.num_layers; ++l) {
        EXPECT_TRUE(cache.append(l, keys_of(l, first, count), values_of(l, first, count)));
        cache.attend(l, queries_of(l, first, count), output);
    }
    return output;
}

std::vector<std::size_t> lengths(const kv_cache& cache) {
    std::vector<std::size_t> rows;
    for (std::size_t l = 0; l < cache.num_layers(); ++l) {
        for (std::size_t head = 0; head < model.num_kv_heads; ++head) {
            rows.push_back(cache.layer(l).rows(head));
        }
    }
    return rows;
}

std::vector<token_index> positions(const kv_cache& cache, std::size_t layer, std::size_t head) {
    std::vector<token_index> result;
    for (const stored_head::place& place : cache.layer(layer).heads()[head].by_age()) {
        result.push_back(place.position);
    }
    return result;
}

/// The same rows in memory of an engine's own, [heads, tokens, dim] in f16.
struct own_memory {
    std::vector<f16> keys;
    std::vector<f16> values;
    kv_view<f16> view;

    own_memory(std::size_t layer, std::size_t count)
        : keys(heads_first(keys_of(layer, 0, count), count, model.head_dim)),
          values(heads_first(values_of(layer, 0, count), count, model.value_dim)),
          view(std::span<f16>(keys),
               std::span<f16>(values),
               {model.num_kv_heads, count, model.head_dim, model.value_dim}) {}

    static std::vector<f16>
    heads_first(const std::vector<float>& rows, std::size_t count, std::size_t dim) {
        std::vector<f16> result;
        for (std::size_t head = 0; head < model.num_kv_heads; ++head) {
            for (std::size_t t = 0; t < count; ++t) {
                for (std::size_t c = 0; c < dim; ++c) {
                    result.push_back(to_f16(rows[(t * model.num_kv_heads + head) * dim + c]));
                }
            }
        }
        return result;
    }
};

TEST(KvCache, AttendsAsOneLayerAloneDoesInChunksOrTokenByToken) {
    kv_cache chunks(model);
    kv_cache tokens(model);
    const std::vector<float> found = read(chunks, 50);
    std::vector<float> one_by_one;
    for (std::size_t t = 0; t < 50; ++t) {
        const std::vector<float> output = read(tokens, 1);
        one_by_one.insert(one_by_one.end(), output.begin(), output.end());
    }
    for (std::size_t i = 0; i < found.size(); ++i) {
        ASSERT_NEAR(found[i], one_by_one[i], 1e-5F) << i;
    }
    EXPECT_EQ(chunks.tokens_seen(), 50U);
    EXPECT_EQ(chunks.longest_head(), 50U);
}

/// Policies chosen at run time see the rows as they lie: the answer is that of a compressor over a view of them.
TEST(KvCache, ChoosesWhatACompressorChoosesFromAView) {
    constexpr std::size_t count = 203;
    const auto compare = [&](const std::string& name, const auto& scorer, const auto& selector, const auto& allocator) {
        kv_cache cache(model,
                       {.scorer = scorer,
                        .selector = selector,
                        .allocator = allocator,
                        .keep = cache_budget::keep_ratio(0.4)});
        read(cache, count);
        const std::vector<layer_choice> choice = cache.choose();
        for (std::size_t l = 0; l < model.num_layers; ++l) {
            const own_memory own(l, count);
            const std::vector<float> queries = queries_of(l, 0, count);
            compressor crush(scorer, selector, allocator);
            crush.plan({own.view.shape(), model.num_q_heads}, budget::keep_ratio(0.4));
            const query_view view = query_view(queries,
                                               model.num_q_heads,
                                               count,
                                               model.head_dim,
                                               {model.head_dim, query_width, 1})
                                        .last(crush.num_queries(count));
            const selection& wanted = crush.select(own.view, view);
            EXPECT_EQ(choice[l].kept, wanted) << name << ", layer " << l;
        }
    };
    const uniform_allocator uniform{};
    compare("snapkv", snapkv_scorer{}, top_k_selector{}, uniform);
    compare("h2o", h2o_scorer{.last = 64}, top_k_selector{}, uniform);
    compare("knorm", knorm_scorer{}, top_k_selector{}, uniform);
    compare("key_diff", key_diff_scorer{}, top_k_selector{}, uniform);
    compare("tova", tova_scorer{}, top_k_selector{}, uniform);
    compare("kvcrush", snapkv_scorer{}, kvcrush_selector<>{}, uniform);
    compare("ada_kv", snapkv_scorer{}, top_k_selector{}, ada_kv_allocator{});
    compare("kvcrush_auto", snapkv_scorer{}, horizons_selector{}, ada_kv_allocator{});
}

/// Attention over what is left equals attention over the kept rows of the whole text.
TEST(KvCache, AfterCompressionAttendsToTheKeptRowsAtTheirPlaces) {
    kv_cache cache(model, {.scorer = snapkv_scorer{}, .allocator = ada_kv_allocator{}, .keep = cache_budget::tokens(60)});
    read(cache, 150);
    const compression done = cache.compress();
    EXPECT_EQ(done.rows_before, 150.0);
    EXPECT_EQ(done.rows_kept, 60.0);
    EXPECT_LT(done.bytes_held, done.bytes_before / 2);
    EXPECT_EQ(done.bytes_held, cache.bytes_held());
    EXPECT_EQ(cache.tokens_seen(), 150U);
    const std::vector<float> found = read(cache, 3); // ragged heads, several queries

    std::vector<reference::rows_of_head> rows(model.num_kv_heads);
    for (std::size_t head = 0; head < model.num_kv_heads; ++head) {
        for (const token_index t : positions(cache, 1, head)) {
            const std::vector<float> key = keys_of(1, t, 1);
            const std::vector<float> value = values_of(1, t, 1);
            for (std::size_t c = 0; c < model.head_dim; ++c) {
                rows[head].keys.push_back(to_float(to_f16(key[head * model.head_dim + c])));
            }
            for (std::size_t c = 0; c < model.value_dim; ++c) {
                rows[head].values.push_back(to_float(to_f16(value[head * model.value_dim + c])));
            }
            ++rows[head].count;
        }
    }
    std::vector<float> queries; // [heads, queries, dim]
    const std::vector<float> by_token = queries_of(1, 150, 3);
    for (std::size_t head = 0; head < model.num_q_heads; ++head) {
        for (std::size_t t = 0; t < 3; ++t) {
            const auto row = by_token.begin() + static_cast<std::ptrdiff_t>(t * query_width + head * model.head_dim);
            queries.insert(queries.end(), row, row + static_cast<std::ptrdiff_t>(model.head_dim));
        }
    }
    const reference::attention_result wanted =
        reference::attention_over_rows(queries,
                                       rows,
                                       model.num_q_heads,
                                       3,
                                       model.head_dim,
                                       model.value_dim,
                                       1.0 / std::sqrt(static_cast<double>(model.head_dim)));
    for (std::size_t head = 0; head < model.num_q_heads; ++head) {
        for (std::size_t t = 0; t < 3; ++t) {
            for (std::size_t c = 0; c < model.value_dim; ++c) {
                const std::size_t at = (head * 3 + t) * model.value_dim + c;
                ASSERT_NEAR(static_cast<double>(
                                found[(t * model.num_q_heads + head) * model.value_dim + c]),
                            wanted.output[at],
                            1e-5 * wanted.magnitude[at] + 1e-30);
            }
        }
    }
}

TEST(KvCache, IsCompressedAgainAndAgainWhateverItsHeadsHold) {
    const std::vector<std::pair<std::string, recipe>> recipes{
        {"ada_kv(snapkv)",
         {.scorer = snapkv_scorer{}, .allocator = ada_kv_allocator{}, .keep = cache_budget::tokens(64)}},
        {"kvcrush_auto", kvcrush_auto(0.5)},
        {"kvcrush(snapkv)",
         {.scorer = snapkv_scorer{}, .selector = kvcrush_selector<>{}, .keep = cache_budget::tokens(64)}},
        {"four_times", four_times()},
        {"eight_times", eight_times()},
        {"kvcrush_auto_bytes", kvcrush_auto_bytes(0.25)}};
    for (const auto& [name, how] : recipes) {
        kv_cache cache(model, how);
        read(cache, 200);
        for (std::size_t round = 0; round < 4; ++round) {
            cache.compress();
            for (std::size_t l = 0; l < model.num_layers; ++l) {
                for (std::size_t head = 0; head < model.num_kv_heads; ++head) {
                    const std::vector<token_index> kept = positions(cache, l, head);
                    ASSERT_GE(kept.size(), 36U) << name;
                    for (std::size_t i = 0; i < 4; ++i) {
                        EXPECT_EQ(kept[i], i) << name << ": a sink is gone";
                    }
                    for (std::size_t i = 0; i < 32; ++i) {
                        EXPECT_EQ(kept[kept.size() - 1 - i] + i + 1, cache.tokens_seen())
                            << name << ": a recent token is gone";
                    }
                }
            }
            const std::vector<float> output = read(cache, 48);
            for (const float value : output) {
                ASSERT_TRUE(std::isfinite(value)) << name;
            }
        }
        EXPECT_EQ(cache.tokens_seen(), 200U + 4 * 48U);
    }
}

TEST(KvCache, BytesAreABudgetThatHolds) {
    constexpr std::size_t count = 1500;
    for (const double ratio : {0.5, 0.25, 0.125}) {
        kv_cache cache(model, kvcrush_auto_bytes(ratio));
        read(cache, count);
        cache.compress();
        const double f16_bytes =
            static_cast<double>(2 * model.num_layers * (key_width + value_width) * count);
        EXPECT_LE(static_cast<double>(cache.bytes_held()), ratio * f16_bytes) << ratio;
        EXPECT_GE(static_cast<double>(cache.bytes_held()),
                  (std::min)(ratio * 0.98, 0.25) * f16_bytes)
            << ratio; // all tokens together take little more than a quarter
    }
    kv_cache cache(model, kvcrush_auto_bytes());
    read(cache, count);
    cache.compress({.keep = cache_budget::bytes(200'000)});
    EXPECT_LE(cache.bytes_held(), 200'000U);
    EXPECT_GE(cache.bytes_held(), 195'000U);
    EXPECT_THROW(cache.compress({.keep = cache_budget::bytes(2'000)}), std::invalid_argument);
}

TEST(KvCache, AnyNumberOfLanesGivesTheSame) {
    const auto threads = [](std::size_t num_tasks, const auto& task) {
        std::vector<std::thread> running;
        for (std::size_t i = 0; i < num_tasks; ++i) {
            running.emplace_back([&task, i] { task(i); });
        }
        for (std::thread& one : running) {
            one.join();
        }
    };
    kv_cache serial(model, kvcrush_auto_bytes());
    read(serial, 300);
    kv_cache parallel = serial;
    const std::vector<layer_choice> wanted = serial.choose();
    const std::vector<layer_choice> found = parallel.choose({.num_lanes = 2}, threads);
    for (std::size_t l = 0; l < wanted.size(); ++l) {
        EXPECT_EQ(found[l].kept, wanted[l].kept);
        EXPECT_EQ(found[l].tiers, wanted[l].tiers);
    }
    serial.apply(wanted);
    parallel.apply(found, 7, threads);
    EXPECT_EQ(read(serial, 2), read(parallel, 2));
}

TEST(KvCache, NanInAnyTokenOfAChunkChangesNothing) {
    kv_cache cache(model, four_times());
    read(cache, 100);
    cache.compress();
    const std::size_t bytes = cache.bytes_held();
    const std::vector<float> values = values_of(0, 100, 5);
    for (std::size_t i : {std::size_t{0}, 3 * key_width + 7, 5 * key_width - 1}) {
        std::vector<float> keys = keys_of(0, 100, 5);
        keys[i] = std::numeric_limits<float>::quiet_NaN();
        EXPECT_FALSE(cache.append(0, keys, values));
    }
    EXPECT_EQ(cache.layer(0).tokens_seen(), 100U);
    EXPECT_EQ(cache.layer(0).rows(1), 100U);
    cache.layer(0).shrink_to_fit();
    EXPECT_EQ(cache.bytes_held(), bytes);
    read(cache, 5);
    EXPECT_EQ(cache.tokens_seen(), 105U);
}

TEST(KvCache, RefusesWhatDoesNotFitInEveryBuild) {
    const auto refuses = [](const auto& call) { EXPECT_THROW(call(), std::invalid_argument); };
    refuses([] { kv_cache cache({.num_layers = 0, .num_q_heads = 4, .num_kv_heads = 2, .head_dim = 8}); });
    refuses([] { kv_cache cache({.num_layers = 1, .num_q_heads = 9, .num_kv_heads = 2, .head_dim = 8}); });
    refuses([] { // more channels turn than there are
        kv_cache cache({.num_layers = 1,
                        .num_q_heads = 4,
                        .num_kv_heads = 2,
                        .head_dim = 8,
                        .angles = {.rotary_dim = 16}});
    });
    refuses([] { // q8_0 wants multiples of 32
        kv_cache cache({.num_layers = 1, .num_q_heads = 4, .num_kv_heads = 2, .head_dim = 24}, four_times());
    });
    kv_cache cache(model, four_times());
    read(cache, 100);
    std::vector<float> output(model.num_q_heads * model.value_dim);
    refuses([&] { static_cast<void>(cache.append(2, keys_of(0, 0, 1), values_of(0, 0, 1))); });
    refuses([&] { cache.attend(0, std::vector<float>(query_width - 1), output); });
    refuses([&] { cache.attend(0, queries_of(0, 0, 2), output); });
    refuses([&] { cache.observe(0, queries_of(0, 0, 101)); });
    refuses([&] { cache.observe(7, queries_of(0, 0, 1)); });
    refuses([&] { static_cast<void>(cache.choose({.keep = cache_budget::tokens(35)})); });
    refuses([&] { cache.apply({}); });
    std::vector<layer_choice> choice = cache.choose();
    choice[1].tiers.back() = 2; // there are two
    refuses([&] { cache.apply(choice); });
    choice = cache.choose();
    choice[1].kept = selection();
    choice[1].kept.reserve(2, 4);
    for (std::size_t head = 0; head < 2; ++head) { // descending
        const std::span<token_index> rows = choice[1].kept.extend(2);
        rows[0] = 4000000000U;
        rows[1] = 0;
        choice[1].kept.end_head();
    }
    choice[1].tiers.assign(4, 0);
    refuses([&] { cache.apply(choice); });
    EXPECT_EQ(lengths(cache), std::vector<std::size_t>(4, 100)) << "not even the first layer has changed";
    EXPECT_EQ(cache.layer(0).dense_rows(0), 100U);
    // Layers that have seen different numbers of tokens.
    ASSERT_TRUE(cache.append(0, keys_of(0, 100, 1), values_of(0, 100, 1)));
    EXPECT_EQ(cache.tokens_seen(), 100U);
    refuses([&] { cache.compress(); });
    ASSERT_TRUE(cache.append(1, keys_of(1, 100, 1), values_of(1, 100, 1)));
    // Nobody was shown the queries of the newest token.
    refuses([&] { cache.compress(); });
    cache.observe(0, queries_of(0, 100, 1));
    cache.observe(1, queries_of(1, 100, 1));
    cache.compress();
    refuses([&] { cache.use(eight_times()); }); // rows are encoded already
    EXPECT_EQ(cache.how().rows.tiers.size(), 2U);
}

TEST(KvCache, RefusesExtentsWhoseProductsOverflow) {
    constexpr std::size_t large = std::size_t{1} << 62;
    for (const model_shape& shape : {model_shape{.num_layers = 1, .num_q_heads = 4, .num_kv_heads = 4, .head_dim = large},
                                     model_shape{.num_layers = 1, .num_q_heads = large, .num_kv_heads = 1, .head_dim = 32},
                                     model_shape{.num_layers = 1, .num_q_heads = 4, .num_kv_heads = 4, .head_dim = 8, .value_dim = large}}) {
        EXPECT_THROW(kv_cache{shape}, std::invalid_argument);
    }
}

TEST(KvCache, ABudgetOfAnyNumberOfTokensIsOne) {
    kv_cache cache(model,
                   {.scorer = knorm_scorer{},
                    .areas = {0, 0},
                    .keep = cache_budget::tokens((std::numeric_limits<std::size_t>::max)())});
    read(cache, 50);
    EXPECT_EQ(cache.compress().rows_kept, 50.0);
}

/// With what it throws, append() must not have encoded anything either.
TEST(KvCache, AnAppendThatIsRefusedEncodesNothing) {
    recipe how = four_times();
    how.rows.window = 8;
    kv_cache cache(model, how);
    read(cache, 60);
    cache.compress();
    ASSERT_TRUE(cache.append(0, keys_of(0, 60, 45), values_of(0, 60, 45)));
    const std::size_t dense = cache.layer(0).dense_rows(0);
    EXPECT_THROW(static_cast<void>(cache.append(0, keys_of(0, 105, 1), keys_of(0, 105, 1))),
                 std::invalid_argument);
    std::vector<float> infinite = keys_of(0, 105, 1);
    infinite[3] = std::numeric_limits<float>::infinity();
    EXPECT_FALSE(cache.append(0, infinite, values_of(0, 105, 1)));
    EXPECT_EQ(cache.layer(0).dense_rows(0), dense);
    ASSERT_TRUE(cache.append(0, keys_of(0, 105, 1), values_of(0, 105, 1)));
    EXPECT_EQ(cache.layer(0).dense_rows(0), 8U + 1U);
}

/// The rows of several queries are taken to be the newest ones.
TEST(KvCache, SeveralQueriesNeedTheirRows) {
    for (const bool encodes : {false, true}) {
        recipe how = encodes ? four_times() : recipe{.scorer = knorm_scorer{}, .keep = cache_budget::keep_ratio(0.5)};
        kv_cache cache(model, how);
        read(cache, 100);
        cache.compress();
        std::vector<float> output(60 * model.num_q_heads * model.value_dim);
        EXPECT_THROW(cache.attend(0, queries_of(0, 40, 60), output), std::invalid_argument);
        output.resize(model.num_q_heads * model.value_dim);
        cache.attend(0, queries_of(0, 99, 1), output);
        read(cache, 40);
    }
}

TEST(KvCache, AHeadWithoutItsNewestRowHasNoQueriesToLookAt) {
    kv_cache cache(model,
                   {.scorer = snapkv_scorer{}, .areas = {0, 0}, .keep = cache_budget::tokens(20)});
    read(cache, 50);
    selection older;
    older.reserve(2, 98);
    for (std::size_t head = 0; head < 2; ++head) {
        older.extend_range(0, 49);
        older.end_head();
    }
    cache.layer(1).evict(older);
    EXPECT_THROW(cache.compress(), std::invalid_argument);
    EXPECT_EQ(lengths(cache), (std::vector<std::size_t>{50, 50, 49, 49}));
    read(cache, 1);
    EXPECT_EQ(cache.compress().rows_kept, 20.0);
}

TEST(KvCache, WhatIsMovedFromIsEmpty) {
    recipe how = four_times();
    kv_cache cache(model, std::move(how));
    read(cache, 40);
    const kv_cache other = std::move(cache);
    EXPECT_EQ(other.tokens_seen(), 40U);
    // NOLINTBEGIN(bugprone-use-after-move): that is what is looked at
    EXPECT_NO_THROW(kv_cache(model, how));
    EXPECT_EQ(cache.tokens_seen(), 0U);
    EXPECT_EQ(cache.bytes_held(), 0U);
    EXPECT_FALSE(cache.is_due());
    EXPECT_EQ(cache.compress().rows_kept, 0.0);
    EXPECT_THROW(static_cast<void>(cache.append(0, {}, {})), std::invalid_argument);
    // NOLINTEND(bugprone-use-after-move)
    cache = other;
    read(cache, 1);
    EXPECT_EQ(cache.tokens_seen(), 41U);
}

TEST(KvCache, AnyNumberOfLanesIsOne) {
    constexpr std::size_t most = (std::numeric_limits<std::size_t>::max)();
    kv_cache cache(model, {.scorer = knorm_scorer{}, .keep = cache_budget::keep_ratio(0.5)});
    read(cache, 100);
    std::vector<float> wanted(model.num_q_heads * model.value_dim);
    cache.attend(0, queries_of(0, 99, 1), wanted);
    for (const std::size_t lanes : {std::size_t{0}, most, most / 4 + 1}) {
        std::vector<float> found(wanted.size());
        cache.attend(0, queries_of(0, 99, 1), found, lanes);
        EXPECT_EQ(found, wanted);
    }
    EXPECT_EQ(cache.compress({.num_lanes = most}).rows_kept, 50.0);
}

TEST(KvCache, AfterAnotherRecipeRowsStayDenseAsTheyAre) {
    recipe how = four_times();
    how.rows.window = 0;
    kv_cache cache(model, how);
    cache.compress(); // of nothing
    how.rows.dense = {dense_codec<float>{}, dense_codec<float>{}};
    read(cache, 20);
    cache.use(how);
    EXPECT_EQ(cache.how().rows.dense.keys.text(), "f16") << "the codec that they came in";
    read(cache, 50);
    read(cache, 1);
    EXPECT_EQ(cache.layer(0).dense_rows(0), 71U);
}

TEST(KvCache, MayRememberAllQueries) {
    kv_cache cache(model);
    cache.remember_queries((std::numeric_limits<std::size_t>::max)());
    std::size_t moves = 0;
    const float* before = nullptr;
    for (std::size_t t = 0; t < 300; ++t) {
        read(cache, 1);
        const float* const now = cache.queries(0).last(300).row(0, 0);
        moves += now == before ? 0U : 1U;
        before = now;
    }
    EXPECT_EQ(cache.queries(0).size(), 300U);
    EXPECT_LT(moves, 20U) << "what is held is not copied for every token";
}

TEST(KvCache, WithoutATokenThereIsNothingToDo) {
    for (const recipe& how : {recipe(four_times()), recipe(kvcrush_auto()), recipe(eight_times())}) {
        kv_cache cache(model, how);
        EXPECT_FALSE(cache.is_due());
        const compression done = cache.compress();
        EXPECT_EQ(done.rows_kept, 0.0);
        std::vector<float> output(model.num_q_heads * model.value_dim);
        EXPECT_THROW(cache.attend(0, queries_of(0, 0, 1), output), std::invalid_argument);
        read(cache, 60);
        EXPECT_EQ(cache.tokens_seen(), 60U);
    }
}

TEST(KvCache, AnotherRecipeMayFollowBeforeRowsAreEncoded) {
    kv_cache cache(model);
    cache.remember_queries(300);
    read(cache, 120);
    kv_cache copy = cache;
    copy.use(four_times());
    copy.compress();
    EXPECT_LT(copy.bytes_held(), cache.bytes_held() * 3 / 10);
    EXPECT_EQ(cache.longest_head(), 120U);
    EXPECT_EQ(cache.how().rows.tiers.size(), 0U);
}

TEST(KvCache, QueriesThatAreShownAgainTakeThePlaceOfTheOthers) {
    kv_cache cache(model, {.scorer = snapkv_scorer{}, .keep = cache_budget::tokens(60)});
    read(cache, 100);
    kv_cache again = cache;
    for (std::size_t l = 0; l < model.num_layers; ++l) {
        again.observe(l, queries_of(l, 99, 1)); // attend() has shown it already
        again.observe(l, queries_of(l, 90, 10));
    }
    const std::vector<layer_choice> wanted = cache.choose();
    const std::vector<layer_choice> found = again.choose();
    for (std::size_t l = 0; l < model.num_layers; ++l) {
        EXPECT_EQ(found[l].kept, wanted[l].kept);
    }
}

TEST(KvCache, IsDueByWhatItIsAskedAndByWhatWouldChange) {
    kv_cache everything(model, {.keep = cache_budget::everything()});
    read(everything, 100);
    EXPECT_FALSE(everything.is_due());
    EXPECT_TRUE(everything.is_due({.keep = cache_budget::tokens(50)}));
    kv_cache ragged(model,
                    {.scorer = snapkv_scorer{},
                     .allocator = ada_kv_allocator{},
                     .keep = cache_budget::tokens(50),
                     .when = {.every = 0}});
    read(ragged, 200);
    EXPECT_TRUE(ragged.compress_if_due());
    EXPECT_FALSE(ragged.is_due()) << "though one head holds more than the average";
}

TEST(KvCache, AnEmptyCacheTakesAnotherDenseCodec) {
    kv_cache cache(model);
    recipe floats;
    floats.rows.dense = {dense_codec<float>{}, dense_codec<float>{}};
    cache.use(floats);
    ASSERT_TRUE(cache.append(0, keys_of(0, 0, 64), values_of(0, 0, 64)));
    EXPECT_GE(cache.bytes_held(), 64 * (key_width + value_width) * sizeof(float));
}

TEST(KvCache, AChoiceIsOfTheCacheAsItWas) {
    kv_cache cache(model, {.scorer = snapkv_scorer{}, .keep = cache_budget::tokens(60)});
    read(cache, 100);
    const std::vector<layer_choice> choice = cache.choose();
    read(cache, 10);
    EXPECT_THROW(cache.apply(choice), std::invalid_argument);
    EXPECT_EQ(lengths(cache), std::vector<std::size_t>(4, 110));
    cache.apply(cache.choose());
    EXPECT_EQ(lengths(cache), std::vector<std::size_t>(4, 60));
}

TEST(KvCache, IsDueAfterThePromptAndThenEverySoManyTokens) {
    recipe how{.scorer = snapkv_scorer{}, .keep = cache_budget::tokens(64), .when = {.every = 16}};
    kv_cache cache(model, how);
    EXPECT_FALSE(cache.compress_if_due());
    read(cache, 50);
    EXPECT_FALSE(cache.compress_if_due()) << "there is nothing to drop";
    read(cache, 20);
    EXPECT_TRUE(cache.compress_if_due());
    std::vector<std::size_t> after;
    for (std::size_t t = 1; t <= 40; ++t) {
        read(cache, 1);
        if (cache.compress_if_due()) {
            after.push_back(t);
        }
    }
    EXPECT_EQ(after, (std::vector<std::size_t>{16, 32}));
    how.when = {.every = 0, .rows = 100};
    kv_cache limited(model, how);
    read(limited, 100);
    EXPECT_FALSE(limited.is_due());
    read(limited, 1);
    EXPECT_TRUE(limited.compress_if_due());
    EXPECT_EQ(limited.longest_head(), 64U);
}

TEST(KvCache, RemembersQueriesAsFarAsItsRecipeWants) {
    kv_cache none(model, {.scorer = knorm_scorer{}, .keep = cache_budget::keep_ratio(0.5)});
    read(none, 200);
    EXPECT_EQ(none.query_bytes_held(), 0U);
    kv_cache some(model, {.scorer = snapkv_scorer{}, .keep = cache_budget::keep_ratio(0.5)});
    for (std::size_t t = 0; t < 400; ++t) {
        read(some, 1);
    }
    EXPECT_GE(some.query_bytes_held(), 32 * query_width * sizeof(float) * model.num_layers);
    EXPECT_LE(some.query_bytes_held(), 400 * query_width * sizeof(float) * model.num_layers);
    some.compress();
    EXPECT_EQ(some.longest_head(), 200U);
}

TEST(KvCache, GivesTheScoresOfItsScorer) {
    kv_cache cache(model, {.scorer = knorm_scorer{}, .keep = cache_budget::keep_ratio(0.5)});
    read(cache, 70);
    const std::vector<float> scores = cache.scores(1);
    ASSERT_EQ(scores.size(), 2 * 70U);
    const own_memory own(1, 70);
    compressor crush(knorm_scorer{}, top_k_selector{});
    crush.plan({own.view.shape(), model.num_q_heads}, budget::keep_ratio(0.9));
    static_cast<void>(crush.select(own.view));
    for (std::size_t i = 0; i < scores.size(); ++i) {
        ASSERT_EQ(scores[i], crush.scores().values()[i]);
    }
}

} // namespace
} // namespace kvcrush
