// SPDX-License-Identifier: Apache-2.0
// The forward pass on a model of a few thousand weights; the real one is in model_test.cpp.
#include "error.hpp"
#include "eviction.hpp"
#include "model.hpp"
#include "tiny_model.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <random>
#include <vector>

namespace {

using lab::cache_type;
using kvcrush::kv_cache;
using lab::llama;
using lab::matrix;
using lab_test::largest_difference;
using lab_test::load;
using lab_test::tiny_model;
using lab_test::tiny_reference;

// f32 sums of up to 48 terms of size 1, through two layers
constexpr double tolerance = 1e-4;

std::vector<int> random_ids(std::size_t count, std::uint32_t seed = 1) {
    std::mt19937 random(seed);
    std::vector<int> ids(count);
    std::ranges::generate(ids, [&] { return static_cast<int>(random() % 50); });
    return ids;
}

/// One row per token, whatever the pieces in which the tokens arrive.
std::vector<float> read_in_pieces(const llama& model,
                                  kv_cache& cache,
                                  std::span<const int> ids,
                                  const std::vector<std::size_t>& pieces) {
    std::vector<float> logits;
    for (std::size_t i = 0; !ids.empty(); i = (i + 1) % pieces.size()) {
        const auto piece = ids.first((std::min)(pieces[i], ids.size()));
        const matrix rows = model.forward(piece, cache, piece.size());
        logits.insert(logits.end(), rows.data(), rows.data() + rows.rows() * rows.cols());
        ids = ids.subspan(piece.size());
    }
    return logits;
}

TEST(Llama, AgreesWithObviousLoopsInDouble) {
    const auto ids = random_ids(40);
    for (const bool tied : {false, true}) {
        const tiny_model tiny(tied);
        const llama model = load(tiny.file());
        kv_cache cache = model.make_cache(cache_type::f32);
        const matrix logits = model.forward(ids, cache, ids.size());
        tiny_reference reference(tiny);
        for (std::size_t t = 0; t < ids.size(); ++t) {
            EXPECT_LT(largest_difference(logits.row(t), reference.read(ids[t])), tolerance)
                << "token " << t;
        }
    }
}

TEST(Llama, CachesKeysInHalfSplitOrderAtTruePositions) {
    const tiny_model tiny;
    const llama model = load(tiny.file());
    kv_cache cache = model.make_cache(cache_type::f32);
    tiny_reference reference(tiny);
    const auto ids = random_ids(10);
    static_cast<void>(model.forward(ids, cache, 0));
    for (const int id : ids) {
        reference.read(id);
    }
    const std::size_t dim = tiny.head_dim;
    for (std::size_t layer = 0; layer < tiny.num_layers; ++layer) {
        for (std::size_t head = 0; head < tiny.num_kv_heads; ++head) {
            const std::vector<float> keys = lab_test::rows_of(cache, layer, head, true);
            ASSERT_EQ(keys.size(), ids.size() * dim);
            for (std::size_t t = 0; t < ids.size(); ++t) {
                EXPECT_EQ(lab_test::positions_of(cache, layer, head)[t], t);
                for (std::size_t i = 0; i < dim;
                     ++i) { // row 2j + s of the file is channel s * dim / 2 + j
                    EXPECT_NEAR(static_cast<double>(keys[t * dim + (i % 2) * dim / 2 + i / 2]),
                                reference.keys(layer)[t][head * dim + i],
                                tolerance);
                }
            }
        }
    }
}

TEST(Llama, PiecesOfAPromptMakeNoDifference) {
    const llama model = load(tiny_model().file());
    const auto ids = random_ids(600); // more than two chunks
    for (const cache_type type : {cache_type::f32, cache_type::f16}) {
        kv_cache whole = model.make_cache(type);
        const auto expected = read_in_pieces(model, whole, ids, {600});
        // In f16 a key near the middle of two representable ones may round to either.
        const double bound = type == cache_type::f32 ? tolerance : 5e-3;
        for (const std::vector<std::size_t>& pieces :
             {std::vector<std::size_t>{1}, {256}, {63, 1, 2, 65}}) {
            kv_cache cache = model.make_cache(type);
            const auto logits = read_in_pieces(model, cache, ids, pieces);
            EXPECT_LT(largest_difference(logits, expected), bound);
            // All queries are remembered: [tokens, q heads, head_dim] of two layers.
            EXPECT_GE(cache.query_bytes_held(), 2 * std::size_t{600} * 6 * 8 * sizeof(float));
            EXPECT_EQ(cache.tokens_seen(), 600U);
        }
    }
}

TEST(Llama, GivesTheLogitsOfTheLastTokens) {
    const llama model = load(tiny_model().file());
    const auto ids = random_ids(300);
    kv_cache cache = model.make_cache(cache_type::f32);
    const matrix all = model.forward(ids, cache, ids.size());
    for (const std::size_t count : std::initializer_list<std::size_t>{
             0U, 1U, 44U, 45U, 299U}) { // the second chunk has 44 tokens
        kv_cache again = model.make_cache(cache_type::f32);
        const matrix last = model.forward(ids, again, count);
        ASSERT_EQ(last.rows(), count);
        for (std::size_t r = 0; r < count; ++r) {
            EXPECT_LT(largest_difference(last.row(r), all.row(ids.size() - count + r)), tolerance);
        }
    }
    const matrix none = model.forward({}, cache, 0);
    EXPECT_EQ(none.rows(), 0U);
    EXPECT_EQ(cache.tokens_seen(), 300U);
}

TEST(Llama, ReportsProgressOfEveryChunk) {
    const llama model = load(tiny_model().file());
    kv_cache cache = model.make_cache(cache_type::f32);
    std::vector<std::pair<std::size_t, std::size_t>> calls;
    static_cast<void>(
        model.forward(random_ids(600), cache, 0, nullptr, [&](std::size_t done, std::size_t all) {
            calls.emplace_back(done, all);
        }));
    EXPECT_EQ(
        calls,
        (std::vector<std::pair<std::size_t, std::size_t>>{{256, 600}, {512, 600}, {600, 600}}));
}

TEST(Llama, SaysWhenFiniteWeightsGiveNoNumbers) {
    tiny_model tiny;
    for (float& weight : tiny.tensors.at("output_norm.weight")) {
        weight = 3e38F;
    }
    const llama model = load(tiny.file());
    kv_cache cache = model.make_cache(cache_type::f32);
    const std::vector<int> ids = random_ids(5);
    EXPECT_NO_THROW(static_cast<void>(model.forward(ids, cache, 0)));
    try {
        static_cast<void>(model.forward(ids, cache, 2));
        ADD_FAILURE() << "logits that are not finite were given";
    } catch (const lab::input_error& error) {
        EXPECT_STREQ(error.what(),
                     "the model computes NaN or infinity from the token at position 8");
    }
}

TEST(Llama, RefusesBadTokensBeforeAnythingChanges) {
    const llama model = load(tiny_model().file());
    kv_cache cache = model.make_cache(cache_type::f32);
    static_cast<void>(model.forward(random_ids(3), cache, 0));
    const auto refuses = [&](const std::vector<int>& ids, std::size_t num_logits, kv_cache& with) {
        EXPECT_THROW(static_cast<void>(model.forward(ids, with, num_logits)), lab::input_error);
    };
    refuses({1, 50}, 0, cache);
    refuses({1, -1}, 0, cache);
    refuses({1, 2}, 3, cache);
    refuses(random_ids(698), 0, cache); // 3 + 698 > 700
    EXPECT_EQ(cache.tokens_seen(), 3U);
    EXPECT_EQ(cache.layer(0).rows(0), 3U);
    kv_cache other_layers({.num_layers = 1, .num_q_heads = 6, .num_kv_heads = 2, .head_dim = 8});
    refuses({1}, 0, other_layers);
    kv_cache other_heads({.num_layers = 2, .num_q_heads = 6, .num_kv_heads = 3, .head_dim = 8});
    refuses({1}, 0, other_heads);
    kv_cache other_dim({.num_layers = 2, .num_q_heads = 6, .num_kv_heads = 2, .head_dim = 4});
    refuses({1}, 0, other_dim);
    try {
        static_cast<void>(model.forward(random_ids(698), cache, 0));
        ADD_FAILURE();
    } catch (const lab::input_error& error) {
        EXPECT_STREQ(error.what(),
                     "text has 3 tokens so far and 698 new ones; the model reads 700 at most");
    }
}

} // namespace
