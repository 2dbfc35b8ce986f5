// SPDX-License-Identifier: Apache-2.0
/// @file
/// Keys and values of one sequence whose tokens lie in pages of a shared pool.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/layout.hpp>
#include <kvcrush/core/row_view.hpp>
#include <kvcrush/core/types.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Distances in elements inside a pool of pages.
struct page_strides {
    std::size_t page = 0;
    /// 0 where a page belongs to one kv head (one table per head).
    std::size_t head = 0;
    std::size_t token = 0;
    std::size_t dim = 1;

    /// [num_pages, num_kv_heads, page_size, head_dim]
    [[nodiscard]] static constexpr page_strides
    hnd(std::size_t num_kv_heads, std::size_t page_size, std::size_t head_dim) noexcept {
        const std::size_t head = detail::saturating_multiply(page_size, head_dim);
        return {detail::saturating_multiply(num_kv_heads, head), head, head_dim, 1};
    }
    /// [num_pages, page_size, num_kv_heads, head_dim]
    [[nodiscard]] static constexpr page_strides
    nhd(std::size_t num_kv_heads, std::size_t page_size, std::size_t head_dim) noexcept {
        const std::size_t token = detail::saturating_multiply(num_kv_heads, head_dim);
        return {detail::saturating_multiply(page_size, token), head_dim, token, 1};
    }
    /// [num_pages, page_size, head_dim], each page owned by one kv head
    [[nodiscard]] static constexpr page_strides per_head(std::size_t page_size,
                                                         std::size_t head_dim) noexcept {
        return {detail::saturating_multiply(page_size, head_dim), 0, head_dim, 1};
    }
};

/// One list of pages that all kv heads share, as in most engines.
struct shared_table {
    static constexpr bool shared = true;
    std::span<const page_index> pages;

    [[nodiscard]] constexpr std::size_t pages_per_head() const noexcept { return pages.size(); }
    [[nodiscard]] constexpr page_index page(std::size_t, std::size_t i) const noexcept {
        return pages[i];
    }
};

/// One list of pages per kv head, [num_kv_heads, pages_per_head].
struct per_head_table {
    static constexpr bool shared = false;
    std::span<const page_index> pages;
    std::size_t num_kv_heads = 1;

    [[nodiscard]] constexpr std::size_t pages_per_head() const noexcept {
        return num_kv_heads == 0 ? 0 : pages.size() / num_kv_heads;
    }
    [[nodiscard]] constexpr page_index page(std::size_t head, std::size_t i) const noexcept {
        return pages[head * pages_per_head() + i];
    }
};

/// Where the pages of a pool lie: K and V apart.
struct page_pool {
    std::size_t num_pages = 0;
    /// Tokens per page.
    std::size_t page_size = 0;
    page_strides key;
    page_strides value;
};

/// Non-owning view of one sequence in a paged cache. Token t of head h lies in slot t % page_size of page
/// table.page(h, t / page_size).
/// @pre no page stands twice in the tables of one sequence, and none is shared with another sequence when the view
///      is compacted: rows are moved inside the pages
template <Element Key, typename Table = shared_table, Element Value = Key>
class paged_kv_view {
public:
    static constexpr bool pages_are_shared = Table::shared;

    /// @throws std::invalid_argument if page_size is 0, the table is too short for seq_len, a page lies outside the
    ///         pool, or the pool is shorter than its strides reach
    constexpr paged_kv_view(std::span<Key> key_pool,
                            std::span<Value> value_pool,
                            const page_pool& pool,
                            const Table& table,
                            const kv_shape& shape)
        : keys_(key_pool.data()),
          values_(value_pool.data()),
          pool_(pool),
          table_(table),
          shape_(shape) {
        using detail::require;
        detail::require_shape(shape, "paged_kv_view");
        require(pool.page_size > 0, "paged_kv_view: page_size is 0; it must be at least 1 token");
        if constexpr (!Table::shared) {
            require(table.num_kv_heads == 0 || table.pages.size() % table.num_kv_heads == 0,
                    "paged_kv_view: the table lists ",
                    table.pages.size(),
                    " pages; they must divide evenly over ",
                    table.num_kv_heads,
                    " heads");
            require(table.num_kv_heads == shape.num_kv_heads,
                    "paged_kv_view: the table has ",
                    table.num_kv_heads,
                    " heads; the shape has ",
                    shape.num_kv_heads);
        }
        const std::size_t used = num_pages();
        require(table.pages_per_head() >= used,
                "paged_kv_view: the table lists ",
                table.pages_per_head(),
                " pages per head; ",
                shape.seq_len,
                " tokens need ",
                used);
        for (std::size_t head = 0; head < (Table::shared ? std::size_t{1} : shape.num_kv_heads);
             ++head) {
            for (std::size_t i = 0; i < used; ++i) {
                const page_index page = table.page(head, i);
                require(page >= 0 && static_cast<std::size_t>(page) < pool.num_pages,
                        "paged_kv_view: page ",
                        i,
                        " of head ",
                        head,
                        " is ",
                        page,
                        "; the pool has pages 0 to ",
                        pool.num_pages,
                        " - 1");
            }
        }
        check_extent(key_pool.size(), shape.key_dim, pool.key, "paged_kv_view: key pool");
        check_extent(value_pool.size(), shape.value_dim, pool.value, "paged_kv_view: value pool");
    }

    [[nodiscard]] constexpr kv_shape shape() const noexcept { return shape_; }
    [[nodiscard]] constexpr std::size_t page_size() const noexcept { return pool_.page_size; }
    /// Pages per head that hold tokens; the last one may be partly filled.
    [[nodiscard]] constexpr std::size_t num_pages() const noexcept {
        return shape_.seq_len / pool_.page_size + (shape_.seq_len % pool_.page_size != 0 ? 1 : 0);
    }
    [[nodiscard]] constexpr page_index page(std::size_t head, std::size_t i) const noexcept {
        return table_.page(head, i);
    }

    /// @pre head < num_kv_heads, token < seq_len
    [[nodiscard]] constexpr row_view<Key> key(std::size_t head, std::size_t token) const noexcept {
        return row(keys_, pool_.key, shape_.key_dim, head, token);
    }
    [[nodiscard]] constexpr row_view<Value> value(std::size_t head,
                                                  std::size_t token) const noexcept {
        return row(values_, pool_.value, shape_.value_dim, head, token);
    }

    /// The first `count` tokens of the same pages: what is left after compaction.
    /// @pre count <= seq_len
    [[nodiscard]] constexpr paged_kv_view first(std::size_t count) const noexcept {
        KVCRUSH_ASSERT(count <= shape_.seq_len);
        paged_kv_view shorter = *this;
        shorter.shape_.seq_len = count;
        return shorter;
    }

private:
    constexpr void check_extent(std::size_t held,
                                std::size_t dim,
                                const page_strides& strides,
                                const char* what) const {
        if (shape_.seq_len == 0 || shape_.num_kv_heads == 0 || dim == 0) {
            return;
        }
        detail::require(strides.head != 0 || !Table::shared || shape_.num_kv_heads == 1,
                        what,
                        ": a head stride of 0 needs one table per head");
        detail::require(strides.page != (std::numeric_limits<std::size_t>::max)(),
                        what,
                        ": a page does not fit the address space");
        std::size_t last = detail::advance_offset(0, pool_.num_pages, strides.page, what);
        if (strides.head != 0) {
            last = detail::advance_offset(last, shape_.num_kv_heads, strides.head, what);
        }
        last = detail::advance_offset(
            last, (std::min)(pool_.page_size, shape_.seq_len), strides.token, what);
        last = detail::advance_offset(last, dim, strides.dim, what);
        detail::require(held > last, what, " holds ", held, " elements; its pages need ", last + 1);
        // Where each head has pages of its own, heads may lie at stride 0.
        const std::size_t heads = strides.head == 0 ? 1 : shape_.num_kv_heads;
        detail::require_apart(
            std::array{detail::axis{pool_.num_pages, strides.page},
                       detail::axis{heads, strides.head},
                       detail::axis{(std::min)(pool_.page_size, shape_.seq_len), strides.token},
                       detail::axis{dim, strides.dim}},
            what);
    }

    template <typename T>
    [[nodiscard]] constexpr row_view<T> row(T* base,
                                            const page_strides& strides,
                                            std::size_t dim,
                                            std::size_t head,
                                            std::size_t token) const noexcept {
        KVCRUSH_ASSERT(head < shape_.num_kv_heads && token < shape_.seq_len);
        const auto page = static_cast<std::size_t>(table_.page(head, token / pool_.page_size));
        return {base + page * strides.page + head * strides.head +
                    token % pool_.page_size * strides.token,
                dim,
                strides.dim};
    }

    Key* keys_;
    Value* values_;
    page_pool pool_;
    Table table_;
    kv_shape shape_;
};

static_assert(MutableKvSource<paged_kv_view<f16>> &&
              PagedKvSource<paged_kv_view<float, per_head_table>>);

} // namespace v0
} // namespace kvcrush
