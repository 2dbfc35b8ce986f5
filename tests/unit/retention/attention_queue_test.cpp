// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/retention/attention_queue.hpp>

#include "support/attention_data.hpp"
#include "support/observed_sequence.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

double fold(queue_fold how, const std::vector<double>& weights) {
    switch (how) {
    case queue_fold::sum: return reference::sum(weights);
    case queue_fold::mean: return reference::mean(weights);
    case queue_fold::maximum: break;
    }
    return reference::maximum(weights);
}

class AttentionQueue : public testing::TestWithParam<queue_fold> {};

TEST_P(AttentionQueue, EqualsTheReferenceOverRaggedEvictions) {
    for (const std::size_t queries : std::initializer_list<std::size_t>{1, 2, 7, 32}) {
        for (const std::size_t prompt : std::initializer_list<std::size_t>{0, 1, 5, 64, 65}) {
            test::observed_sequence sequence(2, 3, 100 * queries + prompt);
            attention_queue observed(queries, GetParam());
            observed.plan(sequence.num_heads(), prompt + 40);
            sequence.read(observed, prompt, prompt);
            for (std::size_t step = 0; step < 30; ++step) {
                sequence.read(observed, step % 10 == 9 ? 3 : 1, step % 10 == 9 ? 2 : 1);
                if (step % 7 == 6) {
                    sequence.compress(observed);
                }
                for (std::size_t kv_head = 0; kv_head < 2; ++kv_head) {
                    const const_head_scores scores = observed.scores(kv_head * 3, 3);
                    ASSERT_EQ(scores.seq_len(), sequence.length(kv_head));
                    for (std::size_t i = 0; i < 3; ++i) {
                        for (std::size_t t = 0; t < scores.seq_len(); ++t) {
                            const double expected =
                                fold(GetParam(), sequence.head(kv_head * 3 + i).last(t, queries));
                            // At most `queries` roundings of a sum of positive numbers, one division.
                            const double n = static_cast<double>(queries) + 1;
                            ASSERT_NEAR(scores.row(i)[t], expected, n * 0x1p-24 * expected)
                                << queries << " queries, prompt " << prompt << ", step " << step
                                << ", token " << t;
                        }
                    }
                }
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(folds,
                         AttentionQueue,
                         testing::Values(queue_fold::sum, queue_fold::mean, queue_fold::maximum));

TEST(AttentionQueueRows, OnlyTheLastOnesCount) {
    attention_queue observed(2, queue_fold::sum);
    observed.plan(1, 8);
    const std::vector<float> weights = test::h2o_known_weights();
    observed.add({weights, 1, 5, 5});
    const const_head_scores scores = observed.scores();
    const std::vector<float> expected{0.2F, 0.7F, 0.6F, 0.3F, 0.2F};
    for (std::size_t t = 0; t < 5; ++t) {
        EXPECT_FLOAT_EQ(scores.row(0)[t], expected[t]);
    }
}

TEST(AttentionQueueRows, ANanCountsAsZero) {
    attention_queue observed(2, queue_fold::mean);
    observed.plan(1, 1);
    const std::vector<float> steps{0.5F, std::numeric_limits<float>::quiet_NaN()};
    observed.add({std::span(steps).first(1), 1, 1, 1});
    observed.add({std::span(steps).last(1), 1, 1, 1});
    EXPECT_EQ(observed.scores().row(0)[0], 0.25F);
}

TEST(AttentionQueueRows, ForgetsWhenCleared) {
    attention_queue observed(4);
    observed.plan(2, 3);
    const std::vector<float> step{1, 1, 1, 1, 1, 1};
    observed.add({step, 2, 1, 3});
    observed.clear();
    EXPECT_EQ(observed.length(0), 0U);
    observed.add({std::span(step).first(2), 2, 0, 1}); // a token without a query
    EXPECT_EQ(observed.scores().row(1)[0], 0.0F);
}

TEST(AttentionQueueRows, NothingIsAllowed) {
    attention_queue observed(3);
    EXPECT_EQ(observed.scores().num_heads(), 0U);
    observed.plan(0, 0);
    observed.add({{}, 0, 0, 0});
    observed.compact(selection{});
    EXPECT_EQ(observed.scores().values().size(), 0U);
}

TEST(AttentionQueueRows, RefusesNoQueriesAndSizesThatOverflow) {
    EXPECT_THROW(attention_queue(0), std::invalid_argument);
    attention_queue observed(std::numeric_limits<std::size_t>::max() / 8);
    EXPECT_THROW(observed.plan(4, 100), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
