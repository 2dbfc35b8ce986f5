// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/math/fold_heads.hpp>
#include <kvcrush/math/window_attention.hpp>
#include <kvcrush/retention/attention_accumulator.hpp>

#include "support/attention_data.hpp"
#include "support/observed_sequence.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <span>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

static_assert(AccumulationRule<detail::sum_rule> && AccumulationRule<detail::mean_rule>);
struct rule_that_may_throw {
    [[maybe_unused]] static constexpr bool divides_by_reach = false;
    static float add(float state, float) { return state; }
};
static_assert(!AccumulationRule<rule_that_may_throw>);

void expect_scores(const_head_scores scores, const std::vector<float>& expected) {
    ASSERT_EQ(scores.values().size(), expected.size());
    for (std::size_t t = 0; t < expected.size(); ++t) {
        EXPECT_NEAR(scores.values()[t], expected[t], 1e-6F) << t;
    }
}

selection keep(const std::vector<std::vector<token_index>>& heads) {
    selection kept;
    std::size_t total = 0;
    for (const auto& tokens : heads) {
        total += tokens.size();
    }
    kept.reserve(heads.size(), total);
    for (const auto& tokens : heads) {
        const std::span<token_index> room = kept.extend(tokens.size());
        std::copy(tokens.begin(), tokens.end(), room.begin());
        kept.end_head();
    }
    return kept;
}

// Known answer 2 of the specification: prompt, eviction, one decode step.
TEST(AttentionAccumulator, GivesTheKnownSumsBeforeAndAfterAnEviction) {
    attention_sum observed;
    observed.plan(1, 8);
    const std::vector<float> weights = test::h2o_known_weights();
    observed.add({weights, 1, 5, 5});
    expect_scores(observed.scores(), {2.2F, 1.45F, 0.85F, 0.3F, 0.2F});
    observed.compact(keep({{0, 3, 4}}));
    const std::vector<float> next{0.1F, 0.5F, 0.1F, 0.3F};
    observed.add({next, 1, 1, 4});
    expect_scores(observed.scores(), {2.3F, 0.8F, 0.3F, 0.3F});
}

TEST(AttentionAccumulator, GivesTheKnownMeansByReach) {
    attention_mean observed;
    observed.plan(1, 5);
    const std::vector<float> weights = test::h2o_known_weights();
    observed.add({weights, 1, 5, 5});
    expect_scores(observed.scores(), {11.0F / 25, 29.0F / 80, 17.0F / 60, 3.0F / 20, 1.0F / 5});
}

TEST(AttentionAccumulator, StepByStepEqualsAllAtOnce) {
    const std::vector<float> weights = test::h2o_known_weights();
    const auto check = [&](auto observed) {
        observed.plan(1, 5);
        auto whole = observed;
        whole.add({weights, 1, 5, 5});
        for (std::size_t i = 0; i < 5; ++i) {
            observed.add({std::span(weights).subspan(5 * i, i + 1), 1, 1, i + 1});
        }
        const const_head_scores expected = whole.scores();
        const const_head_scores steps = observed.scores();
        for (std::size_t t = 0; t < 5; ++t) {
            EXPECT_EQ(steps.row(0)[t], expected.row(0)[t]);
        }
    };
    check(attention_sum{});
    check(attention_square_sum{});
    check(attention_mean{});
    check(attention_maximum{});
}

TEST(AttentionAccumulator, SquaresAndMaximaAreThoseOfTheWeights) {
    const std::vector<float> weights{1, 0, 0.25F, 0.75F};
    attention_square_sum squares;
    squares.plan(1, 2);
    squares.add({weights, 1, 2, 2});
    expect_scores(squares.scores(), {1.0625F, 0.5625F});
    attention_maximum maxima;
    maxima.plan(1, 2);
    maxima.add({weights, 1, 2, 2});
    expect_scores(maxima.scores(), {1, 0.75F});
}

/// Sums and means of n weights between 0 and 1 in fp32: n roundings, each of the sum so far, and a division.
template <typename Observer, typename Fold>
void expect_reference(Fold&& fold) {
    for (const std::size_t group : std::initializer_list<std::size_t>{1, 3, 4, 7, 8}) {
        for (const std::size_t prompt : std::initializer_list<std::size_t>{0, 1, 63, 64, 65, 130}) {
            test::observed_sequence sequence(2, group, 10 * group + prompt);
            Observer observed;
            observed.plan(sequence.num_heads(), prompt + 40);
            sequence.read(observed, prompt, (prompt + 1) / 2); // only the end of the prompt looks
            for (std::size_t step = 0; step < 30; ++step) {
                sequence.read(observed, step % 10 == 9 ? 2 : 1, step % 10 == 9 ? 2 : 1);
                if (step % 11 == 10) {
                    sequence.compress(observed);
                }
                for (std::size_t kv_head = 0; kv_head < 2; ++kv_head) {
                    const const_head_scores scores = observed.scores(kv_head * group, group);
                    ASSERT_EQ(scores.seq_len(), sequence.length(kv_head));
                    for (std::size_t i = 0; i < group; ++i) {
                        const auto& head = sequence.head(kv_head * group + i);
                        for (std::size_t t = 0; t < scores.seq_len(); ++t) {
                            const double expected = fold(head.all(t));
                            const double n = static_cast<double>(head.reach(t)) + 2;
                            ASSERT_NEAR(scores.row(i)[t], expected, n * 0x1p-24 * expected)
                                << "prompt " << prompt << ", step " << step << ", token " << t;
                        }
                    }
                }
            }
        }
    }
}

TEST(AttentionAccumulator, SumsEqualTheReferenceOverRaggedEvictions) {
    expect_reference<attention_sum>(reference::sum);
}
TEST(AttentionAccumulator, SquareSumsEqualTheReferenceOverRaggedEvictions) {
    expect_reference<attention_square_sum>(reference::square_sum);
}
TEST(AttentionAccumulator, MeansEqualTheReferenceOverRaggedEvictions) {
    expect_reference<attention_mean>(reference::mean);
}
TEST(AttentionAccumulator, MaximaEqualTheReferenceOverRaggedEvictions) {
    expect_reference<attention_maximum>(reference::maximum);
}

TEST(AttentionAccumulator, ReachCountsTheQueriesThatCouldSee) {
    test::observed_sequence sequence(2, 2, 5);
    attention_mean observed;
    observed.plan(4, 100);
    sequence.read(observed, 50, 7);
    sequence.read(observed, 1, 1);
    sequence.compress(observed);
    sequence.read(observed, 3, 3);
    for (std::size_t head = 0; head < 4; ++head) {
        for (std::size_t t = 0; t < observed.length(head); ++t) {
            EXPECT_EQ(observed.reach(head, t), sequence.head(head).reach(t));
        }
    }
}

TEST(AttentionAccumulator, QueryHeadsFollowTheirKvHead) {
    attention_sum observed;
    observed.plan(4, 3);
    const std::vector<float> step{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    observed.add({step, 4, 1, 3});
    observed.compact(keep({{0, 2}, {1, 2}}));
    expect_scores(observed.scores(), {1, 3, 4, 6, 8, 9, 11, 12});
}

TEST(AttentionAccumulator, ScoresFoldIntoKvHeads) {
    attention_sum observed;
    observed.plan(2, 3);
    const std::vector<float> step{1, 2, 3, 5, 6, 7};
    observed.add({step, 2, 1, 3});
    std::vector<float> folded(3);
    fold_groups(observed.scores(), head_reduction::mean, {folded, 1, 3});
    EXPECT_EQ(folded, (std::vector<float>{3, 4, 5}));
}

TEST(AttentionAccumulator, NanAddsNothingAndHidesNobody) {
    const auto check = [](auto observed) {
        observed.plan(1, 130);
        std::vector<float> step(130, 0.5F);
        observed.add({step, 1, 1, 130});
        auto expected = observed;
        step.assign(130, 0.0F);
        expected.add({step, 1, 1, 130});
        step.assign(130, nan);
        observed.add({step, 1, 1, 130});
        for (std::size_t t = 0; t < 130; ++t) {
            EXPECT_EQ(observed.scores().row(0)[t], expected.scores().row(0)[t]);
        }
    };
    check(attention_sum{});
    check(attention_square_sum{});
    check(attention_mean{});
    check(attention_maximum{});
}

TEST(AttentionAccumulator, TokensThatNobodySawScoreZero) {
    attention_mean observed;
    observed.plan(2, 4);
    observed.add({{}, 2, 0, 4});
    expect_scores(observed.scores(), std::vector<float>(8, 0.0F));
}

TEST(AttentionAccumulator, ForgetsWhenClearedOrPlannedAgain) {
    test::observed_sequence sequence(1, 2, 1);
    attention_mean observed;
    observed.plan(2, 20);
    sequence.read(observed, 20, 20);
    observed.clear();
    EXPECT_EQ(observed.scores().seq_len(), 0U);
    const std::vector<float> step{1, 0.5F};
    observed.add({step, 2, 1, 1});
    expect_scores(observed.scores(), {1, 0.5F});
    observed.plan(1, 5);
    EXPECT_EQ(observed.num_heads(), 1U);
    EXPECT_EQ(observed.scores().seq_len(), 0U);
}

TEST(AttentionAccumulator, NothingIsAllowed) {
    attention_sum observed;
    EXPECT_EQ(observed.scores().num_heads(), 0U);
    observed.plan(0, 10);
    observed.add({{}, 0, 0, 0});
    observed.compact(selection{});
    EXPECT_EQ(observed.scores().values().size(), 0U);
    observed.plan(2, 3);
    const std::vector<float> step(6, 1.0F);
    observed.add({step, 2, 1, 3});
    observed.compact(selection{}); // no heads: nothing is dropped
    EXPECT_EQ(observed.length(0), 3U);
    observed.compact(keep({{}, {}}));
    EXPECT_EQ(observed.scores().seq_len(), 0U);
}

TEST(AttentionAccumulator, RefusesSizesThatOverflow) {
    attention_sum observed;
    EXPECT_THROW(observed.plan(std::numeric_limits<std::size_t>::max() / 8, 100),
                 std::invalid_argument);
    EXPECT_THROW(observed.plan(1, std::size_t{1} << 32U), std::invalid_argument);
}

// An engine that has queries only: the last query's weights, step by step, are what accumulates.
TEST(AttentionAccumulator, IsFedFromQueriesAndKeys) {
    constexpr std::size_t dim = 8;
    constexpr std::size_t tokens = 40;
    std::vector<float> keys(2 * tokens * dim);
    std::vector<float> queries(4 * tokens * dim);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        keys[i] = random_unit(1, 0, i) - 0.5F;
    }
    for (std::size_t i = 0; i < queries.size(); ++i) {
        queries[i] = 4.0F * random_unit(2, 0, i) - 2.0F;
    }
    const kv_view<const float, nhd> kv(keys, keys, {2, tokens, dim, dim});
    std::vector<float> workspace(window_attention_workspace(kv.shape(), 4, tokens));
    attention_sum observed;
    observed.plan(4, tokens);
    for (std::size_t n = 1; n <= tokens; ++n) {
        std::vector<float> query;
        for (std::size_t head = 0; head < 4; ++head) {
            const auto first =
                queries.begin() + static_cast<std::ptrdiff_t>((head * tokens + n - 1) * dim);
            query.insert(query.end(), first, first + dim);
        }
        std::vector<float> row(4 * n);
        window_attention({query, 4, 1, dim}, kv.first(n), 1, row, workspace);
        observed.add({row, 4, 1, n});
    }
    std::vector<float> mass(4 * tokens);
    attention_mass(kv, {queries, 4, tokens, dim}, mass, workspace);
    const const_head_scores scores = observed.scores();
    for (std::size_t i = 0; i < mass.size(); ++i) {
        EXPECT_NEAR(scores.values()[i], mass[i], 1e-5F * (1.0F + mass[i]));
    }
}

} // namespace
} // namespace kvcrush
