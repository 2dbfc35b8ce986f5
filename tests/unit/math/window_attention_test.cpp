// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/math/attention_rows.hpp>
#include <kvcrush/math/window_attention.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "../../reference/window_attention.hpp"
#include "../simd/every_rung.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <span>
#include <vector>

namespace kvcrush {
namespace {

using reference::guarded_buffer;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// Random queries and the keys of test::fill, |q| < 2 and |k| < 2.
struct layer {
    kv_shape shape;
    std::size_t num_q_heads;
    std::size_t num_queries;
    std::vector<float> keys;
    std::vector<float> queries;

    layer(std::size_t num_kv_heads,
          std::size_t group,
          std::size_t seq_len,
          std::size_t dim,
          std::size_t queries_given)
        : shape{num_kv_heads, seq_len, dim, 1},
          num_q_heads(num_kv_heads * group),
          num_queries(queries_given),
          queries(num_q_heads * queries_given * dim) {
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            for (std::size_t token = 0; token < seq_len; ++token) {
                for (std::size_t d = 0; d < dim; ++d) {
                    keys.push_back(test::marked(false, head, token, d));
                }
            }
        }
        for (std::size_t i = 0; i < queries.size(); ++i) {
            queries[i] = random_unit(seq_len, dim, i) * 4.0F - 2.0F;
        }
    }

    [[nodiscard]] query_view view() const {
        return {queries, num_q_heads, num_queries, shape.key_dim};
    }
    [[nodiscard]] kv_view<const float> kv() const {
        // V is not read; one value per token fits into the keys.
        return {keys, keys, shape};
    }
    /// The weights of the last `window` queries, all of which must exist.
    [[nodiscard]] std::vector<double> expected(std::size_t window) const {
        std::vector<float> last;
        for (std::size_t head = 0; head < num_q_heads; ++head) {
            for (std::size_t i = num_queries - window; i < num_queries; ++i) {
                const float* const row = view().row(head, i);
                last.insert(last.end(), row, row + shape.key_dim);
            }
        }
        return reference::window_attention(last,
                                           keys,
                                           num_q_heads,
                                           shape.num_kv_heads,
                                           window,
                                           shape.seq_len,
                                           shape.key_dim,
                                           1.0 / std::sqrt(static_cast<double>(shape.key_dim)));
    }
    /// Relative error of one weight, derived in attention_mass_test.cpp.
    [[nodiscard]] double bound() const {
        const auto dim = static_cast<double>(shape.key_dim);
        const double m = 4.0 * dim / std::sqrt(dim);
        return std::expm1(2.0 * (dim + 2) * 0x1p-23 * m) + 0x1p-17 + 0x1p-22 * m + 0x1p-24;
    }
};

template <KvSource Kv>
std::vector<float>
weights_of(const Kv& kv, const query_view& queries, std::size_t window, simd::isa rung) {
    const kv_shape shape = kv.shape();
    const std::size_t rows = window_queries(queries.num_queries(), shape.seq_len, window);
    guarded_buffer<float> workspace(
        window_attention_workspace(shape, queries.num_q_heads(), window));
    guarded_buffer<float> weights(queries.num_q_heads() * rows * shape.seq_len);
    std::fill(workspace.span().begin(), workspace.span().end(), nan);
    std::fill(weights.span().begin(), weights.span().end(), nan);
    window_attention(queries, kv, window, weights.span(), workspace.span(), rung);
    return {weights.span().begin(), weights.span().end()};
}

void expect_weights(const layer& data, std::size_t window, simd::isa rung) {
    const std::size_t rows = window_queries(data.num_queries, data.shape.seq_len, window);
    const std::vector<float> weights = weights_of(data.kv(), data.view(), window, rung);
    const std::vector<double> expected = data.expected(rows);
    ASSERT_EQ(weights.size(), expected.size());
    for (std::size_t i = 0; i < weights.size(); ++i) {
        ASSERT_NEAR(weights[i], expected[i], data.bound() * expected[i] + 0x1p-120)
            << "row " << i / data.shape.seq_len << ", token " << i % data.shape.seq_len << " of "
            << data.shape.seq_len << ", window " << window << ", " << data.shape.key_dim
            << " channels";
    }
}

class WindowAttention : public reference::every_rung {};

TEST_P(WindowAttention, EqualsTheReference) {
    for (const std::size_t seq_len :
         std::initializer_list<std::size_t>{1, 2, 63, 64, 65, 130, 200}) {
        for (const std::size_t group : std::initializer_list<std::size_t>{1, 3, 4, 7, 8}) {
            for (const std::size_t window : std::initializer_list<std::size_t>{1, 2, 33}) {
                for (const std::size_t dim :
                     std::initializer_list<std::size_t>{3, 64, 80, 96, 128, 256}) {
                    if (dim == 3 || (group == 3 && seq_len == 65) || dim == 64 + 16 * (group % 3)) {
                        expect_weights(
                            layer(2, group, seq_len, dim, (std::min)(seq_len, window + 1)),
                            window,
                            rung());
                    }
                }
            }
        }
    }
}

TEST_P(WindowAttention, EqualsTheReferenceForManyBlocksOfQueries) {
    expect_weights(layer(1, 3, 300, 8, 300), 299, rung());
    expect_weights(layer(2, 1, 260, 4, 260), 1000, rung());
}

TEST_P(WindowAttention, EqualsTheReferenceForGroupsOfMoreHeadsThanRows) {
    expect_weights(layer(1, detail::attention_rows + 5, 70, 4, 3), 3, rung());
}

TEST_P(WindowAttention, EveryLayoutAndElementTypeGivesTheSame) {
    const layer data(3, 2, 70, 20, 9);
    const std::vector<float> expected = weights_of(data.kv(), data.view(), 9, rung());
    const auto check = [&](const auto& kv) {
        EXPECT_EQ(weights_of(kv, data.view(), 9, rung()), expected);
    };
    test::with_every_layout<float>(data.shape, check);
    test::with_every_layout<f16>(data.shape, check);
    test::with_every_layout<bf16>(data.shape, check);
}

TEST_P(WindowAttention, LongerWindowsThanTheSequenceMeanAllOfIt) {
    const layer data(1, 2, 20, 8, 20);
    EXPECT_EQ(weights_of(data.kv(), data.view(), 1000, rung()),
              weights_of(data.kv(), data.view(), 20, rung()));
    // More queries than tokens: the last ones belong to the tokens there are.
    const layer more(1, 1, 20, 8, 25);
    expect_weights(more, 25, rung());
}

TEST_P(WindowAttention, RowsAreCausalAndAddUpToOne) {
    const layer data(2, 3, 150, 16, 40);
    const std::vector<float> weights = weights_of(data.kv(), data.view(), 40, rung());
    for (std::size_t row = 0; row < 6 * 40; ++row) {
        double sum = 0.0;
        for (std::size_t j = 0; j < 150; ++j) {
            const float weight = weights[row * 150 + j];
            sum += static_cast<double>(weight);
            if (j > 110 + row % 40) {
                EXPECT_EQ(weight, 0.0F);
            }
        }
        EXPECT_NEAR(sum, 1.0, data.bound());
    }
}

TEST_P(WindowAttention, FoldsAreThoseOfTheRows) {
    const layer data(2, 4, 140, 24, 50);
    for (const std::size_t window : std::initializer_list<std::size_t>{0, 1, 31, 50, 500}) {
        const std::size_t rows = window_queries(50, 140, window);
        const std::vector<float> weights = weights_of(data.kv(), data.view(), window, rung());
        std::vector<float> sums(8 * 140);
        attention_mass(attention_view(weights, 8, rows, 140), {sums, 8, 140});
        for (const window_fold fold : {window_fold::sum, window_fold::mean, window_fold::reach}) {
            std::vector<float> scores(8 * 140, nan);
            std::vector<float> workspace(window_attention_workspace(data.shape, 8, window));
            window_attention(
                data.view(), data.kv(), window, fold, {scores, 8, 140}, workspace, rung());
            for (std::size_t i = 0; i < scores.size(); ++i) {
                const std::size_t divisor =
                    fold == window_fold::sum ? 1
                    : fold == window_fold::mean
                        ? (std::max)(rows, std::size_t{1})
                        : (std::max)((std::min)(rows, 140 - i % 140), std::size_t{1});
                const double expected = static_cast<double>(sums[i]) / static_cast<double>(divisor);
                ASSERT_NEAR(scores[i], expected, 2.0 * (data.bound() + 0x1p-18) * expected);
            }
        }
    }
}

TEST_P(WindowAttention, TheScaleIsAParameter) {
    const layer data(1, 2, 90, 8, 10);
    std::vector<float> workspace(window_attention_workspace(data.shape, 2, 10));
    std::vector<float> weights(2 * 10 * 90);
    window_attention(data.view(), data.kv(), 10, weights, workspace, 0.0F, rung());
    for (std::size_t row = 0; row < 20; ++row) {
        EXPECT_NEAR(weights[row * 90], 1.0 / static_cast<double>(81 + row % 10), 1e-7);
    }
}

TEST_P(WindowAttention, StaysFiniteWhateverTheInput) {
    layer data(1, 1, 150, 4, 20);
    for (std::size_t i = 0; i < data.keys.size(); i += 37) {
        data.keys[i] = i % 2 == 0 ? infinity : std::numeric_limits<float>::max();
    }
    data.keys[9] = nan;
    data.queries[5] = nan;
    data.queries[10] = -infinity;
    for (const float weight : weights_of(data.kv(), data.view(), 20, rung())) {
        EXPECT_TRUE(std::isfinite(weight) && weight >= 0.0F);
    }
}

TEST_P(WindowAttention, WithoutQueriesThereIsNothing) {
    const layer data(2, 2, 70, 8, 5);
    EXPECT_TRUE(weights_of(data.kv(), data.view(), 0, rung()).empty());
    const layer empty(2, 2, 0, 8, 0);
    EXPECT_TRUE(weights_of(empty.kv(), empty.view(), 10, rung()).empty());
}

KVCRUSH_ON_EVERY_RUNG(WindowAttention);

} // namespace
} // namespace kvcrush
