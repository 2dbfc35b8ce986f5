// SPDX-License-Identifier: Apache-2.0
/// @file
/// Who speaks for the tokens that are not important enough to stay? Three kinds of pickers answer; they differ in
/// what they look at, and so in what the selector has to prepare for them.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/core/types.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// count * part / whole, rounded down; in 64 bits where std::size_t has fewer.
template <std::unsigned_integral Size = std::size_t>
[[nodiscard]] constexpr Size share_of(Size count, Size part, std::uint64_t whole) noexcept {
    const std::uint64_t share = std::uint64_t{count} * part / whole;
    if constexpr (std::is_same_v<Size, std::uint64_t>) {
        return share;
    } else {
        return static_cast<Size>(share);
    }
}

} // namespace detail

/// Chooses by place alone: pick i stands at rank(i, candidates, picks) in the order of distance. Nothing is sorted.
///
///     rank(i, candidates, picks) < candidates, strictly increasing in i, for i < picks <= candidates
template <typename P>
concept RankPicker = Policy<P> && requires(const P& policy, std::size_t number) {
    { policy.rank(number, number, number) } noexcept -> std::same_as<std::size_t>;
};

/// Chooses out.size() tokens by looking at the whole order and at the scores.
///
///     order   [candidates] token indices by (distance, index); at least out.size() of them
///     scores  [tokens] importance, indexed by what stands in `order`
///     out     the chosen tokens, each once, in any order
template <typename P>
concept OrderPicker = Policy<P> && requires(const P& policy,
                                            std::span<const token_index> order,
                                            std::span<const float> scores,
                                            std::span<token_index> out) {
    { policy.pick(order, scores, out) } noexcept -> std::same_as<void>;
};

/// Chooses the best candidates of another scorer, its member `second`. Portraits play no part.
template <typename P>
concept ScorePicker = Policy<P> && Scorer<decltype(P::second)>;

template <typename P>
concept RepresentativePicker = RankPicker<P> || OrderPicker<P> || ScorePicker<P>;

} // namespace v0
} // namespace kvcrush
