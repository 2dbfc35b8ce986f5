// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/rope.hpp>
#include <kvcrush/retention/expected_attention.hpp>
#include <kvcrush/retention/query_statistics.hpp>
#include <kvcrush/select/top_k.hpp>

#include "reference/expected_attention.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <span>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

static_assert(DirectScorer<expected_attention_scorer, kv_view<const f16>, query_view>);
static_assert(!KeyScorer<expected_attention_scorer, kv_view<const f16>>);

template <KvSource Kv>
std::vector<float>
score(const expected_attention_scorer& scorer, const Kv& kv, const query_view& queries) {
    const kv_shape shape = kv.shape();
    std::vector<float> scores(shape.num_kv_heads * shape.seq_len);
    test::owned_scratch memory(scorer.scratch_bytes({shape, queries.num_q_heads()}));
    scorer.score(kv, queries, {scores, shape.num_kv_heads, shape.seq_len}, memory.get());
    return scores;
}

// Known answer 11 of the specification: mean (1, 0), covariance diag(1, 2), key (2, 1) give a logit of 2.914214.
TEST(ExpectedAttentionScorer, AddsMeanAndSpreadOfTheQueries) {
    const float root = std::sqrt(2.0F);
    const std::vector<float> queries{0, root, 0, -root, 2, root, 2, -root};
    std::vector<float> rows{2, 1, 0, 0, 0, 0, 0, 0};
    const kv_view<float> kv(rows, rows, kv_shape{1, 4, 2, 2});
    const std::array<double, 1> no_rotation{0.0};
    for (const query_covariance covariance : {query_covariance::full, query_covariance::diagonal}) {
        const std::vector<float> s = score({.num_sink_tokens = 0,
                                            .covariance = covariance,
                                            .value_norms = false,
                                            .rope = {.frequencies = no_rotation}},
                                           kv,
                                           query_view(queries, 1, 4, 2));
        EXPECT_NEAR(std::log(s[0] / s[1]), 2.914214, 1e-5);
    }
    const std::vector<float> mean = score({.num_sink_tokens = 0,
                                           .covariance = query_covariance::none,
                                           .value_norms = false,
                                           .rope = {.frequencies = no_rotation}},
                                          kv,
                                          query_view(queries, 1, 4, 2));
    EXPECT_NEAR(std::log(mean[0] / mean[1]), std::sqrt(2.0), 1e-5);
}

struct layer {
    std::size_t group, tokens, window, dim, rotary_dim;
    bool interleaved;
};

void expect_reference(const layer& one, query_covariance covariance) {
    constexpr std::size_t kv_heads = 2;
    const std::size_t heads = kv_heads * one.group;
    const kv_shape shape{kv_heads, one.tokens, one.dim, 5};
    std::vector<float> queries(heads * one.window * one.dim);
    for (std::size_t i = 0; i < queries.size(); ++i) {
        queries[i] = random_unit(9, one.dim, i) - 0.3F;
    }
    const query_view view(queries, heads, one.window, one.dim);
    expected_attention_scorer scorer{
        .num_future = 7,
        .num_sink_tokens = 2,
        .covariance = covariance,
        .epsilon = 0.01,
        .rope = {.theta = 100.0,
                 .rotary_dim = one.rotary_dim,
                 .pairing = one.interleaved ? rope_pairs::interleaved : rope_pairs::half_split}};
    const reference::expected_attention_options options{7,
                                                        2,
                                                        one.interleaved,
                                                        one.rotary_dim == 0 ? one.dim / 2 * 2
                                                                            : one.rotary_dim,
                                                        100.0,
                                                        covariance != query_covariance::none,
                                                        covariance == query_covariance::diagonal};
    std::vector<double> expected(kv_heads * one.tokens, 0.0);
    for (std::size_t h = 0; h < kv_heads; ++h) {
        reference::matrix keys(one.tokens);
        for (std::size_t t = 0; t < one.tokens; ++t) {
            for (std::size_t c = 0; c < one.dim; ++c) {
                keys[t].push_back(test::marked(false, h, t, c));
            }
        }
        for (std::size_t g = 0; g < one.group; ++g) {
            reference::matrix rows(one.window);
            for (std::size_t i = 0; i < one.window; ++i) {
                const float* const row = view.row(h * one.group + g, i);
                rows[i].assign(row, row + one.dim);
            }
            const std::vector<double> weights = reference::expected_weights(rows, keys, options);
            for (std::size_t t = 0; t < one.tokens; ++t) {
                expected[h * one.tokens + t] += weights[t] / static_cast<double>(one.group);
            }
        }
        double best = 0.0;
        for (std::size_t t = 2; t < one.tokens; ++t) {
            double squares = 0.0;
            for (std::size_t c = 0; c < 5; ++c) {
                squares += std::pow(test::marked(true, h, t, c), 2.0);
            }
            double& s = expected[h * one.tokens + t];
            s = (s + 0.01) * std::sqrt(squares);
            best = (std::max)(best, s);
        }
        expected[h * one.tokens] = best;
        expected[h * one.tokens + 1] = best;
    }
    const auto check = [&](const auto& kv) {
        const std::vector<float> scores = score(scorer, kv, view);
        for (std::size_t i = 0; i < scores.size(); ++i) {
            // Logits of up to a few tens in fp32, whose errors the exponential passes on.
            EXPECT_NEAR(scores[i], expected[i], 1e-4 * expected[i] + 1e-12)
                << "token " << i << ", " << one.group << " heads, " << one.tokens << " tokens, "
                << one.window << " queries, " << one.dim << " channels";
        }
    };
    test::with_every_layout<float>(shape, check);
    test::with_every_layout<f16>(shape, check);
}

TEST(ExpectedAttentionScorer, EqualsTheReference) {
    for (const query_covariance covariance :
         {query_covariance::full, query_covariance::diagonal, query_covariance::none}) {
        expect_reference({1, 20, 20, 4, 0, false}, covariance);
        expect_reference({3, 70, 65, 6, 0, true}, covariance);
        expect_reference({4, 33, 1, 7, 0, false}, covariance);
        expect_reference({8, 66, 40, 24, 16, false}, covariance);
        expect_reference({7, 65, 64, 10, 4, true}, covariance);
        expect_reference({1, 67, 67, 80, 0, false}, covariance);
        expect_reference({2, 40, 33, 128, 0, false}, covariance);
    }
}

TEST(ExpectedAttentionScorer, OnlyTheLastQueriesCount) {
    std::vector<float> rows(30 * 8);
    std::vector<float> queries(30 * 8);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        rows[i] = random_unit(1, 0, i) - 0.5F;
        queries[i] = random_unit(2, 0, i) - 0.5F;
    }
    const kv_view<float> kv(rows, rows, kv_shape{1, 30, 8, 8});
    const query_view all(queries, 1, 30, 8);
    const expected_attention_scorer scorer{.last = 10};
    EXPECT_EQ(scorer.num_queries(30), 10U);
    EXPECT_EQ(scorer.num_queries(3), 3U);
    EXPECT_EQ(expected_attention_scorer{}.num_queries(30), 30U);
    EXPECT_EQ(score(scorer, kv, all), score(scorer, kv, all.last(10)));
    EXPECT_NE(score(scorer, kv, all), score({}, kv, all));
}

TEST(ExpectedAttentionScorer, RunsInACompressor) {
    std::vector<float> rows(40 * 8);
    std::vector<float> queries(4 * 40 * 8);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        rows[i] = random_unit(1, 0, i) - 0.5F;
    }
    for (std::size_t i = 0; i < queries.size(); ++i) {
        queries[i] = random_unit(2, 0, i) - 0.5F;
    }
    const kv_view<float> kv(rows, rows, kv_shape{2, 20, 8, 8});
    compressor crush(expected_attention_scorer{}, top_k_selector{});
    crush.plan({kv.shape(), 4}, budget::tokens(9, {4, 2}));
    const selection& kept = crush.select(kv, query_view(queries, 4, 20, 8));
    EXPECT_EQ(kept.kept(0).size(), 9U);
    EXPECT_EQ(kept.kept(1).size(), 9U);
}

TEST(ExpectedAttentionScorer, SequencesOfSinksAloneScoreZero) {
    std::vector<float> rows(3 * 4, 1.0F);
    const kv_view<float> kv(rows, rows, kv_shape{1, 3, 4, 4});
    EXPECT_EQ(score({}, kv, query_view(rows, 1, 3, 4)), (std::vector<float>{0, 0, 0}));
    std::vector<float> none;
    EXPECT_TRUE(
        score({}, kv_view<float>(none, none, kv_shape{1, 0, 4, 4}), query_view(none, 1, 0, 4))
            .empty());
}

TEST(ExpectedAttentionScorer, WildValuesDoNoHarm) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = std::numeric_limits<float>::infinity();
    std::vector<float> values(20 * 4, 1.0F);
    for (const float wild : {nan, inf, -inf, 1e30F}) {
        std::vector<float> keys(20 * 4, 0.5F);
        std::vector<float> queries(20 * 4, 0.25F);
        keys[40] = wild;
        const kv_view<float> kv(keys, values, kv_shape{1, 20, 4, 4});
        for (const float s : score({}, kv, query_view(queries, 1, 20, 4))) {
            EXPECT_TRUE(std::isfinite(s));
        }
        queries[70] = wild;
        for (const float s : score({}, kv, query_view(queries, 1, 20, 4))) {
            EXPECT_TRUE(std::isfinite(s));
        }
    }
}

TEST(ExpectedAttentionScorer, RefusesSenselessParameters) {
    using scorer = expected_attention_scorer;
    EXPECT_NO_THROW(scorer{}.validate());
    EXPECT_THROW(scorer{.num_future = 0}.validate(), std::invalid_argument);
    EXPECT_THROW(scorer{.epsilon = -1.0}.validate(), std::invalid_argument);
    EXPECT_THROW(scorer{.rope = {.theta = 0.0}}.validate(), std::invalid_argument);
    EXPECT_THROW(scorer{.rope = {.rotary_dim = 3}}.validate(), std::invalid_argument);
}

TEST(ExpectedAttentionScorer, RefusesToTurnMoreChannelsThanKeysHave) {
    compressor crush(expected_attention_scorer{.rope = {.rotary_dim = 128}}, top_k_selector{});
    EXPECT_NO_THROW(crush.plan({{2, 100, 128, 64}, 4}, budget::tokens(50)));
    EXPECT_THROW(crush.plan({{2, 100, 64, 64}, 4}, budget::tokens(50)), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
