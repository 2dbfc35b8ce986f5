// SPDX-License-Identifier: Apache-2.0
/// @file
/// What divides the tokens of a layer over its kv heads.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/core/scratch.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Needs no memory.
///
///     scores  [num_kv_heads, seq_len], what decides
///     tokens  budget per kv head, as budget::tokens_for() gives it
///     counts  [num_kv_heads] tokens that each kv head keeps, sinks and recent included; their sum is
///             tokens * num_kv_heads unless the allocator says otherwise
template <typename P>
concept PlainAllocator = Policy<P> && requires(const P& policy,
                                               const_head_scores scores,
                                               const areas& area,
                                               std::size_t tokens,
                                               std::span<std::size_t> counts) {
    { policy.allocate(scores, area, tokens, counts) } noexcept -> std::same_as<void>;
};

/// The same with scratch memory, sized once.
template <typename P>
concept ScratchAllocator = Policy<P> && requires(const P& policy,
                                                 const_head_scores scores,
                                                 const areas& area,
                                                 std::size_t tokens,
                                                 std::span<std::size_t> counts,
                                                 scratch memory,
                                                 const problem_size& size) {
    { policy.allocate(scores, area, tokens, counts, memory) } noexcept -> std::same_as<void>;
    { policy.scratch_bytes(size) } noexcept -> std::convertible_to<std::size_t>;
};

/// Either. One whose parameters fit some models only may have `validate_for(size)`, called once a size is known.
template <typename P>
concept Allocator = PlainAllocator<P> || ScratchAllocator<P>;

/// Scratch memory of an allocator, 0 for those that need none [bytes].
template <Allocator P>
[[nodiscard]] constexpr std::size_t allocator_scratch_bytes(const P& policy,
                                                            const problem_size& size) noexcept {
    if constexpr (ScratchAllocator<P>) {
        return policy.scratch_bytes(size);
    } else {
        return 0;
    }
}

/// Runs any allocator. Counts come out between the protected tokens and the sequence, whatever the allocator says.
/// @param[out] counts  [num_kv_heads]
template <Allocator P>
void allocate_tokens(const P& policy,
                     const_head_scores scores,
                     const areas& area,
                     std::size_t tokens,
                     std::span<std::size_t> counts,
                     scratch memory) noexcept {
    KVCRUSH_ASSERT(counts.size() == scores.num_heads() && scores.seq_len() == area.seq_len);
    if constexpr (ScratchAllocator<P>) {
        policy.allocate(scores, area, tokens, counts, memory);
    } else {
        policy.allocate(scores, area, tokens, counts);
    }
    for (std::size_t& count : counts) {
        count = (std::clamp)(count, area.num_protected(), area.seq_len);
    }
}

} // namespace v0
} // namespace kvcrush
