// SPDX-License-Identifier: Apache-2.0
/// @file
/// Whole tokens out of real-valued shares, with a total that is exact.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>

#include <algorithm>
#include <cmath>
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
        // A quota that rounding left a hair below a whole number is that number: 2.9999999999 of 3.
        const double nearest = std::nearbyint(ideal[i]);
        const double whole = std::abs(ideal[i] - nearest) <= 1e-9 * (1.0 + ideal[i])
                                 ? nearest
                                 : std::floor(ideal[i]);
        counts[i] = (std::min)(static_cast<std::size_t>(whole), left);
        left -= counts[i];
        fractions[i] = {(std::max)(ideal[i] - whole, 0.0), static_cast<std::uint32_t>(i)};
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
    double largest = 0.0;
    for (const double weight : weights) {
        largest = weight > largest ? weight : largest;
    }
    // Scaled by the largest, so that no sum of weights overflows.
    largest = (std::min)(largest, (std::numeric_limits<double>::max)());
    const auto scaled = [&](std::size_t i) {
        return weights[i] > 0.0 ? (std::min)(weights[i] / largest, 1.0) : 0.0;
    };

    std::fill(counts.begin(), counts.end(), lowest);
    std::vector<std::size_t> open(n);
    std::iota(open.begin(), open.end(), std::size_t{0});
    std::vector<double> quota(n);
    std::size_t left = total - lowest * n;
    const std::size_t room = highest - lowest;
    while (left > 0) {
        double sum = 0.0;
        for (const std::size_t i : open) {
            sum += scaled(i);
        }
        const auto quota_of = [&](std::size_t i) {
            return static_cast<double>(left) *
                   (sum > 0.0 ? scaled(i) / sum : 1.0 / static_cast<double>(open.size()));
        };
        quota.resize(open.size());
        std::transform(open.begin(), open.end(), quota.begin(), quota_of);
        std::vector<std::size_t> still_open;
        for (std::size_t k = 0; k < open.size(); ++k) {
            if (quota[k] >= static_cast<double>(room) && left >= room) {
                counts[open[k]] = highest;
                left -= room;
            } else {
                still_open.push_back(open[k]);
            }
        }
        if (still_open.size() < open.size()) {
            open.swap(still_open);
            continue;
        }
        std::vector<std::size_t> extra(open.size());
        std::vector<detail::token_fraction> fractions(open.size());
        detail::round_to_total(quota, left, extra, fractions);
        for (std::size_t k = 0; k < open.size(); ++k) {
            counts[open[k]] += extra[k];
        }
        left = 0;
    }
}

} // namespace v0
} // namespace kvcrush
