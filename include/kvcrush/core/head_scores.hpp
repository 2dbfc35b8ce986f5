// SPDX-License-Identifier: Apache-2.0
/// @file
/// Importance per head and token.
#pragma once

#include <kvcrush/config.hpp>

#include <cstddef>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// Non-owning [num_heads, seq_len] matrix of scores, row-major. A higher score stays longer, NaN counts as lowest.
/// num_heads is the number of query heads for what a head pays (before reduction), of kv heads for what decides.
template <typename T>
class basic_head_scores {
public:
    constexpr basic_head_scores() noexcept = default;

    /// @pre values.size() == num_heads * seq_len
    constexpr basic_head_scores(std::span<T> values,
                                std::size_t num_heads,
                                std::size_t seq_len) noexcept
        : values_(values), num_heads_(num_heads), seq_len_(seq_len) {
        KVCRUSH_ASSERT(values.size() == num_heads * seq_len);
    }

    /// A read-only view of writable scores.
    template <typename U>
        requires(std::is_const_v<T> && std::is_same_v<const U, T>)
    constexpr basic_head_scores(const basic_head_scores<U>& other) noexcept
        : values_(other.values()), num_heads_(other.num_heads()), seq_len_(other.seq_len()) {}

    [[nodiscard]] constexpr std::span<T> values() const noexcept { return values_; }
    [[nodiscard]] constexpr std::size_t num_heads() const noexcept { return num_heads_; }
    [[nodiscard]] constexpr std::size_t seq_len() const noexcept { return seq_len_; }
    [[nodiscard]] constexpr std::span<T> row(std::size_t head) const noexcept {
        KVCRUSH_ASSERT(head < num_heads_);
        return values_.subspan(head * seq_len_, seq_len_);
    }

private:
    std::span<T> values_;
    std::size_t num_heads_ = 0;
    std::size_t seq_len_ = 0;
};

using head_scores = basic_head_scores<float>;
using const_head_scores = basic_head_scores<const float>;

} // namespace v0
} // namespace kvcrush
