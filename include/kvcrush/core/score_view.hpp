// SPDX-License-Identifier: Apache-2.0
/// @file
/// Scores as an engine holds them: any of the element types, in either order.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/layout.hpp>
#include <kvcrush/core/types.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// Distances between neighbouring scores [elements].
struct score_strides {
    std::size_t head = 0;
    std::size_t token = 1;

    friend constexpr bool operator==(const score_strides&, const score_strides&) = default;
};

/// Non-owning, read-only scores of num_heads x seq_len with any strides. Trivially copyable; valid as long as the
/// caller's memory. NaN counts as lowest.
///
///     const auto scores = score_view<f16>::tokens_by_heads(memory, num_heads, seq_len);
/// @tparam T  float, f16 or bf16
template <Element T>
    requires(!std::is_const_v<T>)
class score_view {
public:
    using element_type = T;

    constexpr score_view() noexcept = default;

    /// @param scores  all elements; may be longer than the extents need
    /// @throws std::invalid_argument if `scores` is shorter than extents and strides reach, if a stride is 0 along an
    ///         axis with more than one element, or if sizes overflow
    constexpr score_view(std::span<const T> scores,
                         std::size_t num_heads,
                         std::size_t seq_len,
                         const score_strides& strides)
        : data_(scores.data()), num_heads_(num_heads), seq_len_(seq_len), strides_(strides) {
        detail::require(seq_len < (std::numeric_limits<std::uint32_t>::max)(),
                        "score_view: seq_len is ",
                        seq_len,
                        "; at most 4294967294 tokens are supported");
        const std::size_t needed = detail::required_elements(
            num_heads, seq_len, 1, {strides.head, strides.token, 1}, "score_view");
        detail::require(scores.size() >= needed,
                        "score_view: scores hold ",
                        scores.size(),
                        " elements; the extents need ",
                        needed);
    }

    /// fp32 scores as the library makes them.
    template <typename U>
        requires(std::is_same_v<T, float> && std::is_same_v<std::remove_const_t<U>, float>)
    constexpr score_view(const basic_head_scores<U>& scores) noexcept
        : data_(scores.values().data()),
          num_heads_(scores.num_heads()),
          seq_len_(scores.seq_len()),
          strides_{scores.seq_len(), 1} {}

    /// [num_heads, seq_len], row-major.
    /// @throws std::invalid_argument if `scores` holds fewer elements
    [[nodiscard]] static constexpr score_view
    heads_by_tokens(std::span<const T> scores, std::size_t num_heads, std::size_t seq_len) {
        return {scores, num_heads, seq_len, {seq_len, 1}};
    }

    /// [seq_len, num_heads], row-major.
    /// @throws std::invalid_argument if `scores` holds fewer elements
    [[nodiscard]] static constexpr score_view
    tokens_by_heads(std::span<const T> scores, std::size_t num_heads, std::size_t seq_len) {
        return {scores, num_heads, seq_len, {1, num_heads}};
    }

    [[nodiscard]] constexpr std::size_t num_heads() const noexcept { return num_heads_; }
    [[nodiscard]] constexpr std::size_t seq_len() const noexcept { return seq_len_; }
    [[nodiscard]] constexpr const score_strides& strides() const noexcept { return strides_; }
    /// The tokens of a head lie together.
    [[nodiscard]] constexpr bool rows_are_contiguous() const noexcept {
        return strides_.token == 1 || seq_len_ < 2;
    }

    /// @pre head < num_heads, token < seq_len
    [[nodiscard]] constexpr T at(std::size_t head, std::size_t token) const noexcept {
        KVCRUSH_ASSERT(head < num_heads_ && token < seq_len_);
        return data_[head * strides_.head + token * strides_.token];
    }

    /// Where that score lies; the others follow at the strides.
    [[nodiscard]] constexpr const T* address(std::size_t head, std::size_t token) const noexcept {
        KVCRUSH_ASSERT(head < num_heads_ && token < seq_len_);
        return data_ + head * strides_.head + token * strides_.token;
    }

    /// @pre rows_are_contiguous(), head < num_heads
    [[nodiscard]] constexpr std::span<const T> row(std::size_t head) const noexcept {
        KVCRUSH_ASSERT(head < num_heads_ && rows_are_contiguous());
        return seq_len_ == 0 ? std::span<const T>{}
                             : std::span<const T>{data_ + head * strides_.head, seq_len_};
    }

private:
    const T* data_ = nullptr;
    std::size_t num_heads_ = 0;
    std::size_t seq_len_ = 0;
    score_strides strides_;
};

static_assert(std::is_trivially_copyable_v<score_view<f16>>);

} // namespace v0
} // namespace kvcrush
