// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/allocation/dbudget_kv.hpp>
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/retention/streaming_llm.hpp>
#include <kvcrush/select/top_k.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

std::size_t tokens_of(const dbudget_kv& stop, const std::vector<float>& rows, std::size_t heads) {
    std::vector<std::byte> memory(stop.scratch_bytes(heads));
    return stop.tokens(const_head_scores(rows, heads, heads == 0 ? 0 : rows.size() / heads),
                       scratch(memory));
}

/// The definition, place by place.
std::size_t naive(const dbudget_kv& stop, const std::vector<float>& rows, std::size_t heads) {
    const std::size_t n = rows.size() / heads;
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < n && i < stop.num_sink_tokens; ++i) {
        order.push_back(i);
    }
    for (std::size_t i = n; i > stop.num_sink_tokens; --i) {
        order.push_back(i - 1);
    }
    const auto norm = [&](std::size_t count) {
        double sum = 0.0;
        for (std::size_t head = 0; head < heads; ++head) {
            double squares = 0.0;
            for (std::size_t i = 0; i < count; ++i) {
                const auto paid = static_cast<double>(rows[head * n + order[i]]);
                squares += paid * paid;
            }
            sum += std::sqrt(squares);
        }
        return sum;
    };
    std::size_t count = 1;
    while (count < n && norm(count) < norm(n) * (1.0 - stop.threshold)) {
        ++count;
    }
    return count;
}

TEST(DBudgetKv, KnownAnswers) {
    const std::vector<float> row{6, 2, 1, 0, 0, 2, 4, 8};
    const auto at = [&](double threshold) {
        return tokens_of({.threshold = threshold, .num_sink_tokens = 2}, row, 1);
    };
    EXPECT_EQ(at(0.05), 4U) << "{0, 1, 7, 6}";
    EXPECT_EQ(at(0.01), 5U) << "{0, 1, 7, 6, 5}";
    EXPECT_EQ(at(0.0), 8U) << "token 2 still carries something";
    EXPECT_EQ(at(0.434316), 2U);
    EXPECT_EQ(at(0.434314), 3U);
    EXPECT_EQ(at(1.0), 1U);
    EXPECT_EQ((dbudget_kv{.num_sink_tokens = 2}.area_of(5)), (area_sizes{2, 3}));
    EXPECT_EQ(dbudget_kv{}.area_of(3), (area_sizes{3, 0}));
}

TEST(DBudgetKv, StopsAsSoonAsNothingIsLeft) {
    std::vector<float> row(300, 0.0F);
    row[0] = 1.0F;
    row[1] = 0.1F;
    row[220] = 0.3F;
    EXPECT_EQ(tokens_of({.threshold = 0.0}, row, 1), 4U + 80U);
}

TEST(DBudgetKv, AgreesWithTheDefinition) {
    for (const std::size_t heads : std::initializer_list<std::size_t>{1, 3, 9}) {
        for (const std::size_t tokens :
             std::initializer_list<std::size_t>{1, 3, 4, 5, 63, 64, 65, 200, 513}) {
            std::vector<float> rows(heads * tokens);
            for (std::size_t i = 0; i < rows.size(); ++i) {
                rows[i] = std::exp(-8.0F * random_unit(3, heads, i));
            }
            for (const double threshold : {0.001, 0.0123, 0.1, 0.5}) {
                for (const std::size_t sinks : std::initializer_list<std::size_t>{0, 4, 70}) {
                    const dbudget_kv stop{.threshold = threshold, .num_sink_tokens = sinks};
                    EXPECT_EQ(tokens_of(stop, rows, heads), naive(stop, rows, heads))
                        << heads << " x " << tokens << ", " << threshold;
                }
            }
            EXPECT_EQ(tokens_of({.threshold = 0.0}, rows, heads), tokens);
        }
    }
}

TEST(DBudgetKv, RowsThatSayNothingKeepEverything) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = std::numeric_limits<float>::infinity();
    EXPECT_EQ(tokens_of({}, std::vector<float>(10, 0.0F), 1), 10U);
    EXPECT_EQ(tokens_of({}, {1, 2, nan, 4}, 1), 4U);
    EXPECT_EQ(tokens_of({}, {1, 2, inf, 4}, 1), 4U);
    EXPECT_EQ(tokens_of({}, {}, 0), 0U);
    EXPECT_EQ(tokens_of({}, {}, 2), 0U);
}

TEST(DBudgetKv, TheCompressorKeepsSinksAndASuffix) {
    const kv_shape shape{2, 50, 4, 4};
    std::vector<float> keys(2 * 50 * 4, 1.0F);
    const dbudget_kv stop;
    compressor crush(streaming_llm_scorer{}, top_k_selector{});
    crush.plan({shape, 2}, budget::tokens(7, stop.area_of(7)));
    const selection& kept = crush.select(kv_view<float>(keys, keys, shape));
    EXPECT_EQ(test::list(kept.kept(1)), test::list(kept.kept(0)));
    const std::vector<token_index> expected{0, 1, 2, 3, 47, 48, 49};
    EXPECT_TRUE(
        std::equal(expected.begin(), expected.end(), kept.kept(0).begin(), kept.kept(0).end()));
}

TEST(DBudgetKv, RefusesWrongParameters) {
    EXPECT_THROW((dbudget_kv{.threshold = -0.1}.validate()), std::invalid_argument);
    EXPECT_THROW((dbudget_kv{.threshold = std::nan("")}.validate()), std::invalid_argument);
    EXPECT_THROW((dbudget_kv{.last = 0}.validate()), std::invalid_argument);
    EXPECT_TRUE(dbudget_kv{}.keeps_all(1));
    EXPECT_FALSE(dbudget_kv{}.keeps_all(2));
}

} // namespace
} // namespace kvcrush
