// SPDX-License-Identifier: Apache-2.0
/// @file
/// KVCrush: most of the budget for the important tokens, the rest for somebody who speaks for the others.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/grouping/anchor.hpp>
#include <kvcrush/grouping/distance_order.hpp>
#include <kvcrush/grouping/linspace.hpp>
#include <kvcrush/grouping/picker.hpp>
#include <kvcrush/select/selector.hpp>
#include <kvcrush/signature/head_signature.hpp>
#include <kvcrush/simd/hamming.hpp>
#include <kvcrush/simd/top_k.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// Stands for "the scorer that decides also makes the bits".
struct own_scores {
    static constexpr std::string_view name = "own";
    static constexpr bool needs_attention = false;
    static constexpr auto parameters() { return std::tuple{}; }
    void validate() const {}
};

/// Composes with any scorer. Per kv head:
///
///     1. important       = the best (1 - share) of the middle budget, by score
///     2. portrait        = one bit per head and middle token: does the head care? (shared by the kv heads)
///     3. distance        = Hamming distance of the portrait to the anchor
///     4. representatives = share of the middle budget, picked among the rest along the order of distance
///     keep sinks, important, representatives, recent
///
/// Representatives come out of the budget, never on top of it. No K or V value is read unless `bits` asks for it.
/// @tparam Picker  who represents: linspace_picker, step_picker, most_important_picker, or your own
/// @tparam Bits    the scorer whose heads make the bits, before they are folded and pooled; own_scores takes those of
///                 the scorer that decides
/// @note   Linear in tokens. On the reference model (9 heads, so 9 bits) form A does not beat its base at the same
///         budget; most_important with the bits of snapkv on h2o(normalise = none) does.
/// @see    KVCrush, arXiv:2503.00022, token level. Deviations: importance and candidates are per kv head; the anchor
///         is `zeros` by default (the paper uses random, mean and alternating ones; they hardly differ).
template <RepresentativePicker Picker = linspace_picker, Scorer Bits = own_scores>
struct kvcrush_selector {
    static constexpr std::string_view name = "kvcrush";
    static constexpr bool needs_attention = Bits::needs_attention;
    static constexpr std::string_view about =
        "important tokens of a scorer, and representatives of the rest";

    /// Part of the middle budget that goes to representatives, in [0, 1]. 0.25 in the authors' code.
    double share = 0.25;
    head_signature signature{};
    kvcrush::anchor anchor{};
    Picker picker{};
    Bits bits{};

    static constexpr auto parameters() {
        return std::tuple{parameter{
            "share", &kvcrush_selector::share, "part of the middle budget for representatives"}};
    }

    /// @throws std::invalid_argument if share lies outside [0, 1], or from the parts
    void validate() const {
        detail::require(
            share >= 0.0 && share <= 1.0, "kvcrush: share is ", share, "; it must lie in [0, 1]");
        signature.validate();
        anchor.validate();
        picker.validate();
        bits.validate();
    }

    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        const std::size_t tokens = size.kv.seq_len;
        const std::size_t heads = (std::max)(size.num_q_heads, size.kv.num_kv_heads);
        const std::size_t observed =
            looks_again ? scratch::bytes<float>(heads * tokens) + scorer_scratch_bytes(bits, size)
                        : 0;
        const std::size_t words = heads / 64 + 1;
        return observed + signature.scratch_bytes(heads) +
               scratch::bytes<std::uint64_t>(words * tokens) +
               scratch::bytes<std::uint64_t>(words) + scratch::bytes<std::uint16_t>(tokens) +
               scratch::bytes<std::uint8_t>(tokens) + 2 * scratch::bytes<token_index>(tokens) +
               scratch::bytes<std::uint32_t>(heads + 1);
    }

    template <typename... Inputs>
    void select(const_head_scores scores,
                const_head_scores observed,
                const areas& area,
                std::span<const std::size_t> counts,
                selection& out,
                scratch memory,
                const Inputs&... inputs) const noexcept {
        static_assert(
            !looks_again || !Bits::needs_attention || AttentionScorer<Bits, Inputs...>,
            "kvcrush: the scorer of the bits looks at attention: call select(kv, queries) or "
            "select(attention)");
        if constexpr (looks_again) {
            const problem_size size = size_of(scores, observed, inputs...);
            const std::size_t heads = num_observed_heads(bits, size);
            const head_scores again(
                memory.take<float>(heads * scores.seq_len()), heads, scores.seq_len());
            observe(bits, again, memory, inputs...);
            select_by_code(scores, again, area, counts, out, memory);
        } else {
            select_by_code(scores, observed, area, counts, out, memory);
        }
    }

private:
    static constexpr bool looks_again = !std::is_same_v<Bits, own_scores>;

    template <KvSource Kv, typename... Rest>
    [[nodiscard]] static problem_size size_of(const_head_scores,
                                              const_head_scores observed,
                                              const Kv& kv,
                                              const Rest&... rest) noexcept {
        if constexpr (sizeof...(Rest) > 0) {
            return {kv.shape(), std::get<0>(std::tie(rest...)).num_q_heads()};
        } else {
            return {kv.shape(), observed.num_heads()};
        }
    }
    [[nodiscard]] static problem_size
    size_of(const_head_scores scores, const_head_scores, const attention_view& attention) noexcept {
        return {{scores.num_heads(), scores.seq_len(), 0, 0}, attention.num_q_heads()};
    }

    /// Codes of 8, 16 and 32 bits are not padded to 64: most models have 8 to 32 heads.
    void select_by_code(const_head_scores scores,
                        const_head_scores observed,
                        const areas& area,
                        std::span<const std::size_t> counts,
                        selection& out,
                        scratch memory) const noexcept {
        const std::size_t num_bits = signature.num_bits(observed.num_heads());
        if (num_bits <= 8) {
            select_by_distance<std::uint8_t, std::uint8_t>(
                scores, observed, area, counts, out, memory);
        } else if (num_bits <= 16) {
            select_by_distance<std::uint16_t, std::uint8_t>(
                scores, observed, area, counts, out, memory);
        } else if (num_bits <= 32) {
            select_by_distance<std::uint32_t, std::uint8_t>(
                scores, observed, area, counts, out, memory);
        } else if (num_bits <= 255) {
            select_by_distance<std::uint64_t, std::uint8_t>(
                scores, observed, area, counts, out, memory);
        } else {
            select_by_distance<std::uint64_t, std::uint16_t>(
                scores, observed, area, counts, out, memory);
        }
    }

    template <simd::CodeWord Code, typename Distance>
    void select_by_distance(const_head_scores scores,
                            const_head_scores observed,
                            const areas& area,
                            std::span<const std::size_t> counts,
                            selection& out,
                            scratch memory) const noexcept {
        const std::size_t num_bits = signature.num_bits(observed.num_heads());
        constexpr std::size_t word_bits = std::numeric_limits<Code>::digits;
        const std::size_t words = (num_bits + word_bits - 1) / word_bits;
        const std::size_t tokens = area.num_middle();

        const std::span<Code> codes = memory.take<Code>(words * tokens);
        const std::span<Code> anchor_code = memory.take<Code>(words);
        const std::span<Distance> distances = memory.take<Distance>(tokens);
        signature.build(observed, area, codes, memory);
        anchor.make(std::span<const Code>(codes), num_bits, anchor_code);
        simd::hamming_many(
            std::span<const Code>(anchor_code), std::span<const Code>(codes), distances);

        const std::span<std::uint8_t> taken = memory.take<std::uint8_t>(tokens);
        const std::span<token_index> order = memory.take<token_index>(tokens);
        const std::span<token_index> chosen = memory.take<token_index>(tokens);
        const std::span<std::uint32_t> offsets = memory.take<std::uint32_t>(num_bits + 1);
        out.clear();
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const std::span<const float> row = area.middle(scores.row(head));
            const std::size_t middle = detail::middle_budget(area, counts[head]);
            const auto num_representatives =
                static_cast<std::size_t>(share * static_cast<double>(middle));
            const std::size_t num_important = middle - num_representatives;

            std::fill(taken.begin(), taken.end(), std::uint8_t{0});
            simd::top_k(row, num_important, chosen);
            mark(chosen.first(num_important), taken);
            const std::size_t num_candidates =
                order_by_distance(std::span<const Distance>(distances), taken, offsets, order);
            const std::span<token_index> representatives = chosen.first(num_representatives);
            picker.pick(
                std::span<const token_index>(order).first(num_candidates), row, representatives);
            mark(representatives, taken);

            out.extend_range(0, area.middle_begin);
            write_taken(taken, area.middle_begin, out.extend(middle));
            out.extend_range(area.middle_end, area.seq_len);
            out.end_head();
        }
    }

    static void mark(std::span<const token_index> tokens, std::span<std::uint8_t> taken) noexcept {
        for (const token_index token : tokens) {
            taken[token] = 1;
        }
    }

    static void write_taken(std::span<const std::uint8_t> taken,
                            std::size_t offset,
                            std::span<token_index> out) noexcept {
        std::size_t count = 0;
        for (std::size_t t = 0; t < taken.size() && count < out.size(); ++t) {
            out[count] = static_cast<token_index>(offset + t);
            count += taken[t];
        }
    }
};

} // namespace v0
} // namespace kvcrush
