// SPDX-License-Identifier: Apache-2.0
#include "experiment.hpp"
#include "fidelity.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace lab {
namespace {

matrix logits_of(const std::vector<std::vector<float>>& rows) {
    matrix m(rows.size(), rows.front().size());
    for (std::size_t r = 0; r < rows.size(); ++r) {
        std::copy(rows[r].begin(), rows[r].end(), m.row(r).begin());
    }
    return m;
}

TEST(Fidelity, HandWorkedDivergence) {
    // Full (1/2, 1/2) and (3/4, 1/4), compressed (1/4, 3/4) and the same again.
    const reference_predictions full(logits_of({{0, 0}, {std::log(3.0F), 0}}), {0, 0});
    EXPECT_NEAR(full.nll(), (std::log(2.0) - std::log(0.75)) / 2, 1e-6);
    matrix compressed = logits_of({{0, std::log(3.0F)}, {std::log(3.0F), 0}});
    const fidelity result = compare(full, compressed);
    const double divergence = 0.5 * std::log(2.0) + 0.5 * std::log(2.0 / 3.0);
    EXPECT_NEAR(result.kld_mean, divergence / 2, 1e-6);
    EXPECT_NEAR(result.kld_p99, 0.99 * divergence, 1e-6);
    EXPECT_NEAR(result.nll, (std::log(4.0) - std::log(0.75)) / 2, 1e-6);
    EXPECT_DOUBLE_EQ(result.top1_agreement, 0.5);
}

TEST(Fidelity, EqualPredictionsDoNotDiverge) {
    const reference_predictions full(logits_of({{1, 2, 3}}), {1});
    matrix same = logits_of({{11, 12, 13}});
    const fidelity result = compare(full, same);
    EXPECT_NEAR(result.kld_mean, 0.0, 1e-6);
    EXPECT_DOUBLE_EQ(result.top1_agreement, 1.0);
}

TEST(Fidelity, QuantilesAreLinear) {
    EXPECT_DOUBLE_EQ(linear_quantile({4, 1, 3, 2}, 0.5), 2.5);
    EXPECT_DOUBLE_EQ(linear_quantile({4, 1, 3, 2}, 1.0), 4.0);
    EXPECT_DOUBLE_EQ(linear_quantile({7}, 0.99), 7.0);
    EXPECT_DOUBLE_EQ(linear_quantile({}, 0.99), 0.0);
}

TEST(Means, PerplexityRatioComesFromTheMeanDifference) {
    measurement a;
    a.policy = "x";
    a.keep_ratio = 0.5;
    a.quality.nll = 2.0;
    a.nll_full = 1.0;
    a.quality.kld_mean = 0.1;
    measurement b = a;
    b.quality.nll = 1.0;
    b.quality.kld_mean = 0.3;
    std::vector<measurement> all{a, b};
    append_means(all);
    ASSERT_EQ(all.size(), 3U);
    EXPECT_EQ(all[2].name, "mean");
    EXPECT_EQ(all[2].samples, 2U);
    EXPECT_NEAR(all[2].ppl_ratio, std::exp(0.5), 1e-12);
    EXPECT_NEAR(all[2].quality.kld_mean, 0.2, 1e-12);
}

} // namespace
} // namespace lab
