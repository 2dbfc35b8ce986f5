// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/key_diff.hpp>
#include <kvcrush/select/top_k.hpp>

#include "reference/key_diff.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <vector>

namespace kvcrush {
namespace {

static_assert(KeyScorer<key_diff_scorer, kv_view<const f16>>);

std::vector<float> score(std::vector<float> keys, std::size_t dim) {
    const std::size_t tokens = keys.size() / dim;
    const kv_view<float> kv(keys, keys, kv_shape{1, tokens, dim, dim});
    std::vector<float> scores(tokens);
    key_diff_scorer{}.score(kv, {scores, 1, tokens});
    return scores;
}

// Known answer 11 of the specification.
TEST(KeyDiffScorer, KeepsKeysThatTurnAway) {
    const std::vector<float> scores = score({1, 0, 1, 0, 0, 1, 3, 0}, 2);
    const std::vector<float> expected{-0.948683F, -0.948683F, -0.316228F, -0.948683F};
    for (std::size_t t = 0; t < expected.size(); ++t) {
        EXPECT_NEAR(scores[t], expected[t], 1e-6F) << t;
    }
    std::vector<float> keys{1, 0, 1, 0, 0, 1, 3, 0};
    const kv_view<float> kv(keys, keys, kv_shape{1, 4, 2, 2});
    compressor crush(key_diff_scorer{}, top_k_selector{});
    crush.plan({kv.shape()}, budget::tokens(1, {0, 0}));
    EXPECT_EQ(test::list(crush.select(kv).kept(0)), (std::vector<token_index>{2}));
}

TEST(KeyDiffScorer, EqualsTheReferenceInEveryLayoutAndType) {
    for (const std::size_t dim : std::initializer_list<std::size_t>{1, 7, 64, 80, 512, 513, 1100}) {
        for (const std::size_t tokens : std::initializer_list<std::size_t>{1, 31, 65}) {
            const kv_shape shape{2, tokens, dim, 3};
            std::vector<double> expected;
            for (std::size_t head = 0; head < 2; ++head) {
                std::vector<std::vector<double>> keys(tokens);
                for (std::size_t token = 0; token < tokens; ++token) {
                    for (std::size_t d = 0; d < dim; ++d) {
                        keys[token].push_back(test::marked(false, head, token, d));
                    }
                }
                const std::vector<double> part = reference::key_diff(keys);
                expected.insert(expected.end(), part.begin(), part.end());
            }
            const auto check = [&](const auto& kv) {
                std::vector<float> scores(2 * tokens);
                key_diff_scorer{}.score(kv, {scores, 2, tokens});
                for (std::size_t i = 0; i < scores.size(); ++i) {
                    // Unit keys and their mean are off by some 2^-24 of lengths near 1; the mean of many keys in all
                    // directions is shorter, which makes errors larger in proportion.
                    EXPECT_NEAR(scores[i], expected[i], 2e-5) << dim << " " << tokens << " " << i;
                }
            };
            test::with_every_layout<float>(shape, check);
            test::with_every_layout<f16>(shape, check);
            test::with_every_layout<bf16>(shape, check);
        }
    }
}

TEST(KeyDiffScorer, KeysOfLengthZeroScoreZero) {
    const std::vector<float> scores = score({0, 0, 1, 0, 0, 2}, 2);
    EXPECT_EQ(scores[0], 0.0F);
    EXPECT_NEAR(scores[1], -std::sqrt(0.5F), 1e-6F);
    EXPECT_EQ(score({0, 0, 0, 0}, 2), (std::vector<float>{0, 0}));
    EXPECT_EQ(score({1, 0, -1, 0}, 2), (std::vector<float>{0, 0})) << "no direction in common";
}

TEST(KeyDiffScorer, KeysThatAreNotFiniteSpoilNoOthers) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = std::numeric_limits<float>::infinity();
    const std::vector<float> scores = score({1, 0, nan, 0, 0, 1, inf, 0, 1, 0, 3, 0}, 2);
    EXPECT_NEAR(scores[0], -0.948683F, 1e-6F);
    EXPECT_NEAR(scores[2], -0.316228F, 1e-6F);
    EXPECT_TRUE(std::isnan(scores[1]) && std::isnan(scores[3]));
}

TEST(KeyDiffScorer, EmptyCachesAreLegal) {
    std::vector<float> none;
    const kv_view<float> kv(none, none, kv_shape{2, 0, 4, 4});
    key_diff_scorer{}.score(kv, {none, 2, 0});
    const kv_view<float> no_channels(none, none, kv_shape{1, 3, 0, 0});
    std::vector<float> scores(3, 1.0F);
    key_diff_scorer{}.score(no_channels, {scores, 1, 3});
    EXPECT_EQ(scores, (std::vector<float>{0, 0, 0}));
}

} // namespace
} // namespace kvcrush
