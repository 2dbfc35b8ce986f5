// SPDX-License-Identifier: Apache-2.0
/// @file
/// KVCrush over the pages of a cache that grows: a decode step pays for its own tokens and for the number of pages, not
/// for the tokens that came before.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/grouping/linspace.hpp>
#include <kvcrush/grouping/picker.hpp>
#include <kvcrush/select/page_choice.hpp>
#include <kvcrush/select/page_options.hpp>
#include <kvcrush/select/page_selector.hpp>
#include <kvcrush/signature/growing_signatures.hpp>
#include <kvcrush/simd/bitmap.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Which pages of one layer stay, for engines with one block table for all heads.
///
///     page_stream<> stream({.page_size = 16, .table = page_table::shared});
///     stream.plan(num_heads, max_tokens, num_recent_tokens);            // checks, takes all memory
///     stream.start(scores of the prompt behind the sinks);
///     every step: stream.append(scores of the new tokens);
///     when memory is short: for (page : stream.select(tokens)) ...      // pages to keep, ascending
///
/// Pages are counted from the end of the sinks: page i of the stream is page i + sinks / page_size of the block table.
/// Kept are always those that page_selector keeps with the same settings, the same scores and no sinks. The scores of a
/// token are taken as they are when it is appended, so feed what does not change any more: scores of keys (knorm,
/// q_filters), or what attention a token had earned when it left the newest ones. Where scores do change, and after
/// pages were given back, start again with what stayed.
/// @note append: O(num_heads * new tokens), amortised; select: O(pages). Both are noexcept and allocate nothing.
template <RepresentativePicker Picker = linspace_picker>
    requires(!ScorePicker<Picker>)
class page_stream {
public:
    /// @throws std::invalid_argument from settings.validate(), or if the settings are not those of a shared table with
    ///         bits per head, or ask for an anchor that depends on all codes
    explicit page_stream(const page_selector<Picker>& settings) : settings_(settings) {
        using detail::require;
        settings.validate();
        require(settings.table == page_table::shared,
                "page_stream: table is ",
                name_of(settings.table),
                "; it must be shared");
        require(settings.bits == page_bits::per_head && settings.span == anchor_span::bit,
                "page_stream: page_bits and span are ",
                name_of(settings.bits),
                " and ",
                name_of(settings.span),
                "; they must be per_head and bit");
        require(settings.anchor.count == 1 && settings.anchor.kind != anchor_kind::mean &&
                    settings.anchor.kind != anchor_kind::inverse_mean,
                "page_stream: the anchor is ",
                settings.anchor.count,
                " x ",
                name_of(settings.anchor.kind),
                "; it must be one that does not depend on the codes: own, zeros, ones, alternate "
                "or random");
    }

    /// Takes all memory and forgets all tokens.
    /// @param num_heads          heads whose scores are given: kv heads, or query heads
    /// @param max_tokens         tokens behind the sinks that there will ever be
    /// @param num_recent_tokens  tokens at the end whose pages do not compete
    /// @throws std::invalid_argument if a page has more than 4096 bits or sizes overflow; std::bad_alloc
    void plan(std::size_t num_heads, std::size_t max_tokens, std::size_t num_recent_tokens) {
        require_page_code(num_heads, settings_.page_size);
        detail::require(num_recent_tokens <= (std::numeric_limits<std::uint32_t>::max)(),
                        "page_stream: num_recent_tokens is ",
                        num_recent_tokens,
                        "; it must be below 2^32");
        signatures_.plan(num_heads, max_tokens, settings_.quantile);
        const std::size_t pages = max_tokens / settings_.page_size;
        keys_.assign(pages, 0);
        sums_.assign(pages, 0.0F);
        const std::size_t words = simd::bitmap_words(pages);
        important_.assign(words, 0);
        kept_.assign(words, 0);
        chosen_.assign(pages, 0);
        memory_.resize(representatives_scratch_bytes(keys_of(), pages));
        // Where no token ever leaves the recent ones, no page ever competes: more room is not needed.
        waiting_room_ = (std::min)(num_recent_tokens, max_tokens) + settings_.page_size;
        waiting_.assign(detail::checked_multiply(num_heads, waiting_room_, "page_stream"), 0.0F);
        page_.assign(num_heads * settings_.page_size, 0.0F);
        page_sum_.assign(settings_.page_size, 0.0F);
        make_anchor();
        max_tokens_ = max_tokens;
        clear();
    }

    /// Forgets all tokens and takes the first ones.
    /// @param scores  [num_heads, tokens behind the sinks]
    /// @pre   the heads of the plan; no more than max_tokens
    void start(const_head_scores scores) noexcept {
        KVCRUSH_ASSERT(scores.seq_len() <= max_tokens_);
        clear();
        const std::size_t recent = waiting_room_ - settings_.page_size;
        const std::size_t tokens = scores.seq_len();
        const std::size_t pages = (tokens - (std::min)(tokens, recent)) / settings_.page_size;
        const std::size_t competing = pages * settings_.page_size;
        signatures_.start(scores, competing);
        for (std::size_t page = 0; page < pages; ++page) {
            add_page_sum(scores, page * settings_.page_size, page);
            keys_[page] = distance(page);
        }
        num_pages_ = pages;
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const auto rest = scores.row(head).subspan(competing);
            std::copy(rest.begin(), rest.end(), waiting(head).begin());
        }
        num_waiting_ = tokens - competing;
    }

    /// Takes the next tokens.
    /// @param new_scores  [num_heads, new tokens]
    /// @pre   the heads of the plan; no more than max_tokens in all
    void append(const_head_scores new_scores) noexcept {
        KVCRUSH_ASSERT(new_scores.num_heads() == signatures_.num_heads());
        KVCRUSH_ASSERT(new_scores.seq_len() <= max_tokens_ - num_tokens());
        for (std::size_t t = 0; t < new_scores.seq_len();) {
            const std::size_t count =
                (std::min)(waiting_room_ - num_waiting_, new_scores.seq_len() - t);
            for (std::size_t head = 0; head < new_scores.num_heads(); ++head) {
                const auto row = new_scores.row(head).subspan(t, count);
                std::copy(row.begin(), row.end(), waiting(head).subspan(num_waiting_).begin());
            }
            num_waiting_ += count;
            t += count;
            if (num_waiting_ == waiting_room_) {
                admit_page();
            }
        }
    }

    /// Tokens behind the sinks so far.
    [[nodiscard]] std::size_t num_tokens() const noexcept {
        return num_pages_ * settings_.page_size + num_waiting_;
    }
    /// Pages that compete: whole ones without a recent token.
    [[nodiscard]] std::size_t num_pages() const noexcept { return num_pages_; }

    /// The competing pages to keep, ascending, out of a budget for them [tokens]. The tokens behind them stay.
    /// @return valid until the next call
    [[nodiscard]] std::span<const std::uint32_t> select(std::size_t tokens) noexcept {
        const page_counts counts =
            settings_.divide((std::min)(tokens, num_pages_ * settings_.page_size), num_pages_);
        const std::span<const float> sums = std::span<const float>(sums_).first(num_pages_);
        const std::size_t words = simd::bitmap_words(num_pages_);
        const auto important = std::span<std::uint64_t>(important_).first(words);
        const auto kept = std::span<std::uint64_t>(kept_).first(words);
        simd::mark_inside(sums, simd::find_rank_cut(sums, counts.important), important);
        detail::choose_pages(settings_.picker,
                             sums,
                             std::span<const std::uint16_t>(keys_).first(num_pages_),
                             keys_of(),
                             settings_.sort,
                             counts,
                             important,
                             kept,
                             scratch{std::span<std::byte>(memory_)});
        const std::span<std::uint32_t> chosen =
            std::span<std::uint32_t>(chosen_).first(counts.important + counts.representatives);
        simd::write_marked(kept, chosen);
        return chosen;
    }

private:
    [[nodiscard]] group_keys keys_of() const noexcept {
        return {settings_.page_size * signatures_.num_heads(), 1};
    }
    [[nodiscard]] std::span<float> waiting(std::size_t head) noexcept {
        return std::span<float>(waiting_).subspan(head * waiting_room_, waiting_room_);
    }

    void clear() noexcept {
        num_pages_ = 0;
        num_waiting_ = 0;
        signatures_.start(const_head_scores({}, signatures_.num_heads(), 0));
    }

    /// The anchor of a page, cut into those of its slots.
    void make_anchor() {
        const std::size_t heads = signatures_.num_heads();
        const std::size_t words = signatures_.words_per_code();
        slot_anchors_.assign(settings_.page_size * words, 0);
        for (std::size_t slot = 0; slot < settings_.page_size; ++slot) {
            for (std::size_t head = 0; head < heads; ++head) {
                const std::uint64_t bit = settings_.anchor.bit(slot * heads + head) ? 1 : 0;
                slot_anchors_[slot * words + head / 64] |= bit << (head % 64);
            }
        }
    }

    [[nodiscard]] std::uint16_t distance(std::size_t page) const noexcept {
        const std::span<const std::uint64_t> codes =
            signatures_.codes().subspan(page * slot_anchors_.size(), slot_anchors_.size());
        std::size_t differing = 0;
        for (std::size_t i = 0; i < codes.size(); ++i) {
            differing += static_cast<std::size_t>(std::popcount(codes[i] ^ slot_anchors_[i]));
        }
        return static_cast<std::uint16_t>(differing);
    }

    /// Adds up the scores of the tokens [begin, begin + page_size) over heads and slots, as page_selector does.
    void add_page_sum(const_head_scores scores, std::size_t begin, std::size_t page) noexcept {
        std::fill(page_sum_.begin(), page_sum_.end(), 0.0F);
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            detail::add_scores(scores.row(head).subspan(begin, settings_.page_size), page_sum_);
        }
        detail::sum_pages(page_sum_, settings_.page_size, std::span<float>(sums_).subspan(page, 1));
    }

    /// The oldest tokens that wait have no recent one among them any more: they compete from now on.
    void admit_page() noexcept {
        const std::size_t size = settings_.page_size;
        const std::size_t heads = signatures_.num_heads();
        for (std::size_t head = 0; head < heads; ++head) {
            const std::span<float> row = waiting(head);
            std::copy(row.begin(),
                      row.begin() + static_cast<std::ptrdiff_t>(size),
                      page_.begin() + static_cast<std::ptrdiff_t>(head * size));
            std::copy(row.begin() + static_cast<std::ptrdiff_t>(size), row.end(), row.begin());
        }
        num_waiting_ -= size;
        const const_head_scores scores(page_, heads, size);
        signatures_.append(scores);
        add_page_sum(scores, 0, num_pages_);
        keys_[num_pages_] = distance(num_pages_);
        ++num_pages_;
        for (const token_index token : signatures_.changed()) {
            keys_[token / size] = distance(token / size);
        }
    }

    page_selector<Picker> settings_;
    growing_signatures<std::uint64_t> signatures_;
    /// [page_size, words of a token's code]
    std::vector<std::uint64_t> slot_anchors_;
    std::vector<std::uint16_t> keys_;
    std::vector<float> sums_;
    std::vector<std::uint64_t> important_;
    std::vector<std::uint64_t> kept_;
    std::vector<std::uint32_t> chosen_;
    std::vector<std::byte> memory_;
    /// [num_heads, waiting_room_]: scores of tokens whose page does not compete yet.
    std::vector<float> waiting_;
    std::vector<float> page_;
    std::vector<float> page_sum_;
    std::size_t waiting_room_ = 0;
    std::size_t num_waiting_ = 0;
    std::size_t num_pages_ = 0;
    std::size_t max_tokens_ = 0;
};

} // namespace v0
} // namespace kvcrush
