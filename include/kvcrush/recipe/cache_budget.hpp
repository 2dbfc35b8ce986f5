// SPDX-License-Identifier: Apache-2.0
/// @file
/// How much of a cache stays, in tokens or in bytes.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/recipe/row_storage.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace kvcrush {
inline namespace v0 {

/// What one kv head has seen and how wide its rows are: enough to turn bytes into tokens.
struct head_extent {
    std::size_t tokens_seen = 0;
    std::size_t key_dim = 0;
    std::size_t value_dim = 0;

    /// Its rows in f16 [bytes].
    [[nodiscard]] double f16_bytes() const noexcept {
        return 2.0 * static_cast<double>(tokens_seen * (key_dim + value_dim));
    }
};

/// A number of tokens per kv head or a share of those seen, or a number of bytes or a share of those in f16. Sinks and
/// recent tokens are included, metadata is as well.
class cache_budget {
public:
    enum class unit : std::uint8_t { tokens, token_share, bytes, byte_share };

    /// All tokens, unless somebody says otherwise: with_ratio().
    constexpr cache_budget() noexcept = default;

    [[nodiscard]] static constexpr cache_budget everything() noexcept {
        return {unit::token_share, 1.0, false};
    }
    /// Tokens per kv head, on average over the heads.
    [[nodiscard]] static constexpr cache_budget tokens(std::size_t count) noexcept {
        return {unit::tokens, static_cast<double>(count), false};
    }
    /// @param ratio  kept / seen, in (0, 1]
    /// @throws std::invalid_argument if it lies elsewhere
    [[nodiscard]] static constexpr cache_budget keep_ratio(double ratio) {
        return {unit::token_share, checked(ratio, "keep_ratio"), false};
    }
    /// Bytes of the whole cache, all layers and heads.
    [[nodiscard]] static constexpr cache_budget bytes(std::size_t count) noexcept {
        return {unit::bytes, static_cast<double>(count), false};
    }
    /// @param ratio  held / (all tokens seen, in f16), in (0, 1]
    /// @throws std::invalid_argument if it lies elsewhere
    [[nodiscard]] static constexpr cache_budget byte_ratio(double ratio) {
        return {unit::byte_share, checked(ratio, "byte_ratio"), false};
    }
    /// Bytes, as many as somebody says later: with_ratio().
    [[nodiscard]] static constexpr cache_budget of_bytes() noexcept {
        return {unit::byte_share, 1.0, true};
    }

    [[nodiscard]] constexpr unit counts() const noexcept { return unit_; }
    [[nodiscard]] constexpr double value() const noexcept { return value_; }
    /// Whether it leaves the amount to whoever runs it.
    [[nodiscard]] constexpr bool is_open() const noexcept { return open_; }
    [[nodiscard]] constexpr bool counts_bytes() const noexcept {
        return unit_ == unit::bytes || unit_ == unit::byte_share;
    }

    /// The same unit at this ratio where the amount was left open; otherwise what it is.
    /// @throws std::invalid_argument if the ratio lies outside (0, 1]
    [[nodiscard]] constexpr cache_budget with_ratio(double ratio) const {
        return open_ ? cache_budget(unit_, checked(ratio, "keep_ratio"), true) : *this;
    }

    /// Tokens that a kv head may keep on average, as a share of those seen, in [0, 1]: bytes buy as many as `rows` leaves
    /// room for.
    /// @param num_heads  kv heads of all layers, for budgets in absolute bytes
    [[nodiscard]] double token_share(const row_storage& rows,
                                     const head_extent& head,
                                     std::size_t num_heads) const noexcept {
        const auto seen = static_cast<double>((std::max)(head.tokens_seen, std::size_t{1}));
        switch (unit_) {
        case unit::tokens: return (std::min)(value_ / seen, 1.0);
        case unit::token_share: return value_;
        case unit::bytes:
            return affordable(
                rows,
                head,
                value_ / static_cast<double>((std::max)(num_heads, std::size_t{1})));
        default: return affordable(rows, head, value_ * head.f16_bytes());
        }
    }

    friend constexpr bool operator==(const cache_budget&, const cache_budget&) = default;

private:
    constexpr cache_budget(unit of, double value, bool open) noexcept
        : unit_(of), open_(open), value_(value) {}

    [[nodiscard]] static constexpr double checked(double ratio, const char* what) {
        detail::require(ratio > 0.0 && ratio <= 1.0,
                        "cache_budget: ",
                        what,
                        " is ",
                        ratio,
                        "; it must lie in (0, 1]");
        return ratio;
    }

    /// Sinks, the mean key and a bit per token and store for positions come before the other rows.
    [[nodiscard]] static double
    affordable(const row_storage& rows, const head_extent& head, double bytes) noexcept {
        const auto seen = static_cast<double>((std::max)(head.tokens_seen, std::size_t{1}));
        const auto num_words = static_cast<double>(head.tokens_seen / 64 + 1);
        const double each = rows.row_bytes(head.key_dim, head.value_dim);
        double fixed = 8.0 * num_words;
        double sinks = 0.0;
        if (rows.encodes()) {
            sinks = static_cast<double>((std::min)(rows.num_sink_tokens, head.tokens_seen));
            fixed += sinks * rows.sinks.row_bytes(head.key_dim, head.value_dim) +
                     8.0 * num_words * static_cast<double>(rows.tiers.size() - 1) + 8.0;
            fixed += rows.centres_keys() ? 4.0 * static_cast<double>(head.key_dim) : 0.0;
        }
        const double tokens = sinks + (std::max)(bytes - fixed, 0.0) / each;
        return (std::min)(tokens / seen, 1.0);
    }

    unit unit_ = unit::token_share;
    bool open_ = true;
    double value_ = 1.0;
};

} // namespace v0
} // namespace kvcrush
