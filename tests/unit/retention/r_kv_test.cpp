// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/r_kv.hpp>
#include <kvcrush/select/top_k.hpp>

#include "reference/attention_layer.hpp"
#include "reference/r_kv.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

static_assert(DirectScorer<r_kv_scorer, kv_view<f16>, query_view>);
static_assert(!KeyScorer<r_kv_scorer, kv_view<f16>> &&
              !AttentionScorer<r_kv_scorer, attention_view>);

// Known answer 8 of the specification: six keys, the last two are the window.
const std::vector<float> known_keys{1, 0, 1, 0, 0, 1, 1, 0, -1, 0, 0, 2};

r_kv_scorer known(bool published) {
    return {.observation_window = 2, .pooling_kernel_size = 3, .published = published};
}

std::vector<float> known_likeness(bool published) {
    const kv_view<const float> kv(known_keys, known_keys, kv_shape{1, 6, 2, 2});
    std::vector<float> out(6);
    test::owned_scratch memory(key_redundancy_bytes(kv.shape(), 2048));
    key_redundancy(kv, 0, {.else_forgive_first = published}, out, memory.get());
    return out;
}

std::vector<float> known_redundancy() {
    const r_kv_scorer scorer = known(true);
    const kv_view<const float> kv(known_keys, known_keys, kv_shape{1, 6, 2, 2});
    std::vector<float> out(6);
    test::owned_scratch memory(scorer.scratch_bytes({kv.shape(), 1}));
    scorer.redundancy(kv, 0, out, memory.get());
    return out;
}

/// Keys of one channel are the logits of a query of 1.
std::vector<float> known_importance() {
    const r_kv_scorer scorer = known(true);
    const std::vector<float> keys{0, 0, std::log(2.0F), std::log(4.0F), 5, 5};
    const std::vector<float> queries{1, 1};
    const kv_view<const float> kv(keys, keys, kv_shape{1, 6, 1, 1});
    std::vector<float> out(6);
    test::owned_scratch memory(scorer.scratch_bytes({kv.shape(), 1}));
    scorer.importance(kv, query_view(queries, 1, 2, 1), 0, out, memory.get());
    return out;
}

void expect_near(const std::vector<float>& actual, const std::vector<double>& expected) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
        EXPECT_NEAR(actual[i], expected[i], 1e-6) << i;
    }
}

TEST(RKvScorer, NewestDuplicatesAreForgiven) {
    expect_near(known_likeness(false), {1.0 / 6, 0, 0, -1.0 / 6, -1.0 / 2, 0});
}

TEST(RKvScorer, ThePublishedCodeForgivesTokenZeroByAccident) {
    expect_near(known_likeness(true), {1.0 / 3, 0, 0, -1.0 / 6, -1.0 / 2, 0});
    expect_near(known_redundancy(), {.238622, .170980, .170980, .144732, .103705, .170980});
}

TEST(RKvScorer, ImportanceLooksAtOlderTokensOnlyAndIsPooled) {
    expect_near(known_importance(), {.125, .25, .5, .5, 0, 0});
}

TEST(RKvScorer, MixesImportanceAndRedundancy) {
    std::vector<float> row = known_importance();
    known(true).mix(row, known_redundancy());
    expect_near(row, {-.202260, -.128882, -.103882, -.080259, -.080259, -.080259});
    std::vector<token_index> kept(4);
    simd::top_k(row, 4, kept);
    EXPECT_EQ(kept, (std::vector<token_index>{2, 3, 4, 5}));
}

reference::r_kv plain(const r_kv_scorer& s) {
    return {.lambda = s.lambda,
            .window = s.observation_window,
            .kernel = s.pooling_kernel_size,
            .threshold = s.threshold,
            .num_forgiven = s.num_forgiven,
            .search = s.search,
            .published = s.published};
}

void expect_agreement(const r_kv_scorer& scorer, const reference::attention_layer& layer) {
    const std::vector<float> scores = layer.scores_of(scorer);
    const std::vector<double> expected = plain(scorer).scores(layer);
    for (std::size_t i = 0; i < scores.size(); ++i) {
        // Importance is at most 1 and carries the error of a mass; likeness is off by a few roundings of cosines.
        EXPECT_NEAR(scores[i], expected[i], layer.bound() + 1e-6)
            << layer.text() << ", entry " << i;
    }
}

TEST(RKvScorer, AgreesWithTheFullMatrixOverRaggedShapes) {
    for (const r_kv_scorer& scorer :
         {r_kv_scorer{},
          r_kv_scorer{.lambda = 0.5,
          .observation_window = 3,
          .pooling_kernel_size = 1,
          .threshold = 0.05,
          .num_forgiven = 4,
          .published = true},
          r_kv_scorer{.lambda = 0.0, .observation_window = 40, .threshold = 0.1, .num_forgiven = 0},
          r_kv_scorer{.lambda = 0.0, .threshold = 0.2, .search = 20},
          r_kv_scorer{.observation_window = 1000}}) {
        for (reference::attention_layer layer : reference::ragged_layers()) {
            const reference::r_kv reference = plain(scorer);
            for (std::uint64_t seed = 1; reference.margin(layer) < 1e-6 && seed < 20; ++seed) {
                layer = reference::attention_layer(
                    layer.num_kv_heads, layer.group_size, layer.seq_len, layer.head_dim, seed);
            }
            expect_agreement(scorer, layer);
        }
    }
}

TEST(RKvScorer, LongSequencesForgiveAmongTheNewestOnly) {
    // Three blocks of the same 60 keys: each has two copies, the newest of which is forgiven.
    reference::attention_layer layer(1, 2, 180, 32);
    for (std::size_t i = 0; i < 60 * 32; ++i) {
        layer.keys[i + 60 * 32] = layer.keys[i];
        layer.keys[i + 120 * 32] = layer.keys[i];
    }
    for (const std::size_t search : {std::size_t{1}, std::size_t{59}, std::size_t{100}}) {
        expect_agreement({.lambda = 0.0, .threshold = 0.9, .search = search}, layer);
    }
    const std::vector<float> scores = layer.scores_of(r_kv_scorer{.lambda = 0.0, .threshold = 0.9});
    for (std::size_t j = 0; j < 52; ++j) { // the last 8 of a block repeat what the window holds
        EXPECT_GT(scores[120 + j], scores[60 + j]);
        EXPECT_GT(scores[120 + j], scores[j]);
    }
}

TEST(RKvScorer, GivesTheSameScoresInEveryLayout) {
    const kv_shape shape{2, 75, 20, 5};
    const r_kv_scorer scorer;
    std::vector<float> queries(4 * 8 * 20);
    for (std::size_t i = 0; i < queries.size(); ++i) {
        queries[i] = random_unit(3, 0, i) - 0.5F;
    }
    std::vector<float> first;
    const auto check = [&](const auto& kv) {
        std::vector<float> scores(2 * 75);
        test::owned_scratch memory(scorer.scratch_bytes({shape, 4}));
        scorer.score(kv, query_view(queries, 4, 8, 20), {scores, 2, 75}, memory.get());
        if (first.empty()) {
            first = scores;
        }
        EXPECT_EQ(scores, first);
    };
    test::with_every_layout<float>(shape, check);
    test::with_every_layout<f16>(shape, check);
    test::with_every_layout<bf16>(shape, check);
}

TEST(RKvScorer, RunsInACompressor) {
    const reference::attention_layer layer(2, 4, 150, 16);
    compressor crush(r_kv_scorer{}, top_k_selector{});
    crush.plan({layer.shape(), 8}, budget::tokens(50, {0, 0}));
    const selection& kept = crush.select(layer.kv(), layer.all_queries().last(8));
    for (std::size_t head = 0; head < 2; ++head) {
        EXPECT_EQ(kept.kept(head).size(), 50U);
    }
}

TEST(RKvScorer, BadKeysAreTheLowestAndSpoilNoOthers) {
    for (const float bad : reference::bad_numbers) {
        const std::vector<reference::attention_layer> layers = reference::spoilt_layers(bad);
        const std::vector<float> key = layers[0].scores_of(r_kv_scorer{});
        for (std::size_t i = 0; i < key.size(); ++i) {
            EXPECT_EQ(std::isfinite(key[i]), i != 5) << i << " with " << bad;
        }
        for (const float score : layers[1].scores_of(r_kv_scorer{})) {
            EXPECT_TRUE(std::isfinite(score)) << "query with " << bad;
        }
        const std::vector<float> all = layers[2].scores_of(r_kv_scorer{});
        EXPECT_TRUE(std::isnan(all[0]) && all[69] == 0.0F);
    }
}

TEST(RKvScorer, KeysOfZerosAreLikeNoOther) {
    reference::attention_layer layer(1, 1, 70, 8);
    std::fill_n(layer.keys.begin(), 80, 0.0F);
    const reference::r_kv reference;
    EXPECT_EQ(reference.likeness(layer, 0)[3], 0.0);
    expect_agreement({}, layer);
}

TEST(RKvScorer, RefusesParametersThatMakeNoSense) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    EXPECT_THROW(r_kv_scorer{.lambda = 1.5}.validate(), std::invalid_argument);
    EXPECT_THROW(r_kv_scorer{.lambda = nan}.validate(), std::invalid_argument);
    EXPECT_THROW(r_kv_scorer{.observation_window = 0}.validate(), std::invalid_argument);
    EXPECT_THROW(r_kv_scorer{.pooling_kernel_size = 6}.validate(), std::invalid_argument);
    EXPECT_THROW(r_kv_scorer{.threshold = nan}.validate(), std::invalid_argument);
    EXPECT_THROW(r_kv_scorer{.search = 0}.validate(), std::invalid_argument);
    EXPECT_NO_THROW(r_kv_scorer{}.validate());
}

} // namespace
} // namespace kvcrush
