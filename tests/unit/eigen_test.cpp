// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/cache/compact.hpp>
#include <kvcrush/compressor.hpp>
#include <kvcrush/eigen.hpp>
#include <kvcrush/eigen_tensor.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/select/top_k.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

namespace kvcrush {
namespace {

using by_columns = Eigen::MatrixXf;
using by_rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using tensor_by_columns = Eigen::Tensor<float, 3>;
using tensor_by_rows = Eigen::Tensor<float, 3, Eigen::RowMajor>;

template <typename K, typename V = K>
concept MakesView = requires {
    kv_view_of(std::declval<K>(), std::declval<V>());
};
template <typename Q>
concept MakesQueries = requires {
    query_view_of(std::declval<Q>());
};

static_assert(MakesView<by_columns&> && MakesView<const by_rows&> &&
              MakesView<by_rows&, by_columns&>);
static_assert(MakesView<Eigen::Map<by_rows>> && MakesView<Eigen::Ref<by_columns>&>);
static_assert(MakesView<Eigen::Block<by_columns>> && MakesView<Eigen::Transpose<by_columns>>);
static_assert(!MakesView<by_rows> && !MakesView<by_rows&, by_rows>, "gone before the view is used");
static_assert(!MakesView<decltype(by_rows() + by_rows())>, "not in memory");
static_assert(!MakesView<Eigen::MatrixXd&>);
static_assert(MakesView<std::vector<by_rows>&> && MakesView<std::span<const by_columns>>);
static_assert(!MakesView<std::vector<by_rows>> && !MakesView<std::vector<float>&>);
static_assert(MakesView<tensor_by_rows&> && MakesView<const tensor_by_columns&>);
static_assert(MakesView<Eigen::TensorMap<tensor_by_rows>>);
static_assert(!MakesView<tensor_by_rows> && !MakesView<Eigen::Tensor<float, 2>&> &&
              !MakesView<Eigen::Tensor<double, 3>&>);

static_assert(MakesQueries<by_rows&> && MakesQueries<Eigen::Transpose<by_columns>>);
static_assert(!MakesQueries<by_columns&> && !MakesQueries<by_rows>);
static_assert(MakesQueries<const tensor_by_rows&> && !MakesQueries<tensor_by_columns&>);

constexpr std::size_t num_heads = 3;
constexpr std::size_t num_tokens = 7;
constexpr std::size_t key_dim = 5;
constexpr std::size_t value_dim = 2;

/// A number that tells where it belongs.
float mark(bool value, std::size_t head, std::size_t token, std::size_t channel) {
    return static_cast<float>((value ? 1000U : 0U) + head * 100 + token * 10 + channel);
}

/// [tokens, heads * dim]
template <typename M>
M side_by_side(bool value) {
    const std::size_t dim = value ? value_dim : key_dim;
    M matrix(num_tokens, num_heads * dim);
    for (std::size_t i = 0; i < num_tokens; ++i) {
        for (std::size_t c = 0; c < num_heads * dim; ++c) {
            matrix(static_cast<Eigen::Index>(i), static_cast<Eigen::Index>(c)) =
                mark(value, c / dim, i, c % dim);
        }
    }
    return matrix;
}

template <typename M>
std::vector<M> one_by_one(bool value) {
    const auto dim = static_cast<Eigen::Index>(value ? value_dim : key_dim);
    const M all = side_by_side<M>(value);
    std::vector<M> heads;
    for (std::size_t head = 0; head < num_heads; ++head) {
        heads.push_back(all.middleCols(static_cast<Eigen::Index>(head) * dim, dim));
    }
    return heads;
}

template <typename T>
T tensor_of(bool value) {
    const std::size_t dim = value ? value_dim : key_dim;
    T tensor(num_heads, num_tokens, dim);
    for (std::size_t head = 0; head < num_heads; ++head) {
        for (std::size_t i = 0; i < num_tokens; ++i) {
            for (std::size_t c = 0; c < dim; ++c) {
                tensor(static_cast<Eigen::Index>(head),
                       static_cast<Eigen::Index>(i),
                       static_cast<Eigen::Index>(c)) = mark(value, head, i, c);
            }
        }
    }
    return tensor;
}

template <KvSource Kv>
void expect_marks(const Kv& kv) {
    ASSERT_EQ(kv.shape(), (kv_shape{num_heads, num_tokens, key_dim, value_dim}));
    for (std::size_t head = 0; head < num_heads; ++head) {
        for (std::size_t i = 0; i < num_tokens; ++i) {
            for (std::size_t c = 0; c < key_dim; ++c) {
                ASSERT_EQ(kv.key(head, i)[c], mark(false, head, i, c));
            }
            for (std::size_t c = 0; c < value_dim; ++c) {
                ASSERT_EQ(kv.value(head, i)[c], mark(true, head, i, c));
            }
        }
    }
}

TEST(EigenViews, ShowMatricesOfAllHeads) {
    by_rows row_keys = side_by_side<by_rows>(false);
    const by_columns column_values = side_by_side<by_columns>(true);
    expect_marks(kv_view_of(row_keys, column_values, num_heads));
    const by_columns column_keys = side_by_side<by_columns>(false);
    const by_rows row_values = side_by_side<by_rows>(true);
    expect_marks(kv_view_of(column_keys, row_values, num_heads));
    // Padded memory, and a part of a larger matrix.
    using padded = Eigen::Map<by_rows, Eigen::Unaligned, Eigen::OuterStride<>>;
    std::vector<float> memory(num_tokens * 20);
    padded(memory.data(), num_tokens, num_heads * key_dim, Eigen::OuterStride<>(20)) = row_keys;
    by_columns larger = by_columns::Zero(num_tokens + 4, 9);
    larger.block<num_tokens, num_heads * value_dim>(2, 1) = column_values;
    expect_marks(
        kv_view_of(padded(memory.data(), num_tokens, num_heads * key_dim, Eigen::OuterStride<>(20)),
                   larger.block(2, 1, num_tokens, num_heads * value_dim),
                   num_heads));
    by_columns turned = row_keys.transpose();
    expect_marks(kv_view_of(turned.transpose(), row_values, num_heads));
}

TEST(EigenViews, ShowAMatrixPerHead) {
    std::vector<by_columns> keys = one_by_one<by_columns>(false);
    const std::vector<by_rows> values = one_by_one<by_rows>(true);
    expect_marks(kv_view_of(keys, values));
    expect_marks(kv_view_of(std::span(keys), std::span(values)));
    std::array<by_rows, 1> one{by_rows::Ones(4, 2)};
    EXPECT_EQ(kv_view_of(one, one).shape(), (kv_shape{1, 4, 2, 2}));
    by_rows alone = by_rows::Ones(4, 2);
    EXPECT_EQ(kv_view_of(alone, alone).shape(), (kv_shape{1, 4, 2, 2}));
}

TEST(EigenViews, ShowTensors) {
    tensor_by_rows row_keys = tensor_of<tensor_by_rows>(false);
    const tensor_by_columns column_values = tensor_of<tensor_by_columns>(true);
    expect_marks(kv_view_of(row_keys, column_values));
    const tensor_by_columns column_keys = tensor_of<tensor_by_columns>(false);
    tensor_by_rows row_values = tensor_of<tensor_by_rows>(true);
    expect_marks(kv_view_of(
        column_keys,
        Eigen::TensorMap<tensor_by_rows>(row_values.data(), num_heads, num_tokens, value_dim)));
}

TEST(EigenViews, HoldNothingWithoutTokensOrHeads) {
    by_rows rows(0, 6);
    by_columns columns(0, 6);
    EXPECT_EQ(kv_view_of(rows, columns, 2).shape(), (kv_shape{2, 0, 3, 3}));
    std::vector<by_rows> none;
    EXPECT_EQ(kv_view_of(none, none).shape(), kv_shape{});
    tensor_by_columns empty(0, 4, 2);
    EXPECT_EQ(kv_view_of(empty, empty).shape(), (kv_shape{0, 4, 2, 2}));
    EXPECT_EQ(query_view_of(rows, 3).num_queries(), 0U);
}

TEST(EigenViews, RefuseWhatDoesNotFitTogether) {
    by_rows six(4, 6);
    by_rows shorter(3, 6);
    EXPECT_THROW(static_cast<void>(kv_view_of(six, shorter, 2)), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(kv_view_of(six, six, 4)), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(kv_view_of(six, six, 0)), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(query_view_of(six, 4)), std::invalid_argument);
    const Eigen::Map<by_rows, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>> spread(
        six.data(), 4, 3, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>(6, 2));
    EXPECT_NO_THROW(static_cast<void>(kv_view_of(spread, spread)));
    EXPECT_THROW(static_cast<void>(query_view_of(spread)), std::invalid_argument);
    std::vector<by_rows> keys{six, six};
    std::vector<by_rows> fewer{six};
    std::vector<by_rows> ragged{six, shorter};
    EXPECT_THROW(static_cast<void>(kv_view_of(keys, fewer)), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(kv_view_of(keys, ragged)), std::invalid_argument);
    EXPECT_THROW(static_cast<void>(kv_view_of(ragged, keys)), std::invalid_argument);
    tensor_by_rows one(2, 4, 3);
    tensor_by_rows other(2, 5, 3);
    EXPECT_THROW(static_cast<void>(kv_view_of(one, other)), std::invalid_argument);
}

TEST(EigenViews, QueriesAreThoseOfTheMatrix) {
    const by_rows rows = side_by_side<by_rows>(false);
    const by_columns turned = rows.transpose();
    const tensor_by_rows tensor = tensor_of<tensor_by_rows>(false);
    for (const query_view& queries : {query_view_of(rows, num_heads),
                                      query_view_of(turned.transpose(), num_heads),
                                      query_view_of(tensor)}) {
        ASSERT_EQ(queries.num_q_heads(), num_heads);
        ASSERT_EQ(queries.num_queries(), num_tokens);
        ASSERT_EQ(queries.head_dim(), key_dim);
        for (std::size_t head = 0; head < num_heads; ++head) {
            for (std::size_t i = 0; i < num_tokens; ++i) {
                EXPECT_EQ(queries.row(head, i)[2], mark(false, head, i, 2));
            }
        }
    }
}

TEST(EigenViews, GiveTheSameSelectionWhateverHoldsTheRows) {
    std::srand(5);
    const by_rows keys = by_rows::Random(40, 8);
    const by_columns columns = keys;
    const std::vector<by_columns> heads{keys.leftCols(4), keys.rightCols(4)};
    const by_rows queries = by_rows::Random(3, 16);
    const auto kept = [&](const auto& kv) {
        compressor crush(snapkv_scorer{}, top_k_selector{});
        crush.plan({.kv = kv.shape(), .num_q_heads = 4}, budget::tokens(10, {1, 4}));
        const auto& chosen = crush.select(kv, query_view_of(queries, 4));
        std::vector<token_index> tokens;
        for (std::size_t head = 0; head < 2; ++head) {
            tokens.insert(tokens.end(), chosen.kept(head).begin(), chosen.kept(head).end());
        }
        return tokens;
    };
    const std::vector<token_index> expected = kept(kv_view_of(keys, keys, 2));
    EXPECT_EQ(expected.size(), 20U);
    EXPECT_EQ(kept(kv_view_of(columns, columns, 2)), expected);
    EXPECT_EQ(kept(kv_view_of(heads, heads)), expected);
}

TEST(EigenViews, RowsMoveInsideTheMatrices) {
    const auto move = [](const auto& kv) {
        compressor crush(knorm_scorer{}, top_k_selector{});
        crush.plan({kv.shape()}, budget::tokens(2, {0, 0}));
        compact(kv, crush.select(kv));
    };
    by_columns keys = side_by_side<by_columns>(false);
    by_rows values = side_by_side<by_rows>(true);
    keys.row(0) *= 1e3F; // keys of a large norm go: tokens 1 and 2 stay
    std::vector<by_columns> head_keys = one_by_one<by_columns>(false);
    std::vector<by_rows> head_values = one_by_one<by_rows>(true);
    for (by_columns& head : head_keys) {
        head.row(0) *= 1e3F;
    }
    const auto kv = kv_view_of(keys, values, num_heads);
    const auto apart = kv_view_of(head_keys, head_values);
    move(kv);
    move(apart);
    for (std::size_t head = 0; head < num_heads; ++head) {
        for (std::size_t i = 0; i < 2; ++i) {
            EXPECT_EQ(kv.key(head, i)[4], mark(false, head, i + 1, 4));
            EXPECT_EQ(kv.value(head, i)[1], mark(true, head, i + 1, 1));
            EXPECT_EQ(apart.key(head, i)[4], mark(false, head, i + 1, 4));
            EXPECT_EQ(apart.value(head, i)[1], mark(true, head, i + 1, 1));
        }
    }
}

} // namespace
} // namespace kvcrush
