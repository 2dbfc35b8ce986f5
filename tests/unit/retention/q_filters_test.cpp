// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/retention/q_filter_calibration.hpp>
#include <kvcrush/retention/q_filters.hpp>
#include <kvcrush/select/top_k.hpp>

#include "reference/q_filters.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

static_assert(KeyScorer<q_filters_scorer, kv_view<const bf16>>);

// Known answer 11 of the specification.
TEST(QFiltersScorer, FiltersPointAwayFromTheQueries) {
    std::vector<float> keys{1, 0, 0, 1, 1, 1};
    const std::vector<float> filters{0.6F, -0.8F};
    const kv_view<float> kv(keys, keys, kv_shape{1, 3, 2, 2});
    std::vector<float> scores(3);
    q_filters_scorer{.filters = filters}.score(kv, {scores, 1, 3});
    EXPECT_FLOAT_EQ(scores[0], -0.6F);
    EXPECT_FLOAT_EQ(scores[1], 0.8F);
    EXPECT_NEAR(scores[2], 0.2F, 1e-6F);
    compressor crush(q_filters_scorer{.filters = filters}, top_k_selector{});
    crush.plan({kv.shape()}, budget::tokens(2, {0, 0}));
    EXPECT_EQ(test::list(crush.select(kv).kept(0)), (std::vector<token_index>{1, 2}));
}

TEST(QFiltersScorer, GivesTheSameScoresInEveryLayoutAndType) {
    for (const std::size_t dim : std::initializer_list<std::size_t>{1, 7, 64, 80, 257}) {
        const kv_shape shape{2, 37, dim, 3};
        std::vector<float> filters(2 * dim);
        for (std::size_t i = 0; i < filters.size(); ++i) {
            filters[i] = random_unit(1, dim, i) - 0.5F;
        }
        const auto check = [&](const auto& kv) {
            std::vector<float> scores(2 * 37);
            q_filters_scorer{.filters = filters}.score(kv, {scores, 2, 37});
            for (std::size_t i = 0; i < scores.size(); ++i) {
                double expected = 0.0;
                double magnitude = 0.0;
                for (std::size_t d = 0; d < dim; ++d) {
                    const double product = static_cast<double>(filters[i / 37 * dim + d]) *
                                           test::marked(false, i / 37, i % 37, d);
                    expected -= product;
                    magnitude += std::abs(product);
                }
                EXPECT_NEAR(
                    scores[i], expected, static_cast<double>(dim + 2) * 0x1p-24 * magnitude);
            }
        };
        test::with_every_layout<float>(shape, check);
        test::with_every_layout<f16>(shape, check);
        test::with_every_layout<bf16>(shape, check);
    }
}

TEST(QFiltersScorer, RefusesMissingFiltersAndThoseOfAnotherModel) {
    EXPECT_THROW(q_filters_scorer{}.validate(), std::invalid_argument);
    const std::vector<float> filters(6, 1.0F);
    const q_filters_scorer scorer{.filters = filters};
    EXPECT_NO_THROW(scorer.validate());
    EXPECT_NO_THROW(scorer.validate_for({kv_shape{2, 10, 3, 3}, 4}));
    EXPECT_THROW(scorer.validate_for({kv_shape{2, 10, 4, 4}, 4}), std::invalid_argument);
    std::vector<float> keys(40, 1.0F);
    std::vector<float> scores(10, 7.0F);
    scorer.score(kv_view<float>(keys, keys, kv_shape{1, 10, 4, 4}), {scores, 1, 10});
    EXPECT_EQ(scores, std::vector<float>(10, 0.0F));
}

TEST(QFilterCalibration, FindsTheDirectionThatQueriesShare) {
    // Queries along (3, 4) / 5 with a little across: the filter is the opposite direction.
    const std::vector<float> queries{3, 4, 6, 8, 0.3F, 0.4F, 2.96F, 4.03F};
    q_filter_calibration calibration(1, 1, 2);
    calibration.add(query_view(queries, 1, 4, 2));
    const std::vector<float> filters = calibration.filters();
    EXPECT_NEAR(filters[0], -0.6F, 1e-2F);
    EXPECT_NEAR(filters[1], -0.8F, 1e-2F);
    EXPECT_NEAR(std::hypot(filters[0], filters[1]), 1.0F, 1e-6F);
}

TEST(QFilterCalibration, EqualsTheReference) {
    for (const std::size_t group_size : std::initializer_list<std::size_t>{1, 3, 8}) {
        for (const std::size_t dim : std::initializer_list<std::size_t>{1, 5, 16}) {
            const std::size_t heads = 2 * group_size;
            std::vector<float> queries(heads * 30 * dim);
            for (std::size_t i = 0; i < queries.size(); ++i) {
                // A shift of the first channels gives a direction; its sign differs between heads.
                const bool odd = i / (30 * dim) % 2 == 1;
                queries[i] = random_unit(3, dim, i) - (odd ? 0.9F : 0.2F);
            }
            q_filter_calibration calibration(heads, 2, dim);
            const query_view all(queries, heads, 30, dim);
            calibration.add(all.last(20)); // sums add up, in whatever pieces they come
            calibration.add(query_view(queries, heads, 10, dim, {30 * dim, dim, 1}));
            const std::vector<float> filters = calibration.filters();
            std::vector<double> expected(2 * dim, 0.0);
            for (std::size_t h = 0; h < heads; ++h) {
                std::vector<std::vector<double>> rows(30);
                for (std::size_t i = 0; i < 30; ++i) {
                    rows[i].assign(all.row(h, i), all.row(h, i) + dim);
                }
                const std::vector<double> part = reference::q_filter(rows);
                for (std::size_t c = 0; c < dim; ++c) {
                    expected[h / group_size * dim + c] += part[c] / static_cast<double>(group_size);
                }
            }
            for (std::size_t i = 0; i < expected.size(); ++i) {
                EXPECT_NEAR(filters[i], expected[i], 1e-6) << group_size << " " << dim;
            }
        }
    }
}

TEST(QFilterCalibration, QueriesWithoutADirectionGiveZeros) {
    q_filter_calibration calibration(2, 1, 3);
    EXPECT_EQ(calibration.filters(), std::vector<float>(3, 0.0F));
    const std::vector<float> queries{0, 0, 0, std::numeric_limits<float>::quiet_NaN(), 0, 0};
    calibration.add(query_view(queries, 2, 1, 3));
    EXPECT_EQ(calibration.filters(), std::vector<float>(3, 0.0F));
}

TEST(QFilterCalibration, RefusesOtherSizes) {
    EXPECT_THROW(q_filter_calibration(3, 2, 4), std::invalid_argument);
    EXPECT_THROW(q_filter_calibration(2, 0, 4), std::invalid_argument);
    q_filter_calibration calibration(2, 1, 3);
    const std::vector<float> queries(12);
    EXPECT_THROW(calibration.add(query_view(queries, 3, 1, 3)), std::invalid_argument);
    EXPECT_THROW(calibration.add(query_view(queries, 2, 1, 4)), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
