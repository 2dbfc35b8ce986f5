// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/math/attention_mass.hpp>

#include "../../reference/attention.hpp"
#include "../../reference/guarded_buffer.hpp"
#include "../simd/every_rung.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <vector>

namespace {

namespace simd = kvcrush::simd;
using kvcrush::kv_shape;
using kvcrush::kv_view;
using kvcrush::query_view;
using kvcrush::reference::guarded_buffer;

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// Random queries and keys of one layer, and what the reference makes of them.
struct layer {
    std::size_t num_kv_heads;
    std::size_t group_size;
    std::size_t seq_len;
    std::size_t head_dim;
    std::size_t num_queries;
    std::vector<float> keys;
    std::vector<float> queries;

    layer(std::size_t kv_heads,
          std::size_t group,
          std::size_t tokens,
          std::size_t dim,
          std::size_t window)
        : num_kv_heads(kv_heads),
          group_size(group),
          seq_len(tokens),
          head_dim(dim),
          num_queries(window),
          keys(kv_heads * tokens * dim),
          queries(kv_heads * group * window * dim) {
        for (std::size_t i = 0; i < keys.size(); ++i) {
            // Multiples of 1/64 are the same in every element type.
            keys[i] =
                std::round((kvcrush::random_unit(tokens, dim, i) * 2.0F - 1.0F) * 64.0F) / 64.0F;
        }
        for (std::size_t i = 0; i < queries.size(); ++i) {
            queries[i] = kvcrush::random_unit(window, dim + 1, i) * 4.0F - 2.0F;
        }
    }

    [[nodiscard]] std::size_t num_q_heads() const { return num_kv_heads * group_size; }
    [[nodiscard]] kv_shape shape() const { return {num_kv_heads, seq_len, head_dim, head_dim}; }
    [[nodiscard]] query_view view() const {
        return {queries, num_q_heads(), num_queries, head_dim};
    }
    [[nodiscard]] float scale() const { return 1.0F / std::sqrt(static_cast<float>(head_dim)); }
    [[nodiscard]] std::vector<double> expected(double factor) const {
        return kvcrush::reference::attention_mass(
            queries, keys, num_q_heads(), num_kv_heads, num_queries, seq_len, head_dim, factor);
    }

    /// Relative error of a mass. A logit is off by at most e = (head_dim + 2) 2^-23 m, m = scale *
    /// sum |q| |k|, which changes its own weight and the sum of weights by that factor each: 2 e.
    /// Twice the bound of a softmax (2^-18 and 2^-24 times a difference of logits, at most 2 m),
    /// and num_queries additions.
    [[nodiscard]] double bound() const {
        const double m = static_cast<double>(scale()) * 2.0 * static_cast<double>(head_dim);
        const double logit = static_cast<double>(head_dim + 2) * 0x1p-23 * m;
        return std::expm1(2.0 * logit) + 0x1p-17 + 0x1p-22 * m +
               static_cast<double>(num_queries) * 0x1p-24;
    }

    void expect_mass(std::span<const float> mass) const {
        const std::vector<double> reference = expected(static_cast<double>(scale()));
        ASSERT_EQ(mass.size(), reference.size());
        for (std::size_t i = 0; i < mass.size(); ++i) {
            ASSERT_NEAR(
                static_cast<double>(mass[i]), reference[i], bound() * reference[i] + 0x1p-120)
                << "query head " << i / seq_len << " of " << num_q_heads() << ", token "
                << i % seq_len << " of " << seq_len << ", " << num_queries << " queries, "
                << head_dim << " channels";
        }
    }
};

template <kvcrush::KvSource Kv>
std::vector<float> mass_of(const Kv& kv, const query_view& queries, simd::isa rung) {
    const std::size_t floats =
        kvcrush::attention_mass_workspace(kv.shape(), queries.num_q_heads(), queries.num_queries());
    guarded_buffer<float> workspace(floats);
    std::fill(
        workspace.span().begin(), workspace.span().end(), nan); // what was there must not matter
    guarded_buffer<float> mass(queries.num_q_heads() * kv.shape().seq_len);
    std::fill(mass.span().begin(), mass.span().end(), nan);
    kvcrush::attention_mass(kv, queries, mass.span(), workspace.span(), rung);
    return {mass.span().begin(), mass.span().end()};
}

std::vector<float> mass_of(const layer& data, simd::isa rung) {
    const kv_view<const float> kv(data.keys, data.keys, data.shape());
    return mass_of(kv, data.view(), rung);
}

class AttentionMass : public kvcrush::reference::every_rung {};

TEST_P(AttentionMass, EqualsTheReference) {
    for (const std::size_t seq_len :
         std::initializer_list<std::size_t>{1U, 2U, 63U, 64U, 65U, 130U}) {
        for (const std::size_t group_size : std::initializer_list<std::size_t>{1U, 3U, 4U, 7U}) {
            for (const std::size_t window : std::initializer_list<std::size_t>{
                     std::size_t{1}, std::size_t{2}, std::size_t{31}, std::size_t{33}, seq_len}) {
                for (const std::size_t head_dim :
                     std::initializer_list<std::size_t>{1U, 3U, 64U, 80U, 128U}) {
                    if (window <= seq_len && (head_dim < 64 || group_size == 3 || seq_len == 65)) {
                        const layer data(2, group_size, seq_len, head_dim, window);
                        data.expect_mass(mass_of(data, rung()));
                    }
                }
            }
        }
    }
}

TEST_P(AttentionMass, EqualsTheReferenceForManyBlocksOfQueries) {
    const layer grouped(1, 3, 300, 16, 300);
    grouped.expect_mass(mass_of(grouped, rung()));
    const layer last(2, 1, 400, 8, 257);
    last.expect_mass(mass_of(last, rung()));
}

TEST_P(AttentionMass, EqualsTheReferenceForGroupsOfMoreHeadsThanRows) {
    const layer data(1, kvcrush::detail::attention_rows + 5, 70, 4, 3);
    data.expect_mass(mass_of(data, rung()));
}

TEST_P(AttentionMass, EveryLayoutAndElementTypeGivesTheSame) {
    const layer data(3, 2, 133, 20, 40);
    const std::vector<float> expected = mass_of(data, rung());
    const std::size_t size = data.keys.size();
    std::vector<kvcrush::f16> half(size);
    std::vector<kvcrush::bf16> brain(size);
    std::vector<float> token_major(size);
    std::vector<kvcrush::f16> channel_major(size);
    for (std::size_t i = 0; i < size; ++i) {
        const std::size_t head = i / (data.seq_len * data.head_dim);
        const std::size_t token = i / data.head_dim % data.seq_len;
        const std::size_t channel = i % data.head_dim;
        half[i] = kvcrush::to_f16(data.keys[i]);
        brain[i] = kvcrush::to_bf16(data.keys[i]);
        token_major[(token * data.num_kv_heads + head) * data.head_dim + channel] = data.keys[i];
        channel_major[(head * data.head_dim + channel) * data.seq_len + token] = half[i];
    }
    using kvcrush::bf16;
    using kvcrush::f16;
    EXPECT_EQ(mass_of(kv_view<f16>(half, half, data.shape()), data.view(), rung()), expected);
    EXPECT_EQ(mass_of(kv_view<bf16>(brain, brain, data.shape()), data.view(), rung()), expected);
    EXPECT_EQ(mass_of(kv_view<float, kvcrush::nhd>(token_major, token_major, data.shape()),
                      data.view(),
                      rung()),
              expected);
    const kvcrush::kv_strides strides{data.head_dim * data.seq_len, 1, data.seq_len};
    const kv_view<f16, kvcrush::strided> transposed(
        channel_major, channel_major, data.shape(), kvcrush::strided{strides, strides});
    EXPECT_EQ(mass_of(transposed, data.view(), rung()), expected);
}

TEST_P(AttentionMass, QueriesMayBeStrided) {
    const layer data(2, 2, 70, 12, 5);
    const std::size_t heads = data.num_q_heads();
    std::vector<float> token_major(data.queries.size());
    for (std::size_t i = 0; i < token_major.size(); ++i) {
        const std::size_t head = i / (data.num_queries * data.head_dim);
        const std::size_t query = i / data.head_dim % data.num_queries;
        token_major[(query * heads + head) * data.head_dim + i % data.head_dim] = data.queries[i];
    }
    const query_view queries(token_major,
                             heads,
                             data.num_queries,
                             data.head_dim,
                             {data.head_dim, heads * data.head_dim, 1});
    const kv_view<const float> kv(data.keys, data.keys, data.shape());
    EXPECT_EQ(mass_of(kv, queries, rung()), mass_of(data, rung()));
}

TEST_P(AttentionMass, TheScaleIsAParameter) {
    const layer data(1, 2, 90, 8, 10);
    const kv_view<const float> kv(data.keys, data.keys, data.shape());
    std::vector<float> workspace(kvcrush::attention_mass_workspace(data.shape(), 2, 10));
    std::vector<float> mass(2 * data.seq_len);
    kvcrush::attention_mass(kv, data.view(), mass, workspace, 0.0F, rung());
    for (std::size_t j = 0; j < 81; ++j) {
        double expected = 0.0;
        for (std::size_t i = 0; i < 10; ++i) {
            expected += 1.0 / static_cast<double>(81 + i);
        }
        ASSERT_NEAR(static_cast<double>(mass[j]), expected, 1e-6);
    }
}

TEST_P(AttentionMass, MassesOfAHeadAddUpToItsQueries) {
    const layer data(2, 4, 500, 32, 100);
    const std::vector<float> mass = mass_of(data, rung());
    for (std::size_t head = 0; head < data.num_q_heads(); ++head) {
        double sum = 0.0;
        for (std::size_t j = 0; j < data.seq_len; ++j) {
            sum += static_cast<double>(mass[head * data.seq_len + j]);
        }
        EXPECT_NEAR(sum, 100.0, 100.0 * data.bound());
    }
}

TEST_P(AttentionMass, WithoutQueriesItIsZero) {
    const layer data(2, 2, 70, 8, 0);
    EXPECT_EQ(mass_of(data, rung()), std::vector<float>(4 * 70, 0.0F));
    EXPECT_EQ(kvcrush::attention_mass_workspace(data.shape(), 4, 0), 0U);
    const layer empty(2, 2, 0, 8, 0);
    EXPECT_TRUE(mass_of(empty, rung()).empty());
}

TEST_P(AttentionMass, NanKeysWeighNothingAndHideNobody) {
    layer data(1, 2, 100, 8, 4);
    const std::vector<float> whole = mass_of(data, rung());
    for (std::size_t k = 0; k < data.head_dim; ++k) {
        data.keys[70 * data.head_dim + k] = nan;
    }
    const std::vector<float> mass = mass_of(data, rung());
    data.expect_mass(mass); // the reference gives NaN no weight either
    EXPECT_EQ(mass[70], 0.0F);
    EXPECT_GT(mass[71], whole[71]);
}

TEST_P(AttentionMass, StaysFiniteWhateverTheInput) {
    layer data(1, 1, 150, 4, 20);
    for (std::size_t i = 0; i < data.keys.size(); i += 37) {
        data.keys[i] = i % 2 == 0 ? infinity : std::numeric_limits<float>::max();
    }
    data.queries[5] = nan;
    data.queries[10] = -infinity;
    for (const float value : mass_of(data, rung())) {
        EXPECT_TRUE(std::isfinite(value) && value >= 0.0F);
    }
}

TEST(AttentionMass, VectorRungsAgreeBitForBit) {
    if (simd::best() < simd::isa::avx512) {
        GTEST_SKIP() << "this CPU lacks avx512";
    }
    const layer data(2, 3, 333, 48, 50);
    EXPECT_EQ(mass_of(data, simd::isa::avx512), mass_of(data, simd::isa::avx2));
}

KVCRUSH_ON_EVERY_RUNG(AttentionMass);

TEST(AttentionMassWorkspace, IsLinearInTokensAndNeverShrinks) {
    const auto floats = [](std::size_t tokens, std::size_t queries) {
        return kvcrush::attention_mass_workspace({8, tokens, 128, 128}, 32, queries);
    };
    for (std::size_t i = 1; i < 300; ++i) {
        EXPECT_GE(floats(1000, i + 1), floats(1000, i));
        EXPECT_GE(floats(i + 1, i), floats(i, i));
    }
    EXPECT_LE(floats(32768, 32768), 32768U * (2 * 128 + 8));
    EXPECT_LE(floats(32768, 32), 32768U * (128 + 8));
}

} // namespace
