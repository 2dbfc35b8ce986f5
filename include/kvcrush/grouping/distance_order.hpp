// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tokens with the same distance to the anchor are a group; groups follow each other by distance.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Orders the tokens that are not `taken` by (distance, index): a counting sort, linear in tokens.
/// @param[in]  distances  [num_tokens], each below `offsets.size()`
/// @param[in]  taken      [num_tokens], 0 for candidates
/// @param      offsets    scratch, one entry per possible distance
/// @param[out] order      the candidates; must have room for all of them
/// @return     number of candidates written
template <typename Distance>
std::size_t order_by_distance(std::span<const Distance> distances,
                              std::span<const std::uint8_t> taken,
                              std::span<std::uint32_t> offsets,
                              std::span<token_index> order) noexcept {
    KVCRUSH_ASSERT(distances.size() == taken.size());
    std::fill(offsets.begin(), offsets.end(), 0U);
    for (std::size_t t = 0; t < distances.size(); ++t) {
        offsets[distances[t]] += taken[t] == 0 ? 1U : 0U;
    }
    std::uint32_t begin = 0;
    for (std::uint32_t& offset : offsets) {
        const std::uint32_t count = offset;
        offset = begin;
        begin += count;
    }
    for (std::size_t t = 0; t < distances.size(); ++t) {
        if (taken[t] == 0) {
            order[offsets[distances[t]]++] = static_cast<token_index>(t);
        }
    }
    return begin;
}

} // namespace v0
} // namespace kvcrush
