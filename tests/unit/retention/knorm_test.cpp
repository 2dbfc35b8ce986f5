// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/select/top_k.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <vector>

namespace kvcrush {
namespace {

static_assert(KeyScorer<knorm_scorer, kv_view<const f16>>);

// Known answer 4 of the specification.
TEST(KnormScorer, KeepsKeysWithSmallNorms) {
    std::vector<float> keys{3, 4, 1, 0, 0, 2, 6, 8, 1, 1, 0, 1};
    const kv_view<float> kv(keys, keys, kv_shape{1, 6, 2, 2});
    std::vector<float> scores(6);
    knorm_scorer{}.score(kv, {scores, 1, 6});
    const std::vector<float> norms{5, 1, 2, 10, std::sqrt(2.0F), 1};
    for (std::size_t t = 0; t < 6; ++t) {
        EXPECT_FLOAT_EQ(scores[t], -norms[t]);
    }
    compressor crush(knorm_scorer{}, top_k_selector{});
    crush.plan({kv.shape()}, budget::tokens(3, {0, 0}));
    EXPECT_EQ(test::list(crush.select(kv).kept(0)), (std::vector<token_index>{1, 4, 5}));
}

TEST(KnormScorer, TellsKeysApartWhoseSquaresFp32DoesNotHold) {
    const auto best = [](std::vector<float> keys, std::size_t dim) {
        const std::size_t n = keys.size() / dim;
        std::vector<float> scores(n);
        knorm_scorer{}.score(kv_view<float>(keys, keys, kv_shape{1, n, dim, dim}), {scores, 1, n});
        return scores;
    };
    const std::vector<float> tiny = best({2e-30F, 0, 1e-30F, 0, 0, 0, 3e-30F, 4e-30F}, 2);
    EXPECT_FLOAT_EQ(tiny[0], -2e-30F);
    EXPECT_FLOAT_EQ(tiny[1], -1e-30F);
    EXPECT_EQ(tiny[2], 0.0F);
    EXPECT_FLOAT_EQ(tiny[3], -5e-30F);
    const std::vector<float> large = best({2e30F, 0, 1, 0, 3e30F, 4e30F}, 2);
    EXPECT_FLOAT_EQ(large[0], -2e30F);
    EXPECT_FLOAT_EQ(large[1], -1.0F);
    EXPECT_FLOAT_EQ(large[2], -5e30F);
    const std::vector<float> huge = best({3e38F, 3e38F, 2e38F, 3e38F, 1e38F, 0, 1, 1}, 2);
    EXPECT_TRUE(std::isfinite(huge[0]));
    EXPECT_LT(huge[0], huge[1]);
    EXPECT_LT(huge[1], huge[2]);
    EXPECT_LT(huge[2], huge[3]);
    EXPECT_FLOAT_EQ(huge[2], -1e38F * 0x1p-64F);
    const float inf = std::numeric_limits<float>::infinity();
    const std::vector<float> odd = best({inf, 0, 1e-30F, 0, std::nanf(""), 0}, 2);
    EXPECT_EQ(odd[0], -inf);
    EXPECT_FLOAT_EQ(odd[1], -1e-30F);
    EXPECT_TRUE(std::isnan(odd[2]));
}

TEST(KnormScorer, GivesTheSameNormsInEveryLayoutAndType) {
    for (const std::size_t dim : std::initializer_list<std::size_t>{1, 7, 64, 255, 256, 257, 600}) {
        const kv_shape shape{2, 9, dim, 3};
        std::vector<double> expected;
        for (std::size_t head = 0; head < 2; ++head) {
            for (std::size_t token = 0; token < 9; ++token) {
                double sum = 0.0;
                for (std::size_t d = 0; d < dim; ++d) {
                    const double x = test::marked(false, head, token, d);
                    sum += x * x;
                }
                expected.push_back(-std::sqrt(sum));
            }
        }
        const auto check = [&](const auto& kv) {
            std::vector<float> scores(18);
            knorm_scorer{}.score(kv, {scores, 2, 9});
            for (std::size_t i = 0; i < 18; ++i) {
                // At most dim additions of relative error 2^-24 each, halved by the root.
                EXPECT_NEAR(
                    scores[i], expected[i], 1e-7 * static_cast<double>(dim + 2) * -expected[i])
                    << i;
            }
        };
        test::with_every_layout<float>(shape, check);
        test::with_every_layout<f16>(shape, check);
        test::with_every_layout<bf16>(shape, check);
    }
}

} // namespace
} // namespace kvcrush
