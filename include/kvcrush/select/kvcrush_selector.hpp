// SPDX-License-Identifier: Apache-2.0
/// @file
/// KVCrush: most of the budget for the important tokens, the rest for somebody who speaks for the others.
#pragma once

#include <kvcrush/allocation/representative_share.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/layer_context.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/policy_text.hpp>
#include <kvcrush/grouping/anchor.hpp>
#include <kvcrush/grouping/distance_order.hpp>
#include <kvcrush/grouping/linspace.hpp>
#include <kvcrush/grouping/picker.hpp>
#include <kvcrush/grouping/representatives.hpp>
#include <kvcrush/grouping/token_groups.hpp>
#include <kvcrush/select/second_opinion.hpp>
#include <kvcrush/select/selector.hpp>
#include <kvcrush/signature/head_signature.hpp>
#include <kvcrush/simd/bitmap.hpp>
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// Stands for "the scorer that decides also makes the bits".
struct own_scores {
    static constexpr std::string_view name = "own";
    static constexpr bool needs_attention = false;
    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}
};

/// A portrait made from what heads observed; the kv heads of a layer share it.
template <typename S>
concept ObservedSignature = Policy<S> && requires(const S& signature,
                                                  const_head_scores observed,
                                                  const areas& area,
                                                  std::span<std::uint64_t> codes,
                                                  scratch memory) {
    { signature.num_bits(observed.num_heads()) } -> std::same_as<std::size_t>;
    { signature.build(observed, area, codes, memory) }
    noexcept;
};

/// A portrait made from keys, one per kv head; it brings an anchor of its own.
template <typename S>
concept KeySignature = Policy<S> && requires(const S& signature, const problem_size& size) {
    { signature.num_bits(size) } -> std::same_as<std::size_t>;
    { signature.scratch_bytes(size) } -> std::same_as<std::size_t>;
};

/// Composes with any scorer. Per kv head:
///
///     1. important       = the best (1 - share) of the middle budget, by score
///     2. portrait        = one bit per head and middle token: does the head care? (shared by the kv heads)
///     3. distance        = Hamming distance of the portrait to the anchor
///     4. representatives = share of the middle budget, picked among the rest along the order of distance
///     keep sinks, important, representatives, recent
///
/// Representatives come out of the budget, never on top of it. No K or V value is read unless the signature or `bits`
/// asks for it.
/// @tparam Picker      who represents: linspace_picker, step_picker, farthest_picker, most_important_picker,
///                     second_score_picker<Scorer>, or your own
/// @tparam Bits        the scorer whose heads make the bits, before they are folded and pooled; own_scores takes those
///                     of the scorer that decides
/// @tparam Signature   head_signature, or key_sign_signature, which looks at keys
/// @note   Linear in tokens. On the reference model (9 heads, so 9 bits) form A does not beat its base at the same
///         budget; second_score does, and most_important with the bits of snapkv on h2o(normalise = none) does.
/// @see    KVCrush, arXiv:2503.00022, token level. Deviations: importance and candidates are per kv head; the anchor
///         is all zeros by default (the paper uses random, mean and alternating ones; they hardly differ). Several
///         anchors and the adaptive split are the paper's future work.
template <RepresentativePicker Picker = linspace_picker,
          Scorer Bits = own_scores,
          typename Signature = head_signature>
struct kvcrush_selector {
    static_assert(ObservedSignature<Signature> || KeySignature<Signature>,
                  "kvcrush: the signature must model ObservedSignature or KeySignature");

    static constexpr std::string_view name = "kvcrush";
    static constexpr bool needs_attention = [] {
        if constexpr (ScorePicker<Picker>) {
            return Picker::needs_attention;
        } else {
            return Bits::needs_attention;
        }
    }();
    static constexpr std::string_view about =
        "important tokens of a scorer, and representatives of the rest";

    /// Part of the middle budget that goes to representatives, in [0, 1]. 0.25 in the authors' code.
    double share = 0.25;
    /// Whether few negligible tokens make that less.
    budget_split split = budget_split::fixed;
    /// Which candidates come first for pickers that go by the order of distance.
    distance_sort sort = distance_sort::ascending;
    Signature signature{};
    kvcrush::anchor anchor{};
    Picker picker{};
    Bits bits{};

    static constexpr auto parameters() {
        return parameter_list{
            parameter{
                "share", &kvcrush_selector::share, "part of the middle budget for representatives"},
            parameter{"split",
                      &kvcrush_selector::split,
                      "adaptive: less where few tokens are negligible"},
            parameter{"sort", &kvcrush_selector::sort, "order of the distances to pick along"}};
    }
    static constexpr auto parts() {
        using self = kvcrush_selector;
        if constexpr (ScorePicker<Picker>) { // no portrait: neither signature nor anchor
            return parameter_list{&self::picker};
        } else {
            return parameter_list{&self::signature, &self::anchor, &self::picker};
        }
    }
    /// Its parts by name, where they are not the defaults, and parameters: "pick=second_score,second=h2o(last=256)".
    [[nodiscard]] std::string arguments() const {
        std::string result;
        if (Signature::name != head_signature::name) {
            append_argument(result, std::string("signature=").append(Signature::name));
        }
        if (Picker::name != linspace_picker::name) {
            append_argument(result, std::string("pick=").append(Picker::name));
        }
        if constexpr (ScorePicker<Picker>) {
            append_argument(result, policy_arguments(picker));
        } else if constexpr (looks_again) {
            append_argument(result, "bits=" + policy_text(bits));
        }
        append_argument(result, changed_parameters(*this, kvcrush_selector{}));
        return result;
    }
    /// The same with anchors of the layer's own, and with the scorer it may hold as it is to be there.
    [[nodiscard]] kvcrush_selector at_layer(const layer_context& where) const {
        kvcrush_selector own = *this;
        own.anchor.seed = detail::seed_at(anchor.seed, where);
        if constexpr (ScorePicker<Picker>) {
            own.picker.second = policy_at_layer(picker.second, where);
        } else if constexpr (looks_again) {
            own.bits = policy_at_layer(bits, where);
        }
        return own;
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

    /// What the selector can do with a cache of this size.
    /// @throws std::invalid_argument if portraits would have more than 4096 bits
    void validate_for(const problem_size& size) const {
        if constexpr (!ScorePicker<Picker> && !reads_keys) {
            detail::require(largest_head_count(size) <= max_bits,
                            "kvcrush: ",
                            largest_head_count(size),
                            " heads would make a bit each; at most ",
                            max_bits,
                            " are allowed");
        }
    }

    /// Queries that its own scorer looks at, if it has one.
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        if constexpr (ScorePicker<Picker>) {
            if constexpr (requires { picker.second.num_queries(seq_len); }) {
                return picker.second.num_queries(seq_len);
            }
        } else if constexpr (requires { bits.num_queries(seq_len); }) {
            return bits.num_queries(seq_len);
        }
        return 0;
    }

    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        const std::size_t tokens = size.kv.seq_len;
        const std::size_t sets =
            2 * scratch::bytes<std::uint64_t>(simd::bitmap_words(tokens)) + scratch::alignment;
        if constexpr (ScorePicker<Picker>) {
            return sets + second_opinion_scratch_bytes(picker.second, size);
        } else {
            const group_keys possible = keys_of(size);
            std::size_t bytes =
                sets + scratch::bytes<std::uint16_t>(tokens) +
                scratch::bytes<std::uint64_t>(words_of(possible) * (tokens + anchor.count)) +
                scratch::alignment +
                (std::max)(signature_scratch_bytes(size),
                           group_scratch_bytes(anchor.count, tokens)) +
                representatives_scratch_bytes(possible, tokens);
            if constexpr (looks_again) {
                bytes += scratch::bytes<float>(largest_head_count(size) * tokens) +
                         scorer_scratch_bytes(bits, size);
            }
            return bytes;
        }
    }

    /// @see Selector
    template <typename... Inputs>
    void select(const selection_request& request,
                selection& out,
                const Inputs&... inputs) const noexcept {
        out.clear();
        if (request.scores.num_heads() == 0) {
            return;
        }
        selection_request own = request; // with the memory that is left
        if constexpr (ScorePicker<Picker>) {
            const second_opinion opinion(
                picker.second, size_of(request, inputs...), own.memory, inputs...);
            select_each(own, out, [&](const vacancies& of) {
                opinion.mark_best_of_rest(
                    of.head, own.area, of.important, of.picks, of.kept, of.memory);
            });
        } else {
            if constexpr (looks_again) {
                own.observed = look_again(request, own.memory, inputs...);
            }
            const group_keys possible = keys_of(own, inputs...);
            if (possible.fit_bytes()) {
                select_by_key<std::uint8_t>(possible, own, out, inputs...);
            } else { // distances take two bytes only where one does not do
                select_by_key<std::uint16_t>(possible, own, out, inputs...);
            }
        }
    }

private:
    static constexpr std::size_t max_bits = 4096;
    static constexpr bool looks_again = !std::is_same_v<Bits, own_scores>;
    static constexpr bool reads_keys = KeySignature<Signature>;
    static_assert(!reads_keys || !looks_again, "kvcrush: key_sign makes its bits from keys alone");

    /// Where a kv head wants representatives.
    struct vacancies {
        std::size_t head = 0;
        std::span<const std::uint64_t>
            important; ///< bits of the middle tokens that are kept already
        std::size_t picks = 0;
        std::span<std::uint64_t> kept; ///< the bits of the chosen ones are to be set here
        scratch memory;
    };

    template <typename First, typename... Rest>
    [[nodiscard]] static problem_size
    size_of(const selection_request& request, const First& first, const Rest&... rest) noexcept {
        if constexpr (!KvSource<First>) { // attention weights
            return {{request.scores.num_heads(), request.scores.seq_len(), 0, 0},
                    first.num_q_heads()};
        } else if constexpr (sizeof...(Rest) > 0) {
            return {first.shape(), std::get<0>(std::tie(rest...)).num_q_heads()};
        } else {
            return {first.shape(), request.observed.num_heads()};
        }
    }

    [[nodiscard]] static std::size_t largest_head_count(const problem_size& size) noexcept {
        return (std::max)(size.num_q_heads, size.kv.num_kv_heads);
    }
    template <typename... Inputs>
    [[nodiscard]] group_keys keys_of(const selection_request& request,
                                     const Inputs&... inputs) const noexcept {
        if constexpr (reads_keys) {
            return {signature.num_bits(size_of(request, inputs...)), anchor.count};
        } else {
            return {signature.num_bits(request.observed.num_heads()), anchor.count};
        }
    }
    /// The most that a cache of this size may lead to.
    [[nodiscard]] group_keys keys_of(const problem_size& size) const noexcept {
        if constexpr (reads_keys) {
            return {signature.num_bits(size), anchor.count};
        } else {
            return {signature.num_bits(largest_head_count(size)), anchor.count};
        }
    }
    [[nodiscard]] static std::size_t words_of(const group_keys& possible) noexcept {
        return possible.num_bits / 64 + 1;
    }
    [[nodiscard]] std::size_t signature_scratch_bytes(const problem_size& size) const noexcept {
        if constexpr (reads_keys) {
            return signature.scratch_bytes(size);
        } else {
            return signature.scratch_bytes(largest_head_count(size));
        }
    }

    template <typename... Inputs>
    [[nodiscard]] const_head_scores look_again(const selection_request& request,
                                               scratch& memory,
                                               const Inputs&... inputs) const noexcept {
        static_assert(
            !Bits::needs_attention || AttentionScorer<Bits, Inputs...>,
            "kvcrush: the scorer of the bits looks at attention: call select(kv, queries) or "
            "select(attention)");
        const std::size_t tokens = request.scores.seq_len();
        const std::size_t heads = num_observed_heads(bits, size_of(request, inputs...));
        const head_scores observed(memory.take<float>(heads * tokens), heads, tokens);
        observe(bits, observed, memory, inputs...);
        return observed;
    }

    template <simd::Distance Key, typename... Inputs>
    void select_by_key(const group_keys& possible,
                       selection_request own,
                       selection& out,
                       const Inputs&... inputs) const noexcept {
        const std::span<Key> keys = own.memory.take<Key>(own.area.num_middle());
        if constexpr (!reads_keys) {
            const auto build = [&](auto codes, auto, scratch rest) {
                signature.build(own.observed, own.area, codes, rest);
            };
            group_by_code(possible, build, keys, own.memory);
        }
        select_each(own, out, [&](const vacancies& of) {
            if constexpr (reads_keys) {
                build_from_keys(possible, of, own.area, keys, inputs...);
            }
            mark_representatives(picker,
                                 std::span<const Key>(keys),
                                 possible,
                                 sort,
                                 own.area.middle(own.scores.row(of.head)),
                                 of.important,
                                 of.picks,
                                 of.kept,
                                 of.memory);
        });
    }

    template <simd::Distance Key, typename Kv, typename... Rest>
    void build_from_keys(const group_keys& possible,
                         const vacancies& of,
                         const areas& area,
                         std::span<Key> keys,
                         const Kv& kv,
                         const Rest&...) const noexcept {
        static_assert(KvSource<Kv>,
                      "kvcrush: this signature reads keys: call select(kv) or select(kv, queries)");
        if constexpr (KvSource<Kv>) {
            const auto build = [&](auto codes, auto own_anchor, scratch rest) {
                signature.build(kv, of.head, area, codes, own_anchor, rest);
            };
            group_by_code(possible, build, keys, of.memory);
        }
    }

    /// Codes of 8, 16 and 32 bits are not padded to 64: most models have 8 to 32 heads.
    template <simd::Distance Key, typename Build>
    void group_by_code(const group_keys& possible,
                       const Build& build,
                       std::span<Key> keys,
                       scratch memory) const noexcept {
        if (possible.num_bits <= 8) {
            group_by<std::uint8_t>(possible, build, keys, memory);
        } else if (possible.num_bits <= 16) {
            group_by<std::uint16_t>(possible, build, keys, memory);
        } else if (possible.num_bits <= 32) {
            group_by<std::uint32_t>(possible, build, keys, memory);
        } else {
            group_by<std::uint64_t>(possible, build, keys, memory);
        }
    }

    template <simd::CodeWord Code, simd::Distance Key, typename Build>
    void group_by(const group_keys& possible,
                  const Build& build,
                  std::span<Key> keys,
                  scratch memory) const noexcept {
        const std::size_t words = simd::words_per_code<Code>(possible.num_bits);
        const std::span<Code> codes = memory.take<Code>(words * keys.size());
        const std::span<Code> anchors = memory.take<Code>(words * anchor.count);
        const std::span<Code> first = anchors.first(words);
        build(codes, first, memory);
        if (!reads_keys || anchor.kind != anchor_kind::own) {
            anchor.make(std::span<const Code>(codes), possible.num_bits, first);
        }
        anchor.make_others(possible.num_bits, anchors);
        group_tokens(
            std::span<const Code>(anchors), std::span<const Code>(codes), possible, keys, memory);
    }

    /// Important tokens of each kv head, whatever `represent` chooses among the others, and the protected areas.
    template <typename Represent>
    void select_each(const selection_request& request,
                     selection& out,
                     const Represent& represent) const noexcept {
        const areas& area = request.area;
        scratch memory = request.memory;
        const std::size_t words = simd::bitmap_words(area.num_middle());
        const std::span<std::uint64_t> important = memory.take<std::uint64_t>(words);
        const std::span<std::uint64_t> kept = memory.take<std::uint64_t>(words);
        for (std::size_t head = 0; head < request.scores.num_heads(); ++head) {
            const std::span<const float> row = area.middle(request.scores.row(head));
            const std::size_t budget = detail::middle_budget(area, request.counts[head]);
            const std::size_t picks = representative_count(share, split, row, budget);
            simd::mark_inside(row, simd::find_rank_cut(row, budget - picks), important);
            std::copy(important.begin(), important.end(), kept.begin());
            if (picks > 0) {
                represent(vacancies{head, important, picks, kept, memory});
            }
            out.extend_range(0, area.middle_begin);
            const std::size_t written = simd::write_marked(
                kept, out.extend(budget), static_cast<token_index>(area.middle_begin));
            KVCRUSH_ASSERT(written == budget && "kvcrush: a picker chose a token twice or none");
            static_cast<void>(written);
            out.extend_range(area.middle_end, area.seq_len);
            out.end_head();
        }
    }
};

} // namespace v0
} // namespace kvcrush
