// SPDX-License-Identifier: Apache-2.0
/// @file
/// A selection that may have been refused.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>

#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// What a compressor answers: use it as the selection it stands for. Where the compressor refused the sizes it was given,
/// that throws, so that nobody takes a refusal for "keep nothing".
///
///     compact(kv, crush.select(kv, queries));                  // throws if refused; nothing moves
///     const selection& kept = crush.select(kv, queries);       // likewise
///     if (const select_result kept = crush.select(kv, queries); !kept.refused()) ...
/// Refers to the compressor's memory: valid until its next call.
class [[nodiscard]] select_result {
public:
    /// A refusal.
    constexpr select_result() noexcept = default;
    constexpr explicit select_result(const selection& kept) noexcept : kept_(&kept) {}

    [[nodiscard]] constexpr bool refused() const noexcept { return kept_ == nullptr; }

    /// @throws std::invalid_argument if the compressor refused
    [[nodiscard]] const selection& value() const {
        detail::require(!refused(),
                        "compressor: select() was given another size than the planned one; plan() "
                        "again when the size of the cache changes");
        return *kept_;
    }
    /// The same.
    operator const selection&() const { return value(); } // NOLINT(google-explicit-constructor)

    /// As those of a selection; they throw as value() does.
    [[nodiscard]] std::span<const token_index> kept(std::size_t head) const {
        return value().kept(head);
    }
    [[nodiscard]] std::size_t num_kv_heads() const { return value().num_kv_heads(); }
    [[nodiscard]] std::size_t total() const { return value().total(); }

private:
    const selection* kept_ = nullptr;
};

} // namespace v0
} // namespace kvcrush
