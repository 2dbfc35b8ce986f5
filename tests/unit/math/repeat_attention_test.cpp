// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/math/repeat_attention.hpp>

#include "reference/kvzip.hpp"
#include "support/cache_data.hpp"
#include "unit/simd/every_rung.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <vector>

namespace kvcrush {
namespace {

class RepeatAttention : public reference::every_rung {};

struct problem {
    std::size_t q_heads;
    std::size_t kv_heads;
    std::size_t dim;
    std::size_t context;
    repeat_span span;
    std::vector<float> keys;
    std::vector<float> queries;

    problem(std::size_t group, std::size_t heads, std::size_t d, std::size_t n, repeat_span s)
        : q_heads(group * heads),
          kv_heads(heads),
          dim(d),
          context(n),
          span(s),
          keys(heads * (n + s.num_repeats) * d),
          queries(q_heads * s.num_repeats * d) {
        for (std::size_t i = 0; i < keys.size(); ++i) {
            keys[i] = 4.0F * (random_unit(1, d, i) - 0.5F);
        }
        for (std::size_t i = 0; i < queries.size(); ++i) {
            queries[i] = 4.0F * (random_unit(2, d, i) - 0.5F);
        }
    }
    [[nodiscard]] std::vector<float> scores(simd::isa rung, float scale) {
        const kv_shape shape{kv_heads, context + span.num_repeats, dim, dim};
        const kv_view<const float> kv{{keys}, {keys}, shape};
        const query_view view(queries, q_heads, span.num_repeats, dim);
        std::vector<float> out(kv_heads * context, -1.0F);
        std::vector<float> workspace(repeat_attention_workspace(shape, q_heads, span));
        repeat_attention(kv,
                         kv,
                         context,
                         view,
                         span,
                         head_scores(out, kv_heads, context),
                         workspace,
                         scale,
                         rung);
        return out;
    }
};

TEST_P(RepeatAttention, ReproducesTheKnownAnswer) {
    // Known answer 7 of the specification, as exponentials of logits: sink | chunk | repeat.
    problem p(1, 1, 2, 4, {.num_sinks = 1, .begin = 1, .end = 4, .num_repeats = 2});
    const std::vector<float> first{1, 2, 1, 4, 1, 9};
    const std::vector<float> second{1, 1, 5, 1, 1, 1};
    for (std::size_t row = 0; row < 6; ++row) {
        p.keys[2 * row] = std::log(first[row]);
        p.keys[2 * row + 1] = std::log(second[row]);
    }
    p.queries = {1, 0, 0, 1};
    const std::vector<float> scores = p.scores(rung(), 1.0F);
    EXPECT_EQ(scores[0], -1.0F) << "not part of the chunk";
    EXPECT_NEAR(scores[1], 2.0F / 9.0F, 1e-6F);
    EXPECT_NEAR(scores[2], 0.5F, 1e-6F);
    EXPECT_NEAR(scores[3], 4.0F / 9.0F, 1e-6F);
}

TEST_P(RepeatAttention, EqualsTheReferenceOverRaggedShapes) {
    for (const std::size_t group : std::initializer_list<std::size_t>{1, 3, 4, 7, 8}) {
        for (const std::size_t dim : std::initializer_list<std::size_t>{5, 64, 80}) {
            for (const repeat_span span : {repeat_span{0, 0, 1, 1},
                                           repeat_span{4, 4, 69, 65},
                                           repeat_span{4, 100, 163, 70},
                                           repeat_span{63, 64, 130, 33},
                                           repeat_span{70, 70, 75, 140},
                                           repeat_span{2, 50, 50, 3}}) {
                problem p(group, 2, dim, 170, span);
                const float scale = 1.0F / std::sqrt(static_cast<float>(dim));
                const std::vector<float> scores = p.scores(rung(), scale);
                const std::vector<double> expected =
                    reference::repeat_scores(p.queries,
                                             p.keys,
                                             p.q_heads,
                                             2,
                                             p.context,
                                             span.num_repeats,
                                             dim,
                                             span.num_sinks,
                                             span.begin,
                                             span.end,
                                             static_cast<double>(scale));
                for (std::size_t head = 0; head < 2; ++head) {
                    for (std::size_t j = 0; j < p.context; ++j) {
                        const float score = scores[head * p.context + j];
                        if (j < span.begin || j >= span.end) {
                            ASSERT_EQ(score, -1.0F) << "columns outside the chunk";
                            continue;
                        }
                        const double wanted = expected[head * span.chunk_length() + j - span.begin];
                        // Logits are off by (dim + 1) 2^-23 of their magnitudes, below 4 * sqrt(dim) here.
                        ASSERT_NEAR(static_cast<double>(score), wanted, 3e-4 * wanted + 1e-7);
                    }
                }
            }
        }
    }
}

TEST_P(RepeatAttention, RowsThatAreNotNumbersPayNothing) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = std::numeric_limits<float>::infinity();
    for (const float odd : {nan, inf, -inf}) {
        problem p(2, 1, 8, 40, {.num_sinks = 2, .begin = 2, .end = 40, .num_repeats = 20});
        p.keys[5 * 8] = odd;
        p.queries[3 * 8] = odd;
        p.keys[45 * 8] = odd;
        for (const float score : p.scores(rung(), 0.3F)) {
            EXPECT_TRUE((score >= 0.0F && score <= 1.0F) || score == -1.0F) << score;
        }
    }
}

KVCRUSH_ON_EVERY_RUNG(RepeatAttention);

TEST(RepeatAttentionLayouts, AreInvisible) {
    const kv_shape shape{2, 90, 16, 7};
    const repeat_span span{.num_sinks = 3, .begin = 20, .end = 60, .num_repeats = 25};
    problem p(3, 2, 16, 65, span);
    std::vector<std::vector<float>> answers;
    test::with_every_layout<bf16>(shape, [&](const auto& kv) {
        std::vector<float> out(2 * 65);
        std::vector<float> workspace(repeat_attention_workspace(shape, 6, span));
        repeat_attention(kv,
                         kv,
                         65,
                         query_view(p.queries, 6, 25, 16),
                         span,
                         head_scores(out, 2, 65),
                         workspace,
                         0.25F);
        answers.push_back(out);
    });
    for (const auto& answer : answers) {
        EXPECT_EQ(answer, answers.front());
    }
}

} // namespace
} // namespace kvcrush
