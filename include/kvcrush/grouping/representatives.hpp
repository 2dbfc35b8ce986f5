// SPDX-License-Identifier: Apache-2.0
/// @file
/// Every group sends representatives in proportion to its size.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/grouping/anchor.hpp>
#include <kvcrush/grouping/distance_order.hpp>
#include <kvcrush/grouping/picker.hpp>
#include <kvcrush/grouping/token_groups.hpp>
#include <kvcrush/simd/key_ranks.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// The tokens that gather around one anchor.
struct anchor_share {
    std::size_t candidates = 0;
    std::size_t picks = 0;
};

/// Divides `picks` among the anchors in proportion to their candidates, by largest remainder; the earlier anchor on
/// ties. None gets more picks than it has candidates.
/// @param shares  candidates are read, picks are written
/// @pre   picks <= all candidates together; below 2^32 of each
inline void divide_picks(std::size_t picks, std::span<anchor_share> shares) noexcept {
    std::uint64_t all = 0;
    for (const anchor_share& share : shares) {
        all += share.candidates;
    }
    if (all == 0) {
        return;
    }
    std::size_t left = picks;
    for (anchor_share& share : shares) {
        share.picks = detail::share_of(share.candidates, picks, all);
        left -= share.picks;
    }
    for (; left > 0; --left) { // fewer than there are anchors
        anchor_share* most = nullptr;
        std::uint64_t largest = 0;
        for (anchor_share& share : shares) {
            // What is left of a share that was rounded up is negative: it wraps, and is skipped.
            const std::uint64_t wanted = std::uint64_t{share.candidates} * picks;
            const std::uint64_t given = std::uint64_t{share.picks} * all;
            if (wanted > given && (most == nullptr || wanted - given > largest)) {
                largest = wanted - given;
                most = &share;
            }
        }
        ++most->picks;
    }
}

[[nodiscard]] constexpr std::size_t representatives_scratch_bytes(const group_keys& possible,
                                                                  std::size_t num_tokens) noexcept {
    return 2 * scratch::bytes<std::uint32_t>(possible.num_keys()) +
           2 * scratch::bytes<token_index>(num_tokens);
}

/// Marks `picks` representatives of the tokens that are not taken.
/// @param[in] keys    [tokens], as group_tokens() gives them
/// @param[in] sort    of the distances; a picker that brings an order of its own uses that
/// @param[in] scores  [tokens], for pickers that look at importance
/// @param[in] taken   [simd::bitmap_words(tokens)], 0 for candidates; at least `picks` of them
/// @param     marked  likewise; bits of the representatives are set, others stay
template <RepresentativePicker Picker, simd::Distance Key>
    requires(RankPicker<Picker> || OrderPicker<Picker>)
void mark_representatives(const Picker& picker,
                          std::span<const Key> keys,
                          const group_keys& possible,
                          distance_sort sort,
                          std::span<const float> scores,
                          std::span<const std::uint64_t> taken,
                          std::size_t picks,
                          std::span<std::uint64_t> marked,
                          scratch memory) noexcept {
    if constexpr (requires { Picker::sort; }) {
        sort = Picker::sort;
    }
    const std::span<std::uint32_t> counts = memory.take<std::uint32_t>(possible.num_keys());
    simd::count_keys(keys, taken, counts);

    std::array<anchor_share, anchor::max_count> room;
    const std::span<anchor_share> shares = std::span(room).first(possible.num_anchors);
    for (std::size_t a = 0; a < shares.size(); ++a) {
        const auto own = counts.subspan(a * possible.keys_per_anchor(), possible.keys_per_anchor());
        shares[a].candidates = std::accumulate(own.begin(), own.end(), std::size_t{0});
    }
    divide_picks(picks, shares);

    const std::span<std::uint32_t> begins = memory.take<std::uint32_t>(possible.num_keys());
    const std::span<token_index> chosen = memory.take<token_index>(keys.size()).first(picks);
    // Anchors follow each other in the order as their keys do.
    const auto for_each_anchor = [&](auto&& choose) {
        std::size_t first_candidate = 0;
        std::size_t first_pick = 0;
        for (std::size_t i = 0; i < shares.size(); ++i) {
            const anchor_share& share =
                shares[sort == distance_sort::ascending ? i : shares.size() - 1 - i];
            choose(first_candidate, share, chosen.subspan(first_pick, share.picks));
            first_candidate += share.candidates;
            first_pick += share.picks;
        }
    };
    if constexpr (RankPicker<Picker>) {
        distance_begins(counts, sort, begins);
        for_each_anchor(
            [&](std::size_t first, const anchor_share& share, std::span<token_index> out) {
                for (std::size_t i = 0; i < out.size(); ++i) {
                    out[i] = static_cast<token_index>(
                        first + picker.rank(i, share.candidates, share.picks));
                }
            });
        simd::mark_ranks(keys,
                         taken,
                         std::span<const std::uint32_t>(begins),
                         std::span<const std::uint32_t>(counts),
                         std::span<const std::uint32_t>(chosen),
                         marked);
    } else {
        const std::span<token_index> order = memory.take<token_index>(keys.size());
        order_by_distance(keys, taken, sort, begins, order);
        for_each_anchor(
            [&](std::size_t first, const anchor_share& share, std::span<token_index> out) {
                picker.pick(std::span<const token_index>(order).subspan(first, share.candidates),
                            scores,
                            out);
            });
        for (const token_index token : chosen) {
            marked[token / 64] |= std::uint64_t{1} << (token % 64);
        }
    }
}

} // namespace v0
} // namespace kvcrush
