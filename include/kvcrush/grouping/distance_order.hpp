// SPDX-License-Identifier: Apache-2.0
/// @file
/// Tokens with the same distance to the anchor are a group; groups follow each other by distance.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/bitmap.hpp>
#include <kvcrush/simd/key_ranks.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Which group comes first. Inside a group the earlier token does, either way.
enum class distance_sort {
    /// The tokens nearest to the anchor.
    ascending,
    /// Those farthest from it.
    descending
};

template <>
struct enum_names<distance_sort> {
    static constexpr named_value<distance_sort> values[] = {
        {"ascending", distance_sort::ascending}, {"descending", distance_sort::descending}};
};

/// Where each group begins in the order.
/// @param[in]  counts  tokens at each distance
/// @param[out] begins  [counts.size()]; may be `counts` itself
/// @return     number of tokens
inline std::uint32_t distance_begins(std::span<const std::uint32_t> counts,
                                     distance_sort sort,
                                     std::span<std::uint32_t> begins) noexcept {
    KVCRUSH_ASSERT(begins.size() == counts.size());
    std::uint32_t begin = 0;
    for (std::size_t i = 0; i < counts.size(); ++i) {
        const std::size_t distance = sort == distance_sort::ascending ? i : counts.size() - 1 - i;
        const std::uint32_t count = counts[distance];
        begins[distance] = begin;
        begin += count;
    }
    return begin;
}

/// Orders the tokens that are not `taken` by (distance, index): a counting sort, linear in tokens.
/// @param[in]  distances  [num_tokens], each below `offsets.size()`
/// @param[in]  taken      [simd::bitmap_words(num_tokens)], 0 for candidates
/// @param[in]  sort       of the distances; indices always ascend among equal ones
/// @param      offsets    scratch, one entry per possible distance
/// @param[out] order      the candidates; must have room for all of them
/// @return     number of candidates written
template <typename Distance>
std::size_t order_by_distance(std::span<const Distance> distances,
                              std::span<const std::uint64_t> taken,
                              distance_sort sort,
                              std::span<std::uint32_t> offsets,
                              std::span<token_index> order) noexcept {
    simd::count_keys(distances, taken, offsets);
    const std::uint32_t num_candidates = distance_begins(offsets, sort, offsets);
    KVCRUSH_ASSERT(order.size() >= num_candidates);
    simd::scatter_tokens(distances, taken, offsets, order);
    return num_candidates;
}

} // namespace v0
} // namespace kvcrush
