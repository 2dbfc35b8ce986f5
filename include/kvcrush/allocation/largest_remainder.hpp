// SPDX-License-Identifier: Apache-2.0
/// @file
/// Whole tokens out of real-valued shares, with a total that is exact.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// What a share has above its whole tokens.
struct token_fraction {
    double fraction;
    std::uint32_t index;
};

/// Rounds shares down, then gives the missing tokens to the largest fractions; of equal ones to the lower index.
/// @param      ideal      not negative, finite, their sum being `total` but for rounding errors
/// @param[out] counts     [ideal.size()], their sum is exactly `total`
/// @param      fractions  [ideal.size()] memory
inline void round_to_total(std::span<const double> ideal,
                           std::size_t total,
                           std::span<std::size_t> counts,
                           std::span<token_fraction> fractions) noexcept {
    KVCRUSH_ASSERT(counts.size() == ideal.size() && fractions.size() == ideal.size());
    KVCRUSH_ASSERT(ideal.size() <= (std::numeric_limits<std::uint32_t>::max)());
    if (ideal.empty()) {
        return;
    }
    std::size_t left = total;
    for (std::size_t i = 0; i < ideal.size(); ++i) {
        const std::size_t whole = whole_tokens(ideal[i]);
        counts[i] = (std::min)(whole, left);
        left -= counts[i];
        fractions[i] = {(std::max)(ideal[i] - static_cast<double>(whole), 0.0),
                        static_cast<std::uint32_t>(i)};
    }
    const auto comes_first = [](const token_fraction& a, const token_fraction& b) noexcept {
        return a.fraction != b.fraction ? a.fraction > b.fraction : a.index < b.index;
    };
    while (left > 0) { // once, unless the shares do not add up to the total
        const std::size_t round = (std::min)(left, fractions.size());
        std::nth_element(fractions.begin(),
                         fractions.begin() + static_cast<std::ptrdiff_t>(round - 1),
                         fractions.end(),
                         comes_first);
        for (std::size_t i = 0; i < round; ++i) {
            ++counts[fractions[i].index];
        }
        left -= round;
    }
}

/// Those that are not full yet, and what comes to each of them by weight.
class share_round {
public:
    explicit share_round(std::span<const double> weights)
        : weights_(weights), open_(weights.size()), quota_(weights.size()) {
        std::iota(open_.begin(), open_.end(), std::size_t{0});
        for (const double weight : weights) {
            largest_ = weight > largest_ ? weight : largest_;
        }
        largest_ = (std::min)(largest_, (std::numeric_limits<double>::max)());
    }

    /// Gives `room` to each whose quota of `left` is as much, and closes it.
    /// @return whether there was one
    bool fill(std::size_t& left, std::size_t room, std::span<std::size_t> counts) {
        divide(left);
        std::vector<std::size_t> still_open;
        for (std::size_t k = 0; k < open_.size(); ++k) {
            if (quota_[k] >= static_cast<double>(room) && left >= room) {
                counts[open_[k]] += room;
                left -= room;
            } else {
                still_open.push_back(open_[k]);
            }
        }
        const bool filled = still_open.size() < open_.size();
        open_.swap(still_open);
        return filled;
    }

    /// Gives the rest to those that are open, rounded.
    void finish(std::size_t left, std::span<std::size_t> counts) {
        divide(left);
        std::vector<std::size_t> extra(open_.size());
        std::vector<token_fraction> fractions(open_.size());
        round_to_total(quota_, left, extra, fractions);
        for (std::size_t k = 0; k < open_.size(); ++k) {
            counts[open_[k]] += extra[k];
        }
    }

private:
    void divide(std::size_t left) {
        double sum = 0.0;
        for (const std::size_t i : open_) {
            sum += scaled(i);
        }
        quota_.resize(open_.size());
        std::transform(open_.begin(), open_.end(), quota_.begin(), [&](std::size_t i) {
            return static_cast<double>(left) *
                   (sum > 0.0 ? scaled(i) / sum : 1.0 / static_cast<double>(open_.size()));
        });
    }

    /// By the largest, so that no sum of weights overflows.
    [[nodiscard]] double scaled(std::size_t i) const noexcept {
        return weights_[i] > 0.0 ? (std::min)(weights_[i] / largest_, 1.0) : 0.0;
    }

    std::span<const double> weights_;
    std::vector<std::size_t> open_;
    std::vector<double> quota_;
    double largest_ = 0.0;
};

} // namespace detail

/// Shares `total` tokens out in proportion to weights: everybody gets `lowest`, then a part of the rest by weight,
/// nobody more than `highest`. What a full one cannot take goes to the others, again by weight.
///
///     weights 0, 0.4, 1, 2    total 40, lowest 4, highest 16    ->    4, 7, 13, 16
///
/// Rounded by largest remainder: the sum is exact, and of equal remainders the lower index gets the token. A weight
/// that is negative or NaN counts as 0; where all of them are 0 the shares are equal.
/// @param[out] counts  [weights.size()]
/// @throws std::invalid_argument if total lies outside [lowest, highest] times the number of weights
/// @note   O(weights^2) at worst, as every round fills one weight at least; not for hot paths: takes memory
inline void share_out(std::span<const double> weights,
                      std::size_t total,
                      std::size_t lowest,
                      std::size_t highest,
                      std::span<std::size_t> counts) {
    using detail::require;
    const std::size_t n = weights.size();
    require(counts.size() == n,
            "share_out: counts hold ",
            counts.size(),
            " elements for ",
            n,
            " weights");
    require(n == 0 ? total == 0
                   : lowest <= highest && lowest <= total / n &&
                         (highest >= total || total <= highest * n),
            "share_out: ",
            total,
            " tokens over ",
            n,
            " do not fit between ",
            lowest,
            " and ",
            highest,
            " each");
    detail::share_round round(weights);
    std::fill(counts.begin(), counts.end(), lowest);
    std::size_t left = total - lowest * n;
    while (left > 0 && round.fill(left, highest - lowest, counts)) {
    }
    round.finish(left, counts);
}

} // namespace v0
} // namespace kvcrush
