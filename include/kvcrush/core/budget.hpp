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

/// Tokens kept per kv head, sinks and recent tokens included.
class budget {
public:
    /// An absolute number of tokens per kv head.
    [[nodiscard]] static constexpr budget tokens(std::size_t count,
                                                 const area_sizes& sizes = {}) noexcept {
        return budget(count, 1.0, false, sizes);
    }

    /// A share of the sequence: floor(seq_len * ratio) tokens per kv head.
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
        const std::size_t wanted =
            is_ratio_ ? static_cast<std::size_t>(static_cast<double>(seq_len) * ratio_) : count_;
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

private:
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
