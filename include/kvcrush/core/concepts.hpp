// SPDX-License-Identifier: Apache-2.0
/// @file
/// What kvcrush asks of a cache: contiguous, strided, paged and the engine's own layouts are all models of it.
#pragma once

#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/row_view.hpp>

#include <concepts>
#include <cstddef>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {
namespace detail {

template <typename Row>
inline constexpr bool is_row_view = false;
template <Element T>
inline constexpr bool is_row_view<row_view<T>> = true;

} // namespace detail

/// One layer's keys and values, readable by (kv head, token).
template <typename Kv>
concept KvSource =
    std::copyable<Kv> && requires(const Kv& kv, std::size_t head, std::size_t token) {
        { kv.shape() } noexcept -> std::convertible_to<kv_shape>;
        requires detail::is_row_view<decltype(kv.key(head, token))>;
        requires detail::is_row_view<decltype(kv.value(head, token))>;
        requires noexcept(kv.key(head, token)) && noexcept(kv.value(head, token));
    };

/// The element types of a cache, const where it is read-only.
template <typename Kv>
    requires KvSource<std::remove_cv_t<Kv>>
using key_element_t = typename decltype(std::declval<const Kv&>().key(0, 0))::element_type;
template <typename Kv>
    requires KvSource<std::remove_cv_t<Kv>>
using value_element_t = typename decltype(std::declval<const Kv&>().value(0, 0))::element_type;

/// A cache whose rows may be moved.
template <typename Kv>
concept MutableKvSource =
    KvSource<Kv> && !std::is_const_v<key_element_t<Kv>> && !std::is_const_v<value_element_t<Kv>>;

/// A cache in pages, whose unused pages can be handed back.
template <typename Kv>
concept PagedKvSource = KvSource<Kv> && requires(const Kv& kv, std::size_t head, std::size_t i) {
    { kv.page_size() } noexcept -> std::convertible_to<std::size_t>;
    { kv.page(head, i) } noexcept -> std::convertible_to<page_index>;
    { Kv::pages_are_shared } -> std::convertible_to<bool>;
};

} // namespace v0
} // namespace kvcrush
