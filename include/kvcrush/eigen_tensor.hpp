// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tensors of Eigen's unsupported modules as keys, values and queries. Nothing is copied. Needs Eigen, so that it is no
/// part of kvcrush.hpp.
///
///     Eigen::Tensor<float, 3, Eigen::RowMajor> keys(num_kv_heads, tokens, head_dim);
///     const auto kv = kv_view_of(keys, values);
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/layout.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/types.hpp>

#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>
#include <unsupported/Eigen/CXX11/Tensor>
#include <utility>

namespace kvcrush {
inline namespace v0 {
namespace detail {

template <typename T>
struct tensor_traits {
    static constexpr bool is_tensor = false;
};
template <typename T, int Options, typename Index>
struct tensor_traits<Eigen::Tensor<T, 3, Options, Index>> {
    static constexpr bool is_tensor = true;
    static constexpr bool owns_elements = true;
};
template <typename Held, int Options, template <typename> typename Pointer>
struct tensor_traits<Eigen::TensorMap<Held, Options, Pointer>> {
    static constexpr bool is_tensor = Held::NumIndices == 3;
    static constexpr bool owns_elements = false;
};

template <typename T>
using tensor_element =
    std::remove_pointer_t<decltype(std::declval<std::remove_reference_t<T>&>().data())>;

template <typename T>
inline constexpr bool is_row_major = static_cast<int>(std::remove_reference_t<T>::Layout) ==
                                     static_cast<int>(Eigen::RowMajor);

} // namespace detail

/// A Tensor or TensorMap of rank 3. A temporary Tensor is none: its elements would be gone before the view is used.
/// @tparam T  a reference for an object that has a name, as a forwarding reference deduces it
template <typename T>
concept EigenTensor = detail::tensor_traits<std::remove_cvref_t<T>>::is_tensor &&
                      (std::is_lvalue_reference_v<T> ||
                       !detail::tensor_traits<std::remove_cvref_t<T>>::owns_elements) &&
                      Element<detail::tensor_element<T>>;

/// Floats whose rows lie together: Eigen::RowMajor.
template <typename T>
concept EigenTensorRows =
    EigenTensor<T> && std::same_as < std::remove_const_t<detail::tensor_element<T>>,
float > &&detail::is_row_major<T>;

namespace detail {

template <typename T>
[[nodiscard]] std::size_t extent_of(const T& tensor, std::size_t axis) noexcept {
    return static_cast<std::size_t>(tensor.dimensions()[axis]);
}

template <typename T>
[[nodiscard]] kv_strides tensor_strides(const T& tensor) noexcept {
    if constexpr (is_row_major<T>) {
        const std::size_t dim = extent_of(tensor, 2);
        return {extent_of(tensor, 1) * dim, dim, 1};
    } else {
        const std::size_t heads = extent_of(tensor, 0);
        return {1, heads, heads * extent_of(tensor, 1)};
    }
}

} // namespace detail

/// @param keys    [num_kv_heads, tokens, key_dim], in either order of Eigen; Eigen::RowMajor is the fast one
/// @param values  [num_kv_heads, tokens, value_dim]
/// @return valid as long as the elements stay where they are; rows may be moved unless one of both is const
/// @throws std::invalid_argument if heads or tokens differ
template <EigenTensor Keys, EigenTensor Values>
[[nodiscard]] auto kv_view_of(Keys&& keys, Values&& values) {
    using key = detail::tensor_element<Keys>;
    using value = detail::tensor_element<Values>;
    const kv_shape shape{detail::extent_of(keys, 0),
                         detail::extent_of(keys, 1),
                         detail::extent_of(keys, 2),
                         detail::extent_of(values, 2)};
    detail::require(detail::extent_of(values, 0) == shape.num_kv_heads &&
                        detail::extent_of(values, 1) == shape.seq_len,
                    "kv_view_of: keys are [",
                    shape.num_kv_heads,
                    ", ",
                    shape.seq_len,
                    ", ",
                    shape.key_dim,
                    "] and values [",
                    detail::extent_of(values, 0),
                    ", ",
                    detail::extent_of(values, 1),
                    ", ",
                    shape.value_dim,
                    "]; heads and tokens must agree");
    return kv_view<key, strided, value>(
        std::span<key>(keys.data(), static_cast<std::size_t>(keys.size())),
        std::span<value>(values.data(), static_cast<std::size_t>(values.size())),
        shape,
        strided{detail::tensor_strides(keys), detail::tensor_strides(values)});
}

/// @param queries  [num_q_heads, queries, head_dim], after RoPE
template <EigenTensorRows Queries>
[[nodiscard]] query_view query_view_of(Queries&& queries) {
    return {std::span<const float>(queries.data(), static_cast<std::size_t>(queries.size())),
            detail::extent_of(queries, 0),
            detail::extent_of(queries, 1),
            detail::extent_of(queries, 2)};
}

} // namespace v0
} // namespace kvcrush
