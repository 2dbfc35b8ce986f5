// SPDX-License-Identifier: Apache-2.0
/// @file
/// Moves the kept rows together in the memory they lie in.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>

#include <cstddef>
#include <cstring>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace detail {

inline constexpr std::size_t prefetch_distance =
    16; // rows ahead; the gather is bound by latency without it

template <Element T>
void prefetch_row(const row_view<T>& row) noexcept {
#if defined(__GNUC__)
    __builtin_prefetch(row.data());
#else
    static_cast<void>(row);
#endif
}

/// Rows are distinct and each destination lies at or before its source, so walking the tokens in ascending order
/// never overwrites a row that is still to be read.
template <typename Row>
void compact_rows(std::span<const token_index> kept, Row&& row) noexcept {
    for (std::size_t i = 0; i < kept.size(); ++i) {
        if (i + prefetch_distance < kept.size()) {
            prefetch_row(row(kept[i + prefetch_distance]));
        }
        KVCRUSH_ASSERT(kept[i] >= i);
        if (kept[i] == i) {
            continue;
        }
        const auto from = row(kept[i]);
        const auto to = row(i);
        if (from.contiguous()) {
            std::memcpy(to.data(), from.data(), from.size() * sizeof(*from.data()));
        } else {
            for (std::size_t d = 0; d < from.size(); ++d) {
                to[d] = from[d];
            }
        }
    }
}

} // namespace detail

/// Moves the rows of the kept tokens of each kv head to tokens 0, 1, 2, ... of that head, K and V, in place.
/// Order is kept. What lies behind is left as it was: it is the caller's to reuse, shrink or free.
///
/// New tokens go on at the number of tokens *seen*, not stored: the rows keep the positions they were rotated for.
/// @pre kept.num_kv_heads() is kv.shape().num_kv_heads (or 0: nothing moves), its indices are ascending and below
///      seq_len
/// @note allocates nothing; O(kept rows)
template <MutableKvSource Kv>
void compact(const Kv& kv, const selection& kept) noexcept {
    KVCRUSH_ASSERT(kept.num_kv_heads() == 0 || kept.num_kv_heads() == kv.shape().num_kv_heads);
    for (std::size_t head = 0; head < kept.num_kv_heads(); ++head) {
        const std::span<const token_index> tokens = kept.kept(head);
        KVCRUSH_ASSERT(tokens.empty() || tokens.back() < kv.shape().seq_len);
        detail::compact_rows(tokens,
                             [&kv, head](std::size_t token) { return kv.key(head, token); });
        detail::compact_rows(tokens,
                             [&kv, head](std::size_t token) { return kv.value(head, token); });
    }
}

} // namespace v0
} // namespace kvcrush
