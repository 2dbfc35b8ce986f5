// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/math/value_norms.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

TEST(ProjectedValueNorms, EqualTheObviousLoopsInEveryLayout) {
    for (const std::size_t group : std::initializer_list<std::size_t>{1, 3, 4, 7}) {
        for (const std::size_t dim : std::initializer_list<std::size_t>{1, 5, 64, 80}) {
            const kv_shape shape{2, 70, 3, dim};
            const std::size_t hidden = 65 + dim;
            const std::size_t q_heads = 2 * group;
            std::vector<float> weights(hidden * q_heads * dim);
            for (std::size_t i = 0; i < weights.size(); ++i) {
                weights[i] = random_unit(5, dim, i) - 0.5F;
            }
            const output_projection projection(weights, hidden, q_heads, dim);
            test::with_every_layout<f16>(shape, [&](const auto& kv) {
                std::vector<float> norms(2 * 70);
                test::owned_scratch memory(projected_value_norms_scratch_bytes(shape));
                projected_value_norms(kv, projection, head_scores(norms, 2, 70), memory.get());
                for (std::size_t head = 0; head < 2; ++head) {
                    for (std::size_t t = 0; t < 70; t += 23) {
                        double sum = 0.0;
                        double magnitudes = 0.0;
                        for (std::size_t h = head * group; h < (head + 1) * group; ++h) {
                            for (std::size_t r = 0; r < hidden; ++r) {
                                double product = 0.0;
                                for (std::size_t k = 0; k < dim; ++k) {
                                    const double term =
                                        static_cast<double>(weights[(r * q_heads + h) * dim + k]) *
                                        static_cast<double>(test::marked(true, head, t, k));
                                    product += term;
                                    magnitudes += std::abs(term);
                                }
                                sum += std::abs(product);
                            }
                        }
                        // Each product is off by at most (dim + 1) * 2^-23 of its magnitudes, a block of 64 rows by
                        // 64 * 2^-24 more.
                        const double bound =
                            (static_cast<double>(dim) + 33.0) * 0x1p-23 * magnitudes;
                        ASSERT_NEAR(static_cast<double>(norms[head * 70 + t]),
                                    sum / static_cast<double>(group),
                                    bound / static_cast<double>(group));
                    }
                }
            });
        }
    }
}

TEST(ProjectedValueNorms, RefuseShortWeights) {
    const std::vector<float> weights(11);
    EXPECT_THROW(output_projection(weights, 2, 3, 2), std::invalid_argument);
    EXPECT_NO_THROW(output_projection(weights, 0, 3, 2));
}

TEST(L1NormOfRows, TakesAnyStride) {
    const std::vector<float> values{1, -2, 3, -4, 5, -6};
    EXPECT_EQ(l1_norm(row_view<const float>(values.data(), 6)), 21.0F);
    EXPECT_EQ(l1_norm(row_view<const float>(values.data(), 3, 2)), 9.0F);
    EXPECT_EQ(l1_norm(row_view<const float>(values.data(), 0)), 0.0F);
    const std::vector<float> many(700, -1.0F);
    EXPECT_EQ(l1_norm(row_view<const float>(many.data(), 350, 2)), 350.0F);
}

} // namespace
} // namespace kvcrush
