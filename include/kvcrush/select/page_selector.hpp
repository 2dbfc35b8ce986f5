// SPDX-License-Identifier: Apache-2.0
/// @file
/// KVCrush over pages: whole pages stay or go, so that a paged cache gives memory back without moving a row.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/policy_text.hpp>
#include <kvcrush/grouping/anchor.hpp>
#include <kvcrush/grouping/distance_order.hpp>
#include <kvcrush/grouping/linspace.hpp>
#include <kvcrush/grouping/picker.hpp>
#include <kvcrush/grouping/representatives.hpp>
#include <kvcrush/grouping/token_groups.hpp>
#include <kvcrush/select/page_choice.hpp>
#include <kvcrush/select/page_options.hpp>
#include <kvcrush/select/selector.hpp>
#include <kvcrush/signature/head_signature.hpp>
#include <kvcrush/signature/page_signature.hpp>
#include <kvcrush/simd/bitmap.hpp>
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Keeps whole pages: those with the largest sums of scores, and representatives of the others by their portraits.
///
///     |<- sinks ->|<- page 0 ->|<- page 1 ->| ... |<- recent ->|      pages are counted from the end of the sinks
///
/// With num_sink_tokens a multiple of page_size these are the pages of the cache. What the recent tokens leave of a
/// last page stays with them, the newest of it if there is no room for all.
/// @tparam Picker  who represents: linspace_picker, step_picker, farthest_picker, most_important_picker, or your own
/// @note   The budget is a bound: up to page_size - 1 tokens of it may stay unused. All heads keep the same number of
///         tokens where their budgets are equal. Linear in tokens.
/// @see    KVCrush, arXiv:2503.00022, chunk level; the details are those of the authors' vLLM code (pull request
///         47967). Deviations: a page is a candidate per head, there what head 0 keeps is taken from all heads, so that
///         a page could be chosen twice; representatives never exceed the budget.
template <RepresentativePicker Picker = linspace_picker>
    requires(!ScorePicker<Picker>)
struct page_selector {
    static constexpr std::string_view name = "page";
    static constexpr std::string_view about =
        "important pages, and representatives of the other pages";

    /// Tokens of a page [tokens].
    std::size_t page_size = 16;
    /// Part of the middle budget that goes to representatives, in [0, 1]; one page at least unless it is 0.
    double share = 0.25;
    page_table table = page_table::per_head;
    page_bits bits = page_bits::per_head;
    /// Part of the tokens that a head marks, in [0, 1].
    double quantile = 0.5;
    kvcrush::anchor anchor{.kind = anchor_kind::alternate};
    anchor_span span = anchor_span::bit;
    distance_sort sort = distance_sort::ascending;
    Picker picker{};

    static constexpr auto parameters() {
        return parameter_list{
            parameter{"page", &page_selector::page_size, "tokens of a page"},
            parameter{
                "share", &page_selector::share, "part of the middle budget for representatives"},
            parameter{"table", &page_selector::table, "which heads keep which pages"},
            parameter{"page_bits", &page_selector::bits, "what the portrait of a page is made of"},
            parameter{"quantile", &page_selector::quantile, "share of the tokens a head marks"},
            parameter{"span", &page_selector::span, "what a bit of the anchor is compared with"},
            parameter{"sort", &page_selector::sort, "order of the distances to pick along"}};
    }
    static constexpr auto parts() {
        return parameter_list{&page_selector::anchor, &page_selector::picker};
    }
    /// As those of kvcrush_selector, whose pages are a portrait of their own: "signature=page,page=8".
    [[nodiscard]] std::string arguments() const {
        std::string result = "signature=page";
        if (Picker::name != linspace_picker::name) {
            result.append(",pick=").append(Picker::name);
        }
        append_argument(result, changed_parameters(*this, page_selector{}));
        return result;
    }

    /// @throws std::invalid_argument if page_size lies outside [1, 4096], share or quantile outside [0, 1], or if
    ///         parts do not go together
    void validate() const {
        using detail::require;
        require(page_size >= 1 && page_size <= max_page_code_bits,
                "page: page_size is ",
                page_size,
                "; it must lie in [1, ",
                max_page_code_bits,
                "]");
        require(share >= 0.0 && share <= 1.0, "page: share is ", share, "; it must lie in [0, 1]");
        require(quantile >= 0.0 && quantile <= 1.0,
                "page: quantile is ",
                quantile,
                "; it must lie in [0, 1]");
        require(bits != page_bits::summed_rest || table == page_table::shared,
                "page: page_bits=summed_rest needs table=shared");
        require(span == anchor_span::bit || anchor.count == 1,
                "page: span=page takes one anchor, not ",
                anchor.count);
        require(span == anchor_span::bit ||
                    (anchor.kind != anchor_kind::mean && anchor.kind != anchor_kind::inverse_mean),
                "page: span=page has no anchor ",
                name_of(anchor.kind),
                "; allowed: own, zeros, ones, alternate, random");
        anchor.validate();
        picker.validate();
    }

    /// What the selector can do with a cache of this size.
    /// @throws std::invalid_argument if the portrait of a page would have more than 4096 bits
    void validate_for(const problem_size& size) const {
        const std::size_t heads = size.kv.num_kv_heads;
        if (bits == page_bits::per_head && heads > 0) {
            detail::require(heads * page_size <= max_page_code_bits,
                            "page: page_size is ",
                            page_size,
                            "; with ",
                            heads,
                            " kv heads it must lie in [1, ",
                            max_page_code_bits / heads,
                            "] (or page_bits=summed)");
        }
    }

    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        const std::size_t tokens = size.kv.seq_len;
        const std::size_t heads = size.kv.num_kv_heads;
        const std::size_t pages = tokens / page_size;
        const group_keys possible = keys_of(heads);
        return scratch::bytes<float>(tokens) * 2 + scratch::bytes<float>(pages) +
               scratch::bytes<std::uint16_t>(pages) +
               2 * scratch::bytes<std::uint64_t>(simd::bitmap_words(pages)) +
               scratch::bytes<std::uint64_t>((heads / 64 + 1) * tokens) +
               head_signature{}.scratch_bytes(heads) +
               scratch::bytes<std::uint64_t>(words_per_page(heads, page_size) *
                                             (pages + anchor.count)) +
               scratch::alignment + group_scratch_bytes(anchor.count, pages) +
               representatives_scratch_bytes(possible, pages);
    }

    /// How a budget of `tokens` tokens in whole pages is divided.
    [[nodiscard]] page_counts divide(std::size_t tokens, std::size_t num_pages) const noexcept {
        const std::size_t all = (std::min)(tokens / page_size, num_pages);
        auto representatives =
            static_cast<std::size_t>(share * static_cast<double>(tokens)) / page_size;
        representatives = (std::max)(representatives, std::size_t{share > 0.0 ? 1U : 0U});
        representatives = (std::min)(representatives, all);
        return {all - representatives, representatives};
    }

    /// @see Selector
    template <typename... Inputs>
    void select(const selection_request& request, selection& out, const Inputs&...) const noexcept {
        out.clear();
        if (request.scores.num_heads() == 0) {
            return;
        }
        const group_keys possible = keys_of(request.scores.num_heads());
        if (possible.fit_bytes()) {
            select_by_key<std::uint8_t>(possible, request, out);
        } else {
            select_by_key<std::uint16_t>(possible, request, out);
        }
    }

private:
    [[nodiscard]] group_keys keys_of(std::size_t num_heads) const noexcept {
        return {page_size * (bits == page_bits::per_head ? num_heads : 1), anchor.count};
    }

    template <simd::Distance Key>
    void select_by_key(const group_keys& possible,
                       const selection_request& request,
                       selection& out) const noexcept {
        const const_head_scores scores = request.scores;
        const areas& area = request.area;
        scratch memory = request.memory;
        const std::size_t pages = area.num_middle() / page_size;
        areas paged = area;
        paged.middle_end = area.middle_begin + pages * page_size;
        const std::span<Key> keys = memory.take<Key>(pages);
        const std::span<float> sums = memory.take<float>(pages);
        const std::size_t words = simd::bitmap_words(pages);
        const std::span<std::uint64_t> important = memory.take<std::uint64_t>(words);
        const std::span<std::uint64_t> kept = memory.take<std::uint64_t>(words);
        std::span<float> all_heads;
        if (table == page_table::shared || bits != page_bits::per_head) {
            all_heads = memory.take<float>(paged.num_middle());
            sum_heads(scores, paged, all_heads);
        }
        if (bits != page_bits::summed_rest) {
            make_keys(possible, scores, paged, all_heads, keys, memory);
        }
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            // Of what follows the last whole page, the newest tokens that there is room for.
            const std::size_t budget = detail::middle_budget(area, request.counts[head]);
            const std::size_t behind = area.middle_end - paged.middle_end;
            const std::size_t kept_behind = (std::min)(budget, behind);
            if (table == page_table::per_head || head == 0) {
                const page_counts wanted = divide(budget - kept_behind, pages);
                detail::sum_pages(table == page_table::shared ? std::span<const float>(all_heads)
                                                              : paged.middle(scores.row(head)),
                                  page_size,
                                  sums);
                simd::mark_inside(sums, simd::find_rank_cut(sums, wanted.important), important);
                if (bits == page_bits::summed_rest) {
                    make_keys_of_rest(possible, all_heads, important, keys, memory);
                }
                detail::choose_pages(picker,
                                     std::span<const float>(sums),
                                     std::span<const Key>(keys),
                                     possible,
                                     sort,
                                     wanted,
                                     important,
                                     kept,
                                     memory);
            }
            out.extend_range(0, area.middle_begin);
            write_pages(kept, paged, out);
            out.extend_range(area.middle_end - kept_behind, area.seq_len);
            out.end_head();
        }
    }

    static void
    sum_heads(const_head_scores scores, const areas& area, std::span<float> out) noexcept {
        std::fill(out.begin(), out.end(), 0.0F);
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            detail::add_scores(area.middle(scores.row(head)), out);
        }
    }

    template <simd::Distance Key>
    void make_keys(const group_keys& possible,
                   const_head_scores scores,
                   const areas& area,
                   std::span<const float> all_heads,
                   std::span<Key> keys,
                   scratch memory) const noexcept {
        if (bits == page_bits::per_head) {
            make_keys_of(possible, scores, area, keys, memory);
        } else {
            areas whole;
            whole.seq_len = all_heads.size();
            whole.middle_end = all_heads.size();
            make_keys_of(
                possible, const_head_scores(all_heads, 1, all_heads.size()), whole, keys, memory);
        }
    }

    /// Pages that are important already have no part in the ranks, and get no key that means anything.
    template <simd::Distance Key>
    void make_keys_of_rest(const group_keys& possible,
                           std::span<const float> all_heads,
                           std::span<const std::uint64_t> important,
                           std::span<Key> keys,
                           scratch memory) const noexcept {
        const std::span<float> rest = memory.take<float>(all_heads.size());
        std::size_t num_pages = 0;
        for (std::size_t page = 0; page < keys.size(); ++page) {
            if ((important[page / 64] >> (page % 64) & 1U) == 0) {
                const auto own = all_heads.subspan(page * page_size, page_size);
                std::copy(own.begin(), own.end(), rest.subspan(num_pages * page_size).begin());
                ++num_pages;
            }
        }
        make_keys(
            possible, {}, {}, rest.first(num_pages * page_size), keys.first(num_pages), memory);
        // The keys of the rest stand close together: move each to its page, from the last on.
        for (std::size_t page = keys.size(); page-- > 0;) {
            if ((important[page / 64] >> (page % 64) & 1U) == 0) {
                keys[page] = keys[--num_pages];
            } else {
                keys[page] = 0;
            }
        }
    }

    template <simd::Distance Key>
    void make_keys_of(const group_keys& possible,
                      const_head_scores scores,
                      const areas& area,
                      std::span<Key> keys,
                      scratch memory) const noexcept {
        const std::size_t heads = scores.num_heads();
        const std::size_t words = words_per_page(heads, page_size);
        const std::span<std::uint64_t> codes = memory.take<std::uint64_t>(words * keys.size());
        const std::span<std::uint64_t> anchors = memory.take<std::uint64_t>(words * anchor.count);
        if (heads <= 8) {
            join<std::uint8_t>(scores, area, codes, memory);
        } else if (heads <= 16) {
            join<std::uint16_t>(scores, area, codes, memory);
        } else if (heads <= 32) {
            join<std::uint32_t>(scores, area, codes, memory);
        } else {
            join<std::uint64_t>(scores, area, codes, memory);
        }
        if (span == anchor_span::page) {
            compare_pages(codes, words, possible.num_bits, keys);
            return;
        }
        anchor.make(std::span<const std::uint64_t>(codes), possible.num_bits, anchors.first(words));
        anchor.make_others(possible.num_bits, anchors);
        group_tokens(std::span<const std::uint64_t>(anchors),
                     std::span<const std::uint64_t>(codes),
                     possible,
                     keys,
                     memory);
    }

    template <simd::CodeWord Code>
    void join(const_head_scores scores,
              const areas& area,
              std::span<std::uint64_t> out,
              scratch memory) const noexcept {
        const std::size_t heads = scores.num_heads();
        const std::span<Code> codes =
            memory.take<Code>(simd::words_per_code<Code>(heads) * area.num_middle());
        head_signature{.quantile = quantile}.build(scores, area, codes, memory);
        join_pages(std::span<const Code>(codes), heads, page_size, out);
    }

    /// Distance of each page to a code that repeats one bit of the anchor.
    template <simd::Distance Key>
    void compare_pages(std::span<const std::uint64_t> codes,
                       std::size_t words,
                       std::size_t num_bits,
                       std::span<Key> keys) const noexcept {
        for (std::size_t page = 0; page < keys.size(); ++page) {
            std::size_t set = 0;
            for (const std::uint64_t word : codes.subspan(page * words, words)) {
                set += static_cast<std::size_t>(std::popcount(word));
            }
            keys[page] = static_cast<Key>(anchor.bit(page) ? num_bits - set : set);
        }
    }

    void write_pages(std::span<const std::uint64_t> kept,
                     const areas& paged,
                     selection& out) const noexcept {
        for (std::size_t page = 0; page < paged.num_middle() / page_size; ++page) {
            if ((kept[page / 64] >> (page % 64) & 1U) != 0) {
                const std::size_t begin = paged.middle_begin + page * page_size;
                out.extend_range(begin, begin + page_size);
            }
        }
    }
};

} // namespace v0
} // namespace kvcrush
