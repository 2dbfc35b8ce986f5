// SPDX-License-Identifier: Apache-2.0
/// @file
/// From scores and counts to the tokens that stay.
#pragma once

#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/core/selection.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// What a selector is asked.
struct selection_request {
    const_head_scores scores;   ///< [num_kv_heads, seq_len], what decides
    const_head_scores observed; ///< [num_heads, seq_len], before it was folded into kv heads
    areas area;                 ///< what always stays, and what competes
    std::span<const std::size_t>
        counts;     ///< [num_kv_heads] tokens to keep, sinks and recent included
    scratch memory; ///< as much as scratch_bytes() of the selector says
};

/// Turns scores into a selection. `inputs` are what the engine gave, for selectors that look again.
template <typename P, typename... Inputs>
concept Selector = Policy<P> && requires(const P& policy,
                                         const selection_request& request,
                                         selection& out,
                                         const problem_size& size,
                                         const Inputs&... inputs) {
    { policy.select(request, out, inputs...) } noexcept -> std::same_as<void>;
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
