// SPDX-License-Identifier: Apache-2.0
/// @file
/// Which pages of a paged cache hold nothing after compaction.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Pages that `count` tokens fill, the last one perhaps in part.
[[nodiscard]] constexpr std::size_t pages_for(std::size_t count, std::size_t page_size) noexcept {
    return count / page_size + (count % page_size != 0 ? 1 : 0);
}

/// Lists the pages that are free once `kv` has been compacted to `kept`, not before: compaction fills the first ones. With one table for all heads a page is free
/// when no head has a row in it; with one table per head each head frees its own.
/// @param      kv    the view that was compacted, still with its old length
/// @param[out] free  pages in table order, head by head; must have room for as many as the tables list:
///                   pages_for(seq_len, page_size), times num_kv_heads with one table per head
/// @return     number of pages written
template <PagedKvSource Kv>
std::size_t free_pages(const Kv& kv, const selection& kept, std::span<page_index> free) noexcept {
    if (kept.num_kv_heads() == 0) {
        return 0; // no selection, so nothing was compacted
    }
    const std::size_t used = pages_for(kv.shape().seq_len, kv.page_size());
    std::size_t count = 0;
    const auto list = [&](std::size_t head, std::size_t longest) {
        for (std::size_t i = pages_for(longest, kv.page_size()); i < used; ++i) {
            KVCRUSH_ASSERT(count < free.size());
            free[count++] = kv.page(head, i);
        }
    };
    if constexpr (Kv::pages_are_shared) {
        list(0, kept.longest());
    } else {
        for (std::size_t head = 0; head < kept.num_kv_heads(); ++head) {
            list(head, kept.kept(head).size());
        }
    }
    return count;
}

/// Lists the pages that hold no kept row where nothing is moved: drop them from the table, and close the gap there. With
/// one table for all heads a page is dropped when no head keeps a row of it. Selections of whole pages, as those of
/// page_selector and openvino_evictor, leave none half full (but for those that protected areas cut).
/// @param      kv    the view that was selected from
/// @param[out] free  pages in table order, head by head; room as for free_pages()
/// @return     number of pages written; 0 for a selection without heads
/// @note  O(pages * heads * log(kept tokens))
template <PagedKvSource Kv>
std::size_t
droppable_pages(const Kv& kv, const selection& kept, std::span<page_index> free) noexcept {
    const std::size_t heads = kept.num_kv_heads();
    const std::size_t size = kv.page_size();
    const auto holds = [&](std::size_t head, std::size_t page) {
        const std::span<const token_index> list = kept.kept(head);
        const auto first = std::lower_bound(list.begin(), list.end(), page * size);
        return first != list.end() && *first < (page + 1) * size;
    };
    std::size_t count = 0;
    const std::size_t tables = Kv::pages_are_shared && heads > 0 ? 1 : heads;
    for (std::size_t table = 0; table < tables; ++table) {
        for (std::size_t page = 0; page < pages_for(kv.shape().seq_len, size); ++page) {
            bool used = holds(table, page);
            for (std::size_t head = 1; Kv::pages_are_shared && head < heads; ++head) {
                used = used || holds(head, page);
            }
            if (!used) {
                KVCRUSH_ASSERT(count < free.size());
                free[count++] = kv.page(table, page);
            }
        }
    }
    return count;
}

} // namespace v0
} // namespace kvcrush
