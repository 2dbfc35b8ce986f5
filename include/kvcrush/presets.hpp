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
/// kvcrush_auto() is none of them: it is what works best on the reference model, with no knob but the budget.
#pragma once

#include <kvcrush/allocation/ada_kv.hpp>
#include <kvcrush/allocation/uniform.hpp>
#include <kvcrush/cache/sequence.hpp>
#include <kvcrush/codec/mean_centred.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/codec/turbo_quant.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/select/horizons.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>
#include <kvcrush/select/page_selector.hpp>

#include <cstddef>
#include <cstdint>

namespace kvcrush {
inline namespace v0 {

/// What a compressor is made of, and how many tokens it keeps.
///
///     const auto form = kvcrush_vllm_pages();
///     compressor crush(form.scorer, form.selector, form.allocator);
///     crush.plan(size, form.tokens);
template <typename ScorerT, typename SelectorT, typename AllocatorT = uniform_allocator>
struct preset {
    ScorerT scorer;
    SelectorT selector;
    budget tokens;
    AllocatorT allocator{};
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

/// A layer that holds rows in less than a quarter of their f16 bytes: keys less their mean in 4 bits, values in 3, sinks in
/// 8. Half of the tokens evicted on top make it an eighth, three quarters a sixteenth: kv_sequence::evict, then encode.
/// @param head_dim  channels of keys and values, a multiple of 32 for the sinks, 1024 at most
/// @param seed      of the random signs, the same for a whole model
/// @see   turbo_quant_codec, mean_centred_codec; measured in the README
[[nodiscard]] inline sequence_options
four_times_rows(std::size_t num_kv_heads, std::size_t head_dim, std::uint64_t seed = 0) {
    return {.num_kv_heads = num_kv_heads,
            .key_dim = head_dim,
            .value_dim = head_dim,
            .sinks = {q8_0_codec{}, q8_0_codec{}},
            .tiers = {{mean_centred_codec<turbo_quant_codec>{{.bits = 4, .seed = seed}},
                       turbo_quant_codec{.bits = 3, .seed = seed}}}};
}

/// Share of the kept rows that belong into the first tier of kvcrush_auto_rows(): those that the selector ranks first.
inline constexpr double kvcrush_auto_first_tier = 0.5;

/// How kvcrush_auto() stores rows where its budget is a quarter of the f16 bytes: nearly all tokens stay, the important
/// ones with keys in 5 bits (facts that are asked for later get lost with keys in 4), the others in 3 bits.
/// @param head_dim  channels of keys and values, a multiple of 32, 1024 at most
/// @param seed      of the random signs, the same for a whole model
/// @see   kv_sequence::encode, whose tiers are 0 and 1; measured in the README
[[nodiscard]] inline sequence_options
kvcrush_auto_rows(std::size_t num_kv_heads, std::size_t head_dim, std::uint64_t seed = 0) {
    const turbo_quant_codec three_bits{.bits = 3, .seed = seed};
    return {.num_kv_heads = num_kv_heads,
            .key_dim = head_dim,
            .value_dim = head_dim,
            .sinks = {q8_0_codec{}, q8_0_codec{}},
            .tiers = {{mean_centred_codec<turbo_quant_codec>{{.bits = 5, .seed = seed}},
                       turbo_quant_codec{.bits = 4, .seed = seed}},
                      {mean_centred_codec<turbo_quant_codec>{three_bits}, three_bits}}};
}

} // namespace v0
} // namespace kvcrush
