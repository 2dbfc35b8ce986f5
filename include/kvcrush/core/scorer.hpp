// SPDX-License-Identifier: Apache-2.0
/// @file
/// What an importance method looks like. Key scorers see keys and values only. Attention scorers see queries or
/// attention weights as well, and work in two steps: what each query head pays, then what that means for a kv head.
/// Direct scorers see the same and give the scores of a kv head at once.
#pragma once

#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/scratch.hpp>

#include <concepts>
#include <cstddef>

namespace kvcrush {
inline namespace v0 {

/// Sizes of what an engine hands over in one call: enough to say how much scratch memory a policy needs.
struct problem_size {
    kv_shape kv;
    std::size_t num_q_heads = 0;
};

/// Gives every (kv head, token) an importance from keys and values alone.
template <typename P, typename Kv>
concept KeyScorer =
    Policy<P> && KvSource<Kv> && requires(const P& policy, const Kv& kv, head_scores scores) {
        { policy.score(kv, scores) } noexcept -> std::same_as<void>;
    };

/// Gives every (query head, token) the mass it is paid, from the inputs named, and folds that into kv heads.
template <typename P, typename... Inputs>
concept AttentionScorer = Policy<P> && requires(const P& policy,
                                                const Inputs&... inputs,
                                                head_scores mass,
                                                head_scores scores,
                                                const_head_scores paid,
                                                scratch memory,
                                                const problem_size& size) {
    { policy.observe(inputs..., mass, memory) } noexcept -> std::same_as<void>;
    { policy.reduce(paid, scores, memory) } noexcept -> std::same_as<void>;
    { policy.scratch_bytes(size) } noexcept -> std::convertible_to<std::size_t>;
};

/// Gives every (kv head, token) an importance from all the inputs named, for methods whose query heads cannot be looked
/// at one by one. It says so with `static constexpr bool scores_directly = true`.
template <typename P, typename... Inputs>
concept DirectScorer = Policy<P> && requires(const P& policy,
                                             const Inputs&... inputs,
                                             head_scores scores,
                                             scratch memory,
                                             const problem_size& size) {
    { policy.score(inputs..., scores, memory) } noexcept -> std::same_as<void>;
    { policy.scratch_bytes(size) } noexcept -> std::convertible_to<std::size_t>;
};

namespace detail {

template <typename P>
inline constexpr bool scores_directly = [] {
    if constexpr (requires { P::scores_directly; }) {
        return P::scores_directly;
    } else {
        return false;
    }
}();

} // namespace detail

/// Whether a scorer reads keys or values at all. Those that do not say so with `static constexpr bool reads_cache = false`.
template <typename P>
inline constexpr bool reads_cache = [] {
    if constexpr (requires { P::reads_cache; }) {
        return P::reads_cache;
    } else {
        return true;
    }
}();

/// Whether a selector or an allocator looks at scores, decisive or observed. Those that do not say so with
/// `static constexpr bool reads_scores = false`; where neither looks, a compressor does not score.
template <typename P>
inline constexpr bool reads_scores = [] {
    if constexpr (requires { P::reads_scores; }) {
        return P::reads_scores;
    } else {
        return true;
    }
}();

/// A scorer whose first step looks at each kv head with its query heads alone, so that threads may share the heads. It
/// says so with `static constexpr bool observes_heads_alone = true`.
template <typename P>
concept SplittableScorer = P::needs_attention && requires { requires P::observes_heads_alone; };

/// Any of the three.
template <typename P>
concept Scorer = Policy<P> && requires {
    { P::needs_attention } -> std::convertible_to<bool>;
};

/// Heads of the scores before reduction: query heads for attention scorers, kv heads for the others.
template <Scorer P>
[[nodiscard]] constexpr std::size_t num_observed_heads(const P& policy,
                                                       const problem_size& size) noexcept {
    if constexpr (requires { policy.num_observed_heads(size); }) { // known when the program runs
        return policy.num_observed_heads(size);
    } else {
        return P::needs_attention && !detail::scores_directly<P> ? size.num_q_heads
                                                                 : size.kv.num_kv_heads;
    }
}

/// Scratch memory of a scorer, 0 for those that need none [bytes].
template <Scorer P>
[[nodiscard]] constexpr std::size_t scorer_scratch_bytes(const P& policy,
                                                         const problem_size& size) noexcept {
    if constexpr (requires { policy.scratch_bytes(size); }) {
        return policy.scratch_bytes(size);
    } else {
        return 0;
    }
}

/// Runs the first step of any scorer on whatever the engine gave.
/// @param[out] observed  [num_observed_heads, seq_len]
template <Scorer P, typename... Rest>
void observe(const P& policy,
             head_scores observed,
             scratch memory,
             const KvSource auto& kv,
             const Rest&... rest) noexcept {
    if constexpr (detail::scores_directly<P>) {
        static_assert(DirectScorer<P, std::remove_cvref_t<decltype(kv)>, Rest...>,
                      "kvcrush: this scorer looks at attention: call select(kv, queries)");
        if constexpr (DirectScorer<P, std::remove_cvref_t<decltype(kv)>, Rest...>) {
            policy.score(kv, rest..., observed, memory);
        }
    } else if constexpr (P::needs_attention) {
        static_assert(AttentionScorer<P, std::remove_cvref_t<decltype(kv)>, Rest...>,
                      "kvcrush: this scorer looks at attention: call select(kv, queries) or "
                      "select(attention)");
        if constexpr (AttentionScorer<P, std::remove_cvref_t<decltype(kv)>, Rest...>) {
            policy.observe(kv, rest..., observed, memory);
        }
    } else {
        static_assert(KeyScorer<P, std::remove_cvref_t<decltype(kv)>>,
                      "kvcrush: score(kv, head_scores) of this scorer must be const noexcept and "
                      "return void");
        if constexpr (KeyScorer<P, std::remove_cvref_t<decltype(kv)>>) {
            policy.score(kv, observed);
        }
    }
}

template <Scorer P>
void observe(const P& policy,
             head_scores observed,
             scratch memory,
             const attention_view& attention) noexcept {
    static_assert(AttentionScorer<P, attention_view>,
                  "kvcrush: this scorer reads keys: call select(kv) or select(kv, queries)");
    if constexpr (AttentionScorer<P, attention_view>) {
        policy.observe(attention, observed, memory);
    }
}

/// Runs the second step of any scorer: for key scorers the scores are final already.
/// @param[out] scores  [num_kv_heads, seq_len]
template <Scorer P>
[[nodiscard]] const_head_scores
reduce(const P& policy, const_head_scores observed, head_scores scores, scratch memory) noexcept {
    if constexpr (P::needs_attention && !detail::scores_directly<P>) {
        policy.reduce(observed, scores, memory);
        return scores;
    } else {
        return observed;
    }
}

} // namespace v0
} // namespace kvcrush
