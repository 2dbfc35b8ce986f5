// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/retention/squared_attention.hpp>
#include <kvcrush/select/top_k.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

TEST(SquaredAttention, KnownAnswer) {
    // Two query heads, one token each way: .5 .1 and .3 .3.
    const std::vector<float> weights{0.5F, 0.1F, 0.3F, 0.3F};
    const squared_attention_scorer method{.window = 1, .pooling_kernel_size = 1};
    std::vector<float> metric(2, -1.0F);
    std::vector<std::byte> memory(method.scratch_bytes({{1, 2, 1, 1}, 2}));
    // Both heads belong to one kv head: .25 + .09 and .01 + .09.
    method.score(attention_view(weights, 2, 1, 2), head_scores(metric, 1, 2), scratch(memory));
    EXPECT_NEAR(metric[0], 0.34F, 1e-6F);
    EXPECT_NEAR(metric[1], 0.10F, 1e-6F);
}

TEST(SquaredAttention, AgreesWithTheDefinition) {
    for (const std::size_t group : std::initializer_list<std::size_t>{1, 3, 4, 7}) {
        for (const std::size_t tokens : std::initializer_list<std::size_t>{0, 1, 5, 63, 65, 130}) {
            const std::size_t dim = 12;
            const kv_shape shape{2, tokens, dim, dim};
            const std::size_t heads = 2 * group;
            const std::size_t given = (std::min)(tokens, std::size_t{40});
            std::vector<float> keys(2 * tokens * dim);
            std::vector<float> queries(heads * given * dim);
            for (std::size_t i = 0; i < keys.size(); ++i) {
                keys[i] = 2.0F * (random_unit(1, 0, i) - 0.5F);
            }
            for (std::size_t i = 0; i < queries.size(); ++i) {
                queries[i] = 4.0F * (random_unit(2, 0, i) - 0.5F);
            }
            const squared_attention_scorer method;
            const std::size_t window = (std::min)(given, std::size_t{32});
            std::vector<double> expected(2 * tokens, 0.0);
            std::vector<float> weights(heads * window * tokens, 0.0F);
            for (std::size_t h = 0; h < heads; ++h) {
                std::vector<double> squares(tokens, 0.0);
                for (std::size_t i = 0; i < window; ++i) {
                    const std::size_t seen = tokens - window + i + 1;
                    std::vector<double> row(seen);
                    double sum = 0.0;
                    for (std::size_t j = 0; j < seen; ++j) {
                        double logit = 0.0;
                        for (std::size_t c = 0; c < dim; ++c) {
                            logit +=
                                static_cast<double>(
                                    queries[(h * given + given - window + i) * dim + c]) *
                                static_cast<double>(keys[((h / group) * tokens + j) * dim + c]);
                        }
                        row[j] = std::exp(logit / std::sqrt(static_cast<double>(dim)));
                        sum += row[j];
                    }
                    for (std::size_t j = 0; j < seen; ++j) {
                        squares[j] += row[j] / sum * (row[j] / sum);
                        weights[(h * window + i) * tokens + j] = static_cast<float>(row[j] / sum);
                    }
                }
                for (std::size_t j = 0; j < tokens; ++j) {
                    double largest = 0.0;
                    for (std::size_t near = j < 3 ? 0 : j - 3; near < tokens && near <= j + 3;
                         ++near) {
                        largest = (std::max)(largest, squares[near]);
                    }
                    expected[(h / group) * tokens + j] += largest;
                }
            }
            std::vector<std::byte> memory(method.scratch_bytes({shape, heads}));
            std::vector<float> from_keys(2 * tokens, -1.0F);
            std::vector<float> from_weights(2 * tokens, -1.0F);
            method.score(kv_view<float>(keys, keys, shape),
                         query_view(queries, heads, given, dim),
                         head_scores(from_keys, 2, tokens),
                         scratch(memory));
            method.score(attention_view(weights, heads, window, tokens),
                         head_scores(from_weights, 2, tokens),
                         scratch(memory));
            for (std::size_t i = 0; i < expected.size(); ++i) {
                const double bound = 1e-5 * expected[i];
                ASSERT_NEAR(static_cast<double>(from_keys[i]), expected[i], bound);
                ASSERT_NEAR(static_cast<double>(from_weights[i]), expected[i], bound);
            }
            compressor crush(method, top_k_selector{});
            crush.plan({shape, heads}, budget::tokens(40));
            EXPECT_EQ(crush
                          .select(kv_view<float>(keys, keys, shape),
                                  query_view(queries, heads, given, dim))
                          .total(),
                      2 * (std::min)(tokens, std::size_t{40}));
        }
    }
}

TEST(SquaredAttention, RefusesWrongParameters) {
    EXPECT_THROW((squared_attention_scorer{.window = 0}.validate()), std::invalid_argument);
    EXPECT_THROW((squared_attention_scorer{.pooling_kernel_size = 4}.validate()),
                 std::invalid_argument);
}

} // namespace
} // namespace kvcrush
