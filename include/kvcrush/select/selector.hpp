// SPDX-License-Identifier: Apache-2.0
/// @file
/// From scores and counts to the tokens that stay.
#pragma once

#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/core/selection.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Turns scores into a selection.
///
///     scores    [num_kv_heads, seq_len], what decides
///     observed  [num_heads, seq_len], what the scorer saw before it was folded into kv heads
///     counts    [num_kv_heads] tokens to keep, sinks and recent included
///     inputs    what the engine gave, for selectors that look again
template <typename P, typename... Inputs>
concept Selector = Policy<P> && requires(const P& policy,
                                         const_head_scores scores,
                                         const areas& area,
                                         std::span<const std::size_t> counts,
                                         selection& out,
                                         scratch memory,
                                         const problem_size& size,
                                         const Inputs&... inputs) {
    {
        policy.select(scores, scores, area, counts, out, memory, inputs...)
    } noexcept -> std::same_as<void>;
    { policy.scratch_bytes(size) } noexcept -> std::convertible_to<std::size_t>;
};

namespace detail {

/// How many middle tokens a head keeps out of `count`: never more than there are, never less than none.
[[nodiscard]] constexpr std::size_t middle_budget(const areas& area, std::size_t count) noexcept {
    const std::size_t always = area.num_protected();
    return count <= always ? 0 : (std::min)(count - always, area.num_middle());
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
