// SPDX-License-Identifier: Apache-2.0
/// @file
/// Signatures of a cache that grows: a decode step pays for its own tokens, not for all that came before.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/signature/growing_cut.hpp>
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/head_packer.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Codes of all middle tokens so far, always exactly those that head_signature{.quantile = quantile} builds from all
/// their scores. The scores of older tokens must not change; where they do, start again.
///
///     growing_signatures<std::uint32_t> signatures;
///     signatures.plan(num_heads, max_tokens, 0.5);
///     signatures.start(scores of the prompt);
///     every step: signatures.append(scores of the new tokens);
///                 distances change for signatures.changed() and for the new tokens only
/// @tparam Code  unit of a code; codes of more than 64 heads take several units of 64 bits
/// @note  append: O(num_heads * (tokens appended + window)), amortised; memory 4 bytes per head and token for scores,
///        8 per token besides, and the codes
template <simd::CodeWord Code = std::uint64_t>
class growing_signatures {
public:
    /// Takes all memory and forgets all tokens.
    /// @param max_tokens  middle tokens that there will ever be
    /// @param quantile    share of the tokens that a head marks
    /// @throws std::invalid_argument if quantile lies outside [0, 1], if the heads do not fit Code (4096 fit 64-bit
    ///         words) or if max_tokens does not fit token_index
    void plan(std::size_t num_heads, std::size_t max_tokens, double quantile = 0.5) {
        constexpr std::size_t most =
            sizeof(Code) < 8 ? std::numeric_limits<Code>::digits : std::size_t{4096};
        detail::require(num_heads >= 1 && num_heads <= most,
                        "growing_signatures: num_heads is ",
                        num_heads,
                        "; it must lie in [1, ",
                        most,
                        "]");
        growing_cut fresh;
        fresh.plan(max_tokens, quantile); // throws, if at all, before anything has changed
        cuts_.assign(num_heads, fresh);
        words_ = simd::words_per_code<Code>(num_heads);
        codes_.resize(max_tokens * words_);
        last_change_.assign(max_tokens, 0);
        changed_.resize(max_tokens);
        max_tokens_ = max_tokens;
        num_tokens_ = 0;
        num_changed_ = 0;
        num_appends_ = 0;
    }

    /// Forgets all tokens and takes the first ones.
    /// @param scores  [num_heads, tokens], the middle tokens only
    /// @pre   the heads of the plan; no more than max_tokens
    void start(const_head_scores scores) noexcept { start(scores, scores.seq_len()); }

    /// The same with the first `num_tokens` tokens of each row.
    void start(const_head_scores scores, std::size_t num_tokens) noexcept {
        KVCRUSH_ASSERT(scores.num_heads() == cuts_.size() && num_tokens <= max_tokens_);
        KVCRUSH_ASSERT(num_tokens <= scores.seq_len());
        num_tokens_ = num_tokens;
        num_changed_ = 0;
        simd::head_packer<Code> packer(std::span<Code>(codes_).first(num_tokens_ * words_),
                                       cuts_.size());
        for (std::size_t head = 0; head < cuts_.size(); ++head) {
            const std::span<const float> row = scores.row(head).first(num_tokens);
            cuts_[head].start(row);
            packer.add(head, row, cuts_[head].cut());
        }
        packer.finish();
    }

    /// Takes the next tokens.
    /// @param new_scores  [num_heads, new tokens]
    /// @pre   the heads of the plan; no more than max_tokens in all
    void append(const_head_scores new_scores) noexcept {
        KVCRUSH_ASSERT(new_scores.num_heads() == cuts_.size());
        KVCRUSH_ASSERT(new_scores.seq_len() <= max_tokens_ - num_tokens_);
        const std::size_t num_older = num_tokens_;
        num_changed_ = 0;
        next_append();
        for (std::size_t begin = 0; begin < new_scores.seq_len();
             begin += growing_cut::max_append) {
            const std::size_t count =
                (std::min)(growing_cut::max_append, new_scores.seq_len() - begin);
            append_some(new_scores, begin, count, num_older);
        }
    }

    [[nodiscard]] std::size_t num_heads() const noexcept { return cuts_.size(); }
    [[nodiscard]] std::size_t num_tokens() const noexcept { return num_tokens_; }
    [[nodiscard]] std::size_t words_per_code() const noexcept { return words_; }

    /// [num_tokens, words_per_code], token-major, bits above num_heads are 0.
    [[nodiscard]] std::span<const Code> codes() const noexcept {
        return std::span<const Code>(codes_).first(num_tokens_ * words_);
    }

    /// The tokens from before the last append whose code it changed: each once, in no order. After an append of more
    /// than 128 tokens there may be some among them whose code changed and changed back.
    [[nodiscard]] std::span<const token_index> changed() const noexcept {
        return std::span<const token_index>(changed_).first(num_changed_);
    }

private:
    static constexpr std::size_t code_bits = std::numeric_limits<Code>::digits;

    void append_some(const_head_scores new_scores,
                     std::size_t begin,
                     std::size_t count,
                     std::size_t num_older) noexcept {
        simd::head_packer<Code> packer(
            std::span<Code>(codes_).subspan(num_tokens_ * words_, count * words_), cuts_.size());
        for (std::size_t head = 0; head < cuts_.size(); ++head) {
            const std::span<const float> scores = new_scores.row(head).subspan(begin, count);
            cuts_[head].append(scores);
            simd::rank_cut cut = cuts_[head].cut();
            cut.tie_end -= (std::min)(cut.tie_end, num_tokens_); // counted from the first new token
            packer.add(head, scores, cut);
            const auto bit = static_cast<Code>(std::uint64_t{1} << (head % code_bits));
            for (const token_index token : cuts_[head].flipped()) {
                Code& code = codes_[token * words_ + head / code_bits];
                code = static_cast<Code>(code ^ bit);
                if (token < num_older && last_change_[token] != num_appends_) {
                    last_change_[token] = num_appends_;
                    changed_[num_changed_++] = token;
                }
            }
        }
        packer.finish();
        num_tokens_ += count;
    }

    /// Appends are numbered from 1; 0 means never.
    void next_append() noexcept {
        if (++num_appends_ == 0) {
            std::fill(last_change_.begin(), last_change_.end(), 0U);
            num_appends_ = 1;
        }
    }

    std::vector<growing_cut> cuts_;
    std::vector<Code> codes_;
    /// Per token the last append that changed its code, so that it is listed once.
    std::vector<std::uint32_t> last_change_;
    std::vector<token_index> changed_;
    std::size_t words_ = 1;
    std::size_t max_tokens_ = 0;
    std::size_t num_tokens_ = 0;
    std::size_t num_changed_ = 0;
    std::uint32_t num_appends_ = 0;
};

} // namespace v0
} // namespace kvcrush
