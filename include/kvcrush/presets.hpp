// SPDX-License-Identifier: Apache-2.0
/// @file
/// The published forms of KVCrush by name. They differ in unit, portrait, anchor and order, and their results are not
/// interchangeable:
///
///     A  kvcrush_tokens()            tokens, a bit per head: the paper's, and this library's default
///     B  kvcrush_vllm_pages()        pages of 16, a bit per slot and kv head
///     C  openvino_compat             blocks, a bit per slot, with scores kept over the steps: a program of its own,
///                                    see select/openvino_compat.hpp
///     D  kvcrush_contrib_groups()    groups of 32, a bit per slot, for one set of tokens in all heads
///
/// kvcrush_auto() is none of them: it is what works best on the reference model, with no knob but the budget. What it and
/// others are as recipes with rows in few bits stands at the end.
#pragma once

#include <kvcrush/allocation/ada_kv.hpp>
#include <kvcrush/allocation/uniform.hpp>
#include <kvcrush/codec/mean_centred.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/codec/turbo_quant.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/recipe/recipe.hpp>
#include <kvcrush/retention/glob.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/select/horizons.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>
#include <kvcrush/select/page_selector.hpp>

#include <cstddef>
#include <cstdint>

namespace kvcrush {
inline namespace v0 {

/// What a compressor is made of, and how many tokens it keeps. A kv_cache takes it as a recipe.
///
///     const auto form = kvcrush_vllm_pages();
///     compressor crush(form.scorer, form.selector, form.allocator);
///     crush.plan(size, form.tokens);
///
///     kv_cache cache(shape, kvcrush_auto(0.25));
template <typename ScorerT, typename SelectorT, typename AllocatorT = uniform_allocator>
struct preset {
    ScorerT scorer;
    SelectorT selector;
    budget tokens;
    AllocatorT allocator{};

    operator recipe()
        const { // NOLINT(google-explicit-constructor): it is the same, chosen at run time
        return {.scorer = scorer,
                .selector = selector,
                .allocator = allocator,
                .areas = tokens.protected_areas(),
                .keep = tokens.is_ratio() ? cache_budget::keep_ratio(tokens.ratio())
                                          : cache_budget::tokens(tokens.count())};
    }
};

/// The policy to begin with: the heads of a layer share out the budget by what their last 32 queries look at, and within
/// a head three judges do: what the last query attends to, what many did, and keys unlike the others.
/// @throws std::invalid_argument if keep_ratio lies outside (0, 1]
/// @note   Heads keep different numbers of tokens; their sum is exact. With .allocator left out they keep the same.
/// @see    horizons_selector, ada_kv_allocator; measured in the README
[[nodiscard]] inline preset<snapkv_scorer, horizons_selector, ada_kv_allocator>
kvcrush_auto(double keep_ratio = 0.25) {
    return {{}, {}, budget::keep_ratio(keep_ratio), {}};
}

/// Form A on SnapKV: a share of the tokens per kv head, a quarter of them representatives.
/// @throws std::invalid_argument if keep_ratio lies outside (0, 1]
/// @see    KVCrush, arXiv:2503.00022
[[nodiscard]] inline preset<snapkv_scorer, kvcrush_selector<>>
kvcrush_tokens(double keep_ratio = 0.25) {
    return {{}, {}, budget::keep_ratio(keep_ratio)};
}

/// Form B: 32 sinks, 320 tokens in pages of 16, a quarter of them representatives, 128 recent tokens.
/// @param page_size  with 1 it works on tokens
/// @param table      as published each head has pages of its own; caches with one block table take shared, or most
///                   pages are kept by some head
/// @see   the authors' code for vLLM (pull request 47967) with the defaults of its constructor; page_selector says
///        what is done otherwise here
[[nodiscard]] inline preset<snapkv_scorer, page_selector<>>
kvcrush_vllm_pages(std::size_t page_size = 16, page_table table = page_table::per_head) {
    return {{.observation_window = 16, .pool = pooling::none},
            {.page_size = page_size, .table = table},
            budget::tokens(32 + 320 + 128, {32, 128})};
}

/// Form D: 32 sinks, 512 tokens in groups of 32, 64 of them representatives, 128 recent tokens; one set for all heads.
/// Portraits show the tokens that no important group holds, the anchor has a bit per group, the groups farthest from
/// it come first.
/// @see  the token_eviction module of openvino_contrib. Deviation: the number of representatives is fixed; there it
///       may also follow from 90 % of the attention mass.
[[nodiscard]] inline preset<snapkv_scorer, page_selector<>> kvcrush_contrib_groups() {
    return {{.observation_window = 8},
            {.page_size = 32,
             .share = 64.0 / 512.0,
             .table = page_table::shared,
             .bits = page_bits::summed_rest,
             .span = anchor_span::page,
             .sort = distance_sort::descending},
            budget::tokens(32 + 512 + 128, {32, 128})};
}

// What follows are templates so that a program compiles what recipes are made of only when it asks for one.

namespace detail {

/// Rows in two tiers: important tokens with keys in 5 bits and values in 4, the others with keys in 3; sinks in 8. Facts
/// that are asked for later get lost where all keys have 4 bits.
/// @param share  part of the tokens that is important
template <typename = void>
[[nodiscard]] row_storage
two_tiers(std::size_t other_value_bits, double share, std::uint64_t seed) {
    const auto bits = [seed](std::size_t count) {
        return turbo_quant_codec{.bits = count, .seed = seed};
    };
    using centred = mean_centred_codec<turbo_quant_codec>;
    return {
        .sinks = {q8_0_codec{}, q8_0_codec{}},
        .tiers = {{centred{bits(5)}, bits(4), share}, {centred{bits(3)}, bits(other_value_bits)}},
        .attention = arithmetic::integer};
}

} // namespace detail

/// A quarter of the bytes: all tokens stay, the important half of them in 5 and 4 bits, the others in 3.
/// @param seed  of the random signs
/// @note  head_dim must be a multiple of 32, 1024 at most, here and below.
/// @see   turbo_quant_codec, mean_centred_codec; measured in the README
template <typename = void>
[[nodiscard]] recipe four_times(std::uint64_t seed = 0) {
    return {.scorer = snapkv_scorer{},
            .selector = horizons_selector{},
            .allocator = ada_kv_allocator{},
            .keep = cache_budget::everything(),
            .rows = detail::two_tiers(3, 0.46, seed)};
}

/// An eighth of the bytes: three fifths of the tokens, a quarter of those in 5 and 4 bits, the others in 3 and 2. For
/// text that goes on; for facts that are asked for later see kvcrush_auto_bytes().
/// @note  Looks at all queries of the prompt, and remembers them: num_q_heads * head_dim * 4 bytes per token and layer.
/// @see   glob_scorer; measured in the README
template <typename = void>
[[nodiscard]] recipe eight_times(std::uint64_t seed = 0) {
    return {.scorer = glob_scorer{},
            .keep = cache_budget::keep_ratio(0.6),
            .rows = detail::two_tiers(2, 0.25, seed)};
}

/// A sixteenth of the bytes: three tenths of the tokens, stored as in eight_times().
template <typename = void>
[[nodiscard]] recipe sixteen_times(std::uint64_t seed = 0) {
    return {.scorer = glob_scorer{},
            .keep = cache_budget::keep_ratio(0.292),
            .rows = detail::two_tiers(2, 0.25, seed)};
}

/// kvcrush_auto() with a budget of bytes: as many tokens as it holds in two tiers, those that are ranked first in 5 and 4
/// bits, the others in 3. At a quarter of the bytes nearly all tokens stay, and facts are answered as by the full cache.
/// @param ratio  held / (all tokens seen, in f16), in (0, 1]
/// @throws std::invalid_argument if it lies elsewhere
template <typename = void>
[[nodiscard]] recipe kvcrush_auto_bytes(double ratio = 0.25, std::uint64_t seed = 0) {
    return {.scorer = snapkv_scorer{},
            .selector = horizons_selector{},
            .allocator = ada_kv_allocator{},
            .keep = cache_budget::byte_ratio(ratio),
            .rows = detail::two_tiers(3, 0.5, seed)};
}

} // namespace v0
} // namespace kvcrush
