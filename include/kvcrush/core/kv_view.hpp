// SPDX-License-Identifier: Apache-2.0
/// @file
/// Keys and values of one layer in one piece of memory each.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/layout.hpp>
#include <kvcrush/core/row_view.hpp>
#include <kvcrush/core/types.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <ranges>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

namespace detail {
/// Marks constructors that trust their caller.
struct unchecked_t {};

template <typename Range>
using element_of = std::remove_reference_t<std::ranges::range_reference_t<Range>>;

/// Memory whose elements may be read where T is to be written.
template <typename Range, typename T>
concept MadeConst = !std::is_const_v<T> && std::ranges::contiguous_range<Range> &&
                    std::same_as<element_of<Range>, const T>;
} // namespace detail

/// Non-owning view of a contiguous or strided cache. Trivially copyable; valid as long as the caller's memory.
///
///     kv_view<f16> kv(keys, values, {.num_kv_heads = 8, .seq_len = 4096, .key_dim = 128, .value_dim = 128});
/// @tparam Key     element of K: float, f16 or bf16, const for a read-only cache
/// @tparam Layout  hnd [num_kv_heads, seq_len, head_dim], nhd [seq_len, num_kv_heads, head_dim], or strided
/// @tparam Value   element of V
template <Element Key, KvLayout Layout = hnd, Element Value = Key>
class kv_view {
public:
    /// @param keys    all elements of K; may be longer than the layout needs
    /// @param values  all elements of V, likewise
    /// @throws std::invalid_argument if a span is shorter than shape and layout reach, if strides let rows overlap, or
    ///         if sizes overflow
    constexpr kv_view(std::span<Key> keys,
                      std::span<Value> values,
                      const kv_shape& shape,
                      const Layout& layout = {})
        : keys_(keys.data()), values_(values.data()), shape_(shape), layout_(layout) {
        detail::require_shape(shape, "kv_view");
        if constexpr (requires { layout.capacity; }) {
            detail::require(layout.capacity == 0 || layout.capacity >= shape.seq_len,
                            "kv_view: capacity is ",
                            layout.capacity,
                            "; it must be 0 or at least seq_len (",
                            shape.seq_len,
                            ")");
        }
        check_extent(keys.size(), shape.key_dim, layout.key_strides(shape), "kv_view: keys");
        check_extent(
            values.size(), shape.value_dim, layout.value_strides(shape), "kv_view: values");
    }

    /// Catches writable views of const memory, for a message that says what to write instead.
    template <typename Keys, typename Values>
        requires detail::MadeConst<Keys, Key> || detail::MadeConst<Values, Value>
    constexpr kv_view(Keys&&, Values&&, const kv_shape&, const Layout& = {})
        : kv_view({}, {}, kv_shape{}) {
        static_assert(!detail::MadeConst<Keys, Key> && !detail::MadeConst<Values, Value>,
                      "kvcrush: this memory is const: name its elements so, as in kv_view<const "
                      "float>, or let kv_view kv(keys, values, shape) find out");
    }

    [[nodiscard]] constexpr kv_shape shape() const noexcept { return shape_; }
    [[nodiscard]] constexpr const Layout& layout() const noexcept { return layout_; }

    /// @pre head < num_kv_heads, token < seq_len
    [[nodiscard]] constexpr row_view<Key> key(std::size_t head, std::size_t token) const noexcept {
        return row(keys_, layout_.key_strides(shape_), shape_.key_dim, head, token);
    }
    [[nodiscard]] constexpr row_view<Value> value(std::size_t head,
                                                  std::size_t token) const noexcept {
        return row(values_, layout_.value_strides(shape_), shape_.value_dim, head, token);
    }

    /// The first `count` tokens of the same memory: what is left after compaction.
    /// @pre count <= seq_len
    [[nodiscard]] constexpr kv_view<Key, strided, Value> first(std::size_t count) const noexcept {
        KVCRUSH_ASSERT(count <= shape_.seq_len);
        kv_shape shorter = shape_;
        shorter.seq_len = count;
        return {detail::unchecked_t{},
                keys_,
                values_,
                shorter,
                strided{layout_.key_strides(shape_), layout_.value_strides(shape_)}};
    }

private:
    template <Element, KvLayout, Element>
    friend class kv_view;

    constexpr kv_view(detail::unchecked_t,
                      Key* keys,
                      Value* values,
                      const kv_shape& shape,
                      const Layout& layout) noexcept
        : keys_(keys), values_(values), shape_(shape), layout_(layout) {}

    constexpr void check_extent(std::size_t held,
                                std::size_t dim,
                                const kv_strides& strides,
                                const char* what) const {
        const std::size_t needed =
            detail::required_elements(shape_.num_kv_heads, shape_.seq_len, dim, strides, what);
        detail::require(
            held >= needed, what, " hold ", held, " elements; the shape needs ", needed);
        if (needed > 0) {
            detail::require_apart(std::array{detail::axis{shape_.num_kv_heads, strides.head},
                                             detail::axis{shape_.seq_len, strides.token},
                                             detail::axis{dim, strides.dim}},
                                  what);
        }
    }

    template <typename T>
    [[nodiscard]] constexpr row_view<T> row(T* base,
                                            const kv_strides& strides,
                                            std::size_t dim,
                                            std::size_t head,
                                            std::size_t token) const noexcept {
        KVCRUSH_ASSERT(head < shape_.num_kv_heads && token < shape_.seq_len);
        return {base + head * strides.head + token * strides.token, dim, strides.dim};
    }

    Key* keys_;
    Value* values_;
    kv_shape shape_;
    Layout layout_;
};

/// From spans, vectors and arrays; memory that is const gives a view of const elements.
template <std::ranges::contiguous_range Keys, std::ranges::contiguous_range Values>
kv_view(Keys&&, Values&&, const kv_shape&)
    -> kv_view<detail::element_of<Keys>, hnd, detail::element_of<Values>>;
template <std::ranges::contiguous_range Keys, std::ranges::contiguous_range Values, KvLayout Layout>
kv_view(Keys&&, Values&&, const kv_shape&, const Layout&)
    -> kv_view<detail::element_of<Keys>, Layout, detail::element_of<Values>>;

static_assert(MutableKvSource<kv_view<float>> && KvSource<kv_view<const f16, nhd>>);
static_assert(std::is_trivially_copyable_v<kv_view<bf16, strided>>);

} // namespace v0
} // namespace kvcrush
