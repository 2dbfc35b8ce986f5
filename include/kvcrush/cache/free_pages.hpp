// SPDX-License-Identifier: Apache-2.0
/// @file
/// Which pages of a paged cache hold nothing after compaction.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>

#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Pages that `count` tokens fill, the last one perhaps in part.
[[nodiscard]] constexpr std::size_t pages_for(std::size_t count, std::size_t page_size) noexcept {
    return count / page_size + (count % page_size != 0 ? 1 : 0);
}

/// Lists the pages that are free once `kv` has been compacted to `kept`. With one table for all heads a page is free
/// when no head has a row in it; with one table per head each head frees its own.
/// @param      kv    the view that was compacted, still with its old length
/// @param[out] free  pages in table order, head by head; must have room for as many as the tables list:
///                   pages_for(seq_len, page_size), times num_kv_heads with one table per head
/// @return     number of pages written
template <PagedKvSource Kv>
std::size_t free_pages(const Kv& kv, const selection& kept, std::span<page_index> free) noexcept {
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

} // namespace v0
} // namespace kvcrush
