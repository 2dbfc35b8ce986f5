// SPDX-License-Identifier: Apache-2.0
/// @file
/// How many tokens a kv head may keep, and which of them are never up for discussion.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>

#include <algorithm>
#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// What is always kept: real models fall apart without their first tokens, and the last ones are the context of the
/// next.
///
///     |<- sink ->|<- middle ->|<- recent ->|        only the middle competes
struct area_sizes {
    /// Tokens kept at the start.
    std::size_t num_sink_tokens = 4;
    /// Tokens kept at the end.
    std::size_t num_recent_tokens = 32;

    friend constexpr bool operator==(const area_sizes&, const area_sizes&) = default;
};

/// The three areas of a sequence of a given length.
struct areas {
    std::size_t seq_len = 0;
    /// The middle is [middle_begin, middle_end).
    std::size_t middle_begin = 0;
    std::size_t middle_end = 0;

    constexpr areas() noexcept = default;

    /// Where the sizes exceed the sequence, sinks go first and the middle is empty.
    constexpr areas(const area_sizes& sizes, std::size_t length) noexcept : seq_len(length) {
        middle_begin = (std::min)(sizes.num_sink_tokens, length);
        middle_end = length - (std::min)(sizes.num_recent_tokens, length - middle_begin);
    }

    [[nodiscard]] constexpr std::size_t num_middle() const noexcept {
        return middle_end - middle_begin;
    }
    [[nodiscard]] constexpr std::size_t num_protected() const noexcept {
        return seq_len - num_middle();
    }

    /// The middle part of a row of scores.
    template <typename T>
    [[nodiscard]] constexpr std::span<T> middle(std::span<T> row) const noexcept {
        return row.subspan(middle_begin, num_middle());
    }
};

namespace detail {

/// floor(quota), but a quota that rounding left a hair below a whole number is that number: 28.999999999999996 is 29.
/// @pre quota is not negative and below 2^53
[[nodiscard]] constexpr std::size_t whole_tokens(double quota) noexcept {
    const auto whole = static_cast<std::size_t>(quota);
    const double missing = static_cast<double>(whole + 1) - quota;
    return missing <= 1e-9 * (1.0 + quota) ? whole + 1 : whole;
}

} // namespace detail

/// Tokens kept per kv head, sinks and recent tokens included.
class budget {
public:
    /// An absolute number of tokens per kv head.
    [[nodiscard]] static constexpr budget tokens(std::size_t count,
                                                 const area_sizes& sizes = {}) noexcept {
        return budget(count, 1.0, false, sizes);
    }

    /// A share of the sequence: floor(seq_len * ratio) tokens per kv head. A ratio k / seq_len keeps k tokens, although
    /// the product may lie a hair below.
    /// @param ratio  kept / seq_len, in (0, 1]
    /// @throws std::invalid_argument if ratio lies outside (0, 1] or is not a number
    [[nodiscard]] static constexpr budget keep_ratio(double ratio, const area_sizes& sizes = {}) {
        detail::require(ratio > 0.0 && ratio <= 1.0,
                        "budget: keep_ratio is ",
                        ratio,
                        "; it must lie in (0, 1]");
        return budget(0, ratio, true, sizes);
    }

    [[nodiscard]] constexpr const area_sizes& protected_areas() const noexcept { return sizes_; }

    /// Whether it is a share of the sequence, ratio(), or a number of tokens, count().
    [[nodiscard]] constexpr bool is_ratio() const noexcept { return is_ratio_; }
    [[nodiscard]] constexpr double ratio() const noexcept { return ratio_; }
    [[nodiscard]] constexpr std::size_t count() const noexcept { return count_; }

    /// Tokens kept per kv head of a sequence: all of them where the budget exceeds it or where it is no longer than
    /// sinks + recent.
    /// @throws std::invalid_argument if sinks + recent tokens do not fit the budget
    [[nodiscard]] constexpr std::size_t tokens_for(std::size_t seq_len) const {
        const std::size_t wanted = is_ratio_ ? detail::whole_tokens(share_of(seq_len)) : count_;
        const std::size_t always = areas(sizes_, seq_len).num_protected();
        if (always == seq_len) {
            return seq_len;
        }
        detail::require(wanted >= always,
                        "budget: ",
                        wanted,
                        " of ",
                        seq_len,
                        " tokens do not hold the protected ones (",
                        sizes_.num_sink_tokens,
                        " sinks + ",
                        sizes_.num_recent_tokens,
                        " recent); at least ",
                        always,
                        " are needed");
        return (std::min)(wanted, seq_len);
    }

    /// The same before rounding: seq_len * ratio, or the number of tokens, at most seq_len; protected tokens are not
    /// looked at. For rules that round in a way of their own.
    [[nodiscard]] constexpr double unrounded_for(std::size_t seq_len) const noexcept {
        return is_ratio_ ? share_of(seq_len) : static_cast<double>((std::min)(count_, seq_len));
    }

private:
    [[nodiscard]] constexpr double share_of(std::size_t seq_len) const noexcept {
        return static_cast<double>(seq_len) * ratio_;
    }

    constexpr budget(std::size_t count,
                     double ratio,
                     bool is_ratio,
                     const area_sizes& sizes) noexcept
        : count_(count), ratio_(ratio), is_ratio_(is_ratio), sizes_(sizes) {}

    std::size_t count_;
    double ratio_;
    bool is_ratio_;
    area_sizes sizes_;
};

} // namespace v0
} // namespace kvcrush
