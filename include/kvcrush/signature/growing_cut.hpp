// SPDX-License-Identifier: Apache-2.0
/// @file
/// The boundary of the best tokens of one head while tokens are appended.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/ordered_key.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Knows at any time which floor(quantile * n) of n scores are the best, exactly as find_rank_cut does for all of them:
/// the larger ones, of equal ones the earlier, NaN last.
///
///     |<- num_above ->|<- window, sorted ->|<- below ->|        best first; the cut lies in the window
/// A new score above or below the window moves the cut by a place or none; one inside it is inserted. Where the cut
/// leaves the window, or the window is full, it is laid around the cut again.
/// @note append: O(scores + window) and, once in some hundreds of tokens or much more rarely, O(n). For scores of one
///       distribution the cut wanders like the square root of the tokens appended.
class growing_cut {
public:
    /// Scores that one append takes at most.
    static constexpr std::size_t max_append = 128;

    /// Takes all memory. May be called again.
    /// @throws std::invalid_argument if quantile lies outside [0, 1] or max_tokens does not fit token_index
    void plan(std::size_t max_tokens, double quantile) {
        detail::require(quantile >= 0.0 && quantile <= 1.0,
                        "growing_cut: quantile is ",
                        quantile,
                        "; it must lie in [0, 1]");
        detail::require(max_tokens < (std::numeric_limits<token_index>::max)(),
                        "growing_cut: max_tokens is ",
                        max_tokens,
                        "; at most 4294967294 tokens are supported");
        scores_.resize(max_tokens);
        window_.resize(window_capacity);
        quantile_ = quantile;
        start({});
    }

    /// Forgets everything and takes the first scores.
    /// @pre scores.size() <= max_tokens
    void start(std::span<const float> scores) noexcept {
        KVCRUSH_ASSERT(scores.size() <= scores_.size());
        num_tokens_ = scores.size();
        std::copy(scores.begin(), scores.end(), scores_.begin());
        num_flipped_ = 0;
        lay_window();
        bound_ = bound_of_rank();
    }

    /// Takes the scores of the next tokens.
    /// @pre scores.size() <= max_append; num_tokens() + scores.size() <= max_tokens
    void append(std::span<const float> scores) noexcept {
        KVCRUSH_ASSERT(scores.size() <= max_append);
        KVCRUSH_ASSERT(scores.size() <= scores_.size() - num_tokens_);
        const std::size_t num_old = num_tokens_;
        bool fits = true;
        for (std::size_t i = 0; i < scores.size(); ++i) {
            scores_[num_old + i] = scores[i];
            const std::uint64_t token =
                simd::detail::keyed_token(simd::ordered_key(scores[i]), num_old + i);
            num_above_ += token > top_ ? 1U : 0U; // no branch: half of the tokens are
            if (token - bottom_ <= top_ - bottom_) {
                fits = fits && insert(token);
            }
        }
        num_tokens_ += scores.size();
        const std::size_t inside = num_inside();
        if (!fits || inside < num_above_ || inside > num_above_ + num_window_) {
            lay_window();
        }
        const std::uint64_t old_bound = bound_;
        bound_ = bound_of_rank();
        find_flipped(old_bound, num_old);
    }

    [[nodiscard]] std::size_t num_tokens() const noexcept { return num_tokens_; }
    /// Tokens inside the cut: floor(quantile * num_tokens).
    [[nodiscard]] std::size_t num_inside() const noexcept {
        return static_cast<std::size_t>(quantile_ * static_cast<double>(num_tokens_));
    }

    /// The cut through all scores so far.
    [[nodiscard]] simd::rank_cut cut() const noexcept {
        const auto last_tie = static_cast<std::uint32_t>(~bound_);
        return {static_cast<std::uint32_t>(bound_ >> 32), std::size_t{last_tie} + 1};
    }

    /// Tokens that were there before the last append and went from one side of the cut to the other; each once.
    [[nodiscard]] std::span<const token_index> flipped() const noexcept {
        return std::span<const token_index>(flipped_).first(num_flipped_);
    }

private:
    /// Places on either side of the cut when the window is laid. More of them make laying rarer and inserting
    /// dearer; 512 of 128K random scores take one of 128 new tokens.
    static constexpr std::size_t half_window = 512;
    static constexpr std::size_t window_capacity = 3 * half_window;
    static_assert(half_window > 2 * max_append,
                  "a window laid anew must hold the tokens that flipped");

    /// @return false if the window is full
    [[nodiscard]] bool insert(std::uint64_t token) noexcept {
        if (num_window_ == window_capacity) {
            return false;
        }
        const auto end = window_.begin() + static_cast<std::ptrdiff_t>(num_window_);
        const auto place = std::lower_bound(window_.begin(), end, token, std::greater<>{});
        std::copy_backward(place, end, end + 1);
        *place = token;
        ++num_window_;
        return true;
    }

    /// Finds the window's ends by rank, and then its tokens.
    void lay_window() noexcept {
        const std::span<const float> scores = std::span<const float>(scores_).first(num_tokens_);
        const std::size_t inside = num_inside();
        const std::size_t first = inside < half_window ? 0 : inside - half_window;
        const std::size_t last = (std::min)(inside + half_window, num_tokens_);
        const simd::rank_cut above = simd::find_rank_cut(scores, first);
        const simd::rank_cut within = simd::find_rank_cut(scores, last);
        num_above_ = first;
        num_window_ = 0;
        // Between the ends of ties the keys of the window are one range.
        const std::size_t ties_above = (std::min)(above.tie_end, num_tokens_);
        const std::size_t ties_within = (std::min)(within.tie_end, num_tokens_);
        const std::array<std::size_t, 4> ends{0,
                                              (std::min)(ties_above, ties_within),
                                              (std::max)(ties_above, ties_within),
                                              num_tokens_};
        for (std::size_t i = 0; i < 3; ++i) {
            const bool above_ties =
                ends[i] < ties_above; // equals of above.key are above the window
            const bool within_ties = ends[i] < ties_within; // equals of within.key are in it
            if ((above_ties && above.key == 0) || (!within_ties && within.key == simd::no_key)) {
                continue;
            }
            const simd::detail::key_range range{within_ties ? within.key : within.key + 1,
                                                above_ties ? above.key - 1 : above.key};
            if (range.low <= range.high && ends[i] < ends[i + 1]) {
                collect(scores, ends[i], ends[i + 1], range);
            }
        }
        KVCRUSH_ASSERT(num_window_ == last - first);
        std::sort(window_.begin(),
                  window_.begin() + static_cast<std::ptrdiff_t>(num_window_),
                  std::greater<>{});
        // Open ends take what comes: nothing lies beyond them.
        top_ = first == 0 ? (std::numeric_limits<std::uint64_t>::max)() : window_[0];
        bottom_ = last == num_tokens_ ? 0 : window_[num_window_ - 1];
    }

    void collect(std::span<const float> scores,
                 std::size_t begin,
                 std::size_t end,
                 simd::detail::key_range range) noexcept {
        const std::span<const float> part = scores.subspan(begin, end - begin);
        std::uint64_t* const out = window_.data() + num_window_;
        std::size_t count = 0;
        switch (simd::best()) {
#if KVCRUSH_X86_DISPATCH
        case simd::isa::avx512:
            count = simd::detail::rank_kernels_avx512::collect(part, range, out);
            break;
        case simd::isa::avx2:
            count = simd::detail::rank_kernels_avx2::collect(part, range, out);
            break;
#endif
        default: count = simd::detail::rank_kernels_scalar::collect(part, range, out);
        }
        for (std::size_t i = 0; i < count; ++i) {
            out[i] -= begin; // tokens are held inverted, counted from `begin` so far
        }
        num_window_ += count;
    }

    /// Tokens inside are those of at least this (key, token).
    [[nodiscard]] std::uint64_t bound_of_rank() const noexcept {
        const std::size_t place = num_inside() - num_above_;
        if (place > 0) {
            return window_[place - 1];
        }
        return num_above_ == 0 ? (std::numeric_limits<std::uint64_t>::max)() : top_ + 1;
    }

    /// The old tokens between two bounds: an append moves the cut by max_append + 1 places at most.
    void find_flipped(std::uint64_t old_bound, std::size_t num_old) noexcept {
        num_flipped_ = 0;
        const std::size_t place = num_inside() - num_above_;
        for (std::size_t i = place; i-- > 0 && window_[i] < old_bound;) {
            note_flipped(window_[i], num_old);
        }
        for (std::size_t i = place; i < num_window_ && window_[i] >= old_bound; ++i) {
            note_flipped(window_[i], num_old);
        }
    }

    void note_flipped(std::uint64_t keyed, std::size_t num_old) noexcept {
        const token_index token = ~static_cast<token_index>(keyed);
        if (token < num_old) {
            KVCRUSH_ASSERT(num_flipped_ < flipped_.size());
            flipped_[num_flipped_++] = token;
        }
    }

    std::vector<float> scores_;
    /// (key, token) of the window, descending.
    std::vector<std::uint64_t> window_;
    std::array<token_index, 2 * max_append> flipped_{};
    double quantile_ = 0.5;
    std::size_t num_tokens_ = 0;
    std::size_t num_above_ = 0;
    std::size_t num_window_ = 0;
    std::size_t num_flipped_ = 0;
    /// The window holds all tokens from bottom_ to top_, both included.
    std::uint64_t top_ = 0;
    std::uint64_t bottom_ = 0;
    std::uint64_t bound_ = 0;
};

} // namespace v0
} // namespace kvcrush
