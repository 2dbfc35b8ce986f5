// SPDX-License-Identifier: Apache-2.0
/// @file
/// Who speaks for the tokens that are not important enough to stay?
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/types.hpp>

#include <concepts>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Chooses out.size() representatives among candidates ordered by distance to the anchor.
///
///     order   [candidates] token indices by (distance, index); at least out.size() of them
///     scores  [tokens] importance, indexed by what stands in `order`
///     out     the chosen tokens, each once, in any order
template <typename P>
concept RepresentativePicker = Policy<P> && requires(const P& policy,
                                                     std::span<const token_index> order,
                                                     std::span<const float> scores,
                                                     std::span<token_index> out) {
    { policy.pick(order, scores, out) } noexcept -> std::same_as<void>;
};

} // namespace v0
} // namespace kvcrush
