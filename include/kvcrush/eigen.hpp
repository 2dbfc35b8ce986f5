// SPDX-License-Identifier: Apache-2.0
/// @file
/// Eigen's matrices as keys, values and queries. Nothing is copied. Needs Eigen, so that it is no part of kvcrush.hpp;
/// tensors are served by eigen_tensor.hpp.
///
///     Eigen::MatrixXf keys = hidden * w_k;               // [tokens, num_kv_heads * head_dim], by rows or by columns
///     Eigen::MatrixXf values = hidden * w_v;
///     const auto kv = kv_view_of(keys, values, num_kv_heads);
///     crush.plan({kv.shape()}, budget::keep_ratio(0.25));
///     crush.select(kv, query_view_of(queries, num_q_heads));
///
/// Rows that lie one after the other (Eigen::RowMajor) are the fast ones; Eigen's default, columns, works as transposed
/// caches do. Elements are float; Eigen moves f16 and bf16 of kvcrush as well, but does not compute with them.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/layout.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/row_view.hpp>
#include <kvcrush/core/types.hpp>

#include <Eigen/Core>

#include <concepts>
#include <cstddef>
#include <ranges>
#include <span>
#include <type_traits>
#include <utility>

namespace kvcrush {
inline namespace v0 {
namespace detail {

template <typename Derived>
std::true_type owns_elements(const Eigen::PlainObjectBase<Derived>&);
std::false_type owns_elements(...);

/// What data() of a matrix or tensor points to: const for what may only be read.
template <typename M>
using matrix_element_of =
    std::remove_pointer_t<decltype(std::declval<std::remove_reference_t<M>&>().data())>;

} // namespace detail

/// What holds its elements in memory: Matrix, Map and Ref, Block and Transpose of them, with any strides. A temporary
/// Matrix is none: its elements would be gone before the view is used.
/// @tparam M  a reference for an object that has a name, as a forwarding reference deduces it
template <typename M>
concept EigenMatrix = requires(std::remove_reference_t<M>& matrix) {
    { matrix.rows() } -> std::convertible_to<Eigen::Index>;
    { matrix.cols() } -> std::convertible_to<Eigen::Index>;
    { matrix.rowStride() } -> std::convertible_to<Eigen::Index>;
    { matrix.colStride() } -> std::convertible_to<Eigen::Index>;
    requires Element<detail::matrix_element_of<M>>;
    requires std::is_lvalue_reference_v<M> || !decltype(detail::owns_elements(matrix))::value;
};

/// Floats whose rows lie together.
template <typename M>
concept EigenRows = EigenMatrix<M> && std::same_as < std::remove_const_t<detail::matrix_element_of<M>>,
float > &&static_cast<bool>(std::remove_reference_t<M>::IsRowMajor);

/// An array or vector of matrices, one per head.
template <typename R>
concept EigenHeads =
    !EigenMatrix<R> && std::ranges::contiguous_range<R> && std::ranges::sized_range<R> &&
    std::ranges::borrowed_range<R> && EigenMatrix<std::ranges::range_reference_t<R>>;

namespace detail {

/// How many channels a head has where `columns` are shared by `num_heads`.
[[nodiscard]] inline std::size_t
channels_of_head(Eigen::Index columns, std::size_t num_heads, const char* what) {
    const auto width = static_cast<std::size_t>(columns);
    require(num_heads > 0 && width % num_heads == 0,
            what,
            " have ",
            width,
            " columns; they do not divide among ",
            num_heads,
            " heads");
    return width / num_heads;
}

/// Heads lie side by side in each row.
template <typename M>
[[nodiscard]] kv_strides strides_of(const M& matrix, std::size_t dim, const char* what) {
    require(matrix.rowStride() >= 0 && matrix.colStride() >= 0, what, ": a stride is negative");
    const auto column = static_cast<std::size_t>(matrix.colStride());
    return {saturating_multiply(dim, column), static_cast<std::size_t>(matrix.rowStride()), column};
}

} // namespace detail

/// Keys and values of all heads as one matrix each.
/// @param keys    [tokens, num_kv_heads * key_dim], a head's channels side by side
/// @param values  [tokens, num_kv_heads * value_dim]
/// @return valid as long as the elements stay where they are; rows may be moved unless one of both is const
/// @throws std::invalid_argument if rows differ in number, or columns do not divide among the heads
template <EigenMatrix Keys, EigenMatrix Values>
[[nodiscard]] auto kv_view_of(Keys&& keys, Values&& values, std::size_t num_kv_heads = 1) {
    using key = detail::matrix_element_of<Keys>;
    using value = detail::matrix_element_of<Values>;
    detail::require(keys.rows() == values.rows(),
                    "kv_view_of: keys have ",
                    keys.rows(),
                    " rows and values ",
                    values.rows(),
                    "; each has one per token");
    const kv_shape shape{
        num_kv_heads,
        static_cast<std::size_t>(keys.rows()),
        detail::channels_of_head(keys.cols(), num_kv_heads, "kv_view_of: keys"),
        detail::channels_of_head(values.cols(), num_kv_heads, "kv_view_of: values")};
    const strided layout{detail::strides_of(keys, shape.key_dim, "kv_view_of: keys"),
                         detail::strides_of(values, shape.value_dim, "kv_view_of: values")};
    const auto reach = [&](std::size_t dim, const kv_strides& strides) {
        return detail::required_elements(
            shape.num_kv_heads, shape.seq_len, dim, strides, "kv_view_of");
    };
    return kv_view<key, strided, value>(
        std::span<key>(keys.data(), reach(shape.key_dim, layout.key)),
        std::span<value>(values.data(), reach(shape.value_dim, layout.value)),
        shape,
        layout);
}

/// Keys and values of each head as a matrix of its own, wherever those lie. Non-owning, trivially copyable; valid as
/// long as the matrices neither move nor change size.
template <typename Keys, typename Values = Keys>
class eigen_heads_view {
public:
    /// @param keys    per kv head [tokens, key_dim]
    /// @param values  per kv head [tokens, value_dim]
    /// @throws std::invalid_argument if the heads differ in number or shape
    eigen_heads_view(std::span<Keys> keys, std::span<Values> values)
        : keys_(keys), values_(values) {
        detail::require(keys.size() == values.size(),
                        "kv_view_of: keys have ",
                        keys.size(),
                        " heads and values ",
                        values.size());
        if (keys.empty()) {
            return;
        }
        shape_ = {keys.size(),
                  static_cast<std::size_t>(keys[0].rows()),
                  static_cast<std::size_t>(keys[0].cols()),
                  static_cast<std::size_t>(values[0].cols())};
        detail::require_shape(shape_, "kv_view_of");
        for (std::size_t head = 0; head < keys.size(); ++head) {
            check(keys[head], head, shape_.key_dim, "kv_view_of: keys");
            check(values[head], head, shape_.value_dim, "kv_view_of: values");
        }
    }

    [[nodiscard]] kv_shape shape() const noexcept { return shape_; }
    /// @pre head < num_kv_heads, token < seq_len
    [[nodiscard]] auto key(std::size_t head, std::size_t token) const noexcept {
        return row<detail::matrix_element_of<Keys>>(keys_[head], shape_.key_dim, token);
    }
    [[nodiscard]] auto value(std::size_t head, std::size_t token) const noexcept {
        return row<detail::matrix_element_of<Values>>(values_[head], shape_.value_dim, token);
    }

private:
    template <typename M>
    void check(const M& matrix, std::size_t head, std::size_t dim, const char* what) const {
        detail::require(static_cast<std::size_t>(matrix.rows()) == shape_.seq_len &&
                            static_cast<std::size_t>(matrix.cols()) == dim,
                        what,
                        " of head ",
                        head,
                        " are [",
                        matrix.rows(),
                        ", ",
                        matrix.cols(),
                        "]; [",
                        shape_.seq_len,
                        ", ",
                        dim,
                        "] are needed");
        static_cast<void>(detail::required_elements(
            1, shape_.seq_len, dim, detail::strides_of(matrix, dim, what), what));
    }

    template <typename T, typename M>
    [[nodiscard]] static row_view<T> row(M& matrix, std::size_t dim, std::size_t token) noexcept {
        KVCRUSH_ASSERT(token < static_cast<std::size_t>(matrix.rows()));
        return {matrix.data() + token * static_cast<std::size_t>(matrix.rowStride()),
                dim,
                static_cast<std::size_t>(matrix.colStride())};
    }

    std::span<Keys> keys_;
    std::span<Values> values_;
    kv_shape shape_{};
};

/// Keys and values of each head as a matrix of its own.
///
///     std::vector<Eigen::MatrixXf> keys, values;         // per kv head [tokens, head_dim]
///     const auto kv = kv_view_of(keys, values);
/// @throws std::invalid_argument if the heads differ in number or shape
template <EigenHeads Keys, EigenHeads Values>
[[nodiscard]] auto kv_view_of(Keys&& keys, Values&& values) {
    using key = std::remove_reference_t<std::ranges::range_reference_t<Keys>>;
    using value = std::remove_reference_t<std::ranges::range_reference_t<Values>>;
    return eigen_heads_view<key, value>(
        std::span<key>(std::ranges::data(keys), std::ranges::size(keys)),
        std::span<value>(std::ranges::data(values), std::ranges::size(values)));
}

/// Queries of all heads as one matrix. One whose columns lie together is refused by the compiler; the transpose() of
/// [num_q_heads * head_dim, queries] in Eigen's default order will do.
/// @param queries  [queries, num_q_heads * head_dim], after RoPE, a head's channels side by side
/// @throws std::invalid_argument if columns do not divide among the heads, or have elements between them
template <EigenRows Queries>
[[nodiscard]] query_view query_view_of(Queries&& queries, std::size_t num_q_heads = 1) {
    const std::size_t dim =
        detail::channels_of_head(queries.cols(), num_q_heads, "query_view_of: queries");
    const auto count = static_cast<std::size_t>(queries.rows());
    const kv_strides strides = detail::strides_of(queries, dim, "query_view_of: queries");
    const std::size_t reach =
        detail::required_elements(num_q_heads, count, dim, strides, "query_view_of: queries");
    return {std::span<const float>(queries.data(), reach), num_q_heads, count, dim, strides};
}

static_assert(MutableKvSource<eigen_heads_view<Eigen::MatrixXf>> &&
              KvSource<eigen_heads_view<const Eigen::MatrixXf>>);
static_assert(std::is_trivially_copyable_v<eigen_heads_view<Eigen::MatrixXf>>);

} // namespace v0
} // namespace kvcrush
