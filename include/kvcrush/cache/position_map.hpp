// SPDX-License-Identifier: Apache-2.0
/// @file
/// Where each token went, for whatever an engine keeps beside its rows; compact_values moves that along with them.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/compact_values.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Stands in a position map for a token that is gone.
inline constexpr token_index evicted = (std::numeric_limits<token_index>::max)();

/// The place of each old token after compaction.
/// @param[out] map  [num_kv_heads, seq_len]: new index of each old token, `evicted` where it was dropped
/// @pre map.size() is num_kv_heads times the length of the sequence that was selected from
inline void position_map(const selection& kept, std::span<token_index> map) noexcept {
    const std::size_t seq_len = kept.num_kv_heads() == 0 ? 0 : map.size() / kept.num_kv_heads();
    std::fill(map.begin(), map.end(), evicted);
    for (std::size_t head = 0; head < kept.num_kv_heads(); ++head) {
        const std::span<token_index> row = map.subspan(head * seq_len, seq_len);
        const std::span<const token_index> tokens = kept.kept(head);
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            KVCRUSH_ASSERT(tokens[i] < seq_len);
            row[tokens[i]] = static_cast<token_index>(i);
        }
    }
}

} // namespace v0
} // namespace kvcrush
