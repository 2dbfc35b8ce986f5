// SPDX-License-Identifier: Apache-2.0
/// @file
/// Counting and ranking keys on any machine, token by token.
#pragma once

#include <kvcrush/config.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// The tokens of word `w` that are not taken; `num_tokens` in all.
[[nodiscard]] constexpr std::uint64_t candidates_of_word(std::span<const std::uint64_t> taken,
                                                         std::size_t w,
                                                         std::size_t num_tokens) noexcept {
    const std::size_t left = num_tokens - 64 * w;
    return ~taken[w] & (left < 64 ? (std::uint64_t{1} << left) - 1 : ~std::uint64_t{0});
}

/// The wanted ranks in [begin, begin + count).
[[nodiscard]] inline std::pair<const std::uint32_t*, const std::uint32_t*> ranks_between(
    std::span<const std::uint32_t> ranks, std::uint32_t begin, std::uint32_t count) noexcept {
    const std::uint32_t* const end = ranks.data() + ranks.size();
    const std::uint32_t* const first = std::lower_bound(ranks.data(), end, begin);
    return {first, std::lower_bound(first, end, begin + count)};
}

template <typename Key>
inline void count_keys_scalar(std::span<const Key> keys,
                              std::span<const std::uint64_t> taken,
                              std::span<std::uint32_t> counts) noexcept {
    std::fill(counts.begin(), counts.end(), 0U);
    for (std::size_t w = 0; w < taken.size(); ++w) {
        const Key* const word = keys.data() + 64 * w;
        for (std::uint64_t left = candidates_of_word(taken, w, keys.size()); left != 0;
             left &= left - 1) {
            ++counts[word[std::countr_zero(left)]];
        }
    }
}

/// One more than the largest distance.
inline constexpr std::size_t max_keys = 4097;

template <typename Key>
inline void mark_ranks_scalar(std::span<const Key> keys,
                              std::span<const std::uint64_t> taken,
                              std::span<const std::uint32_t> begins,
                              std::span<const std::uint32_t> counts,
                              std::span<const std::uint32_t> ranks,
                              std::span<std::uint64_t> marked) noexcept {
    // Candidates to pass over until the next wanted one, and which rank that has.
    std::array<std::uint32_t, max_keys> skips;
    std::array<std::uint32_t, max_keys> next;
    for (std::size_t key = 0; key < counts.size(); ++key) {
        const auto [first, last] = ranks_between(ranks, begins[key], counts[key]);
        next[key] = static_cast<std::uint32_t>(first - ranks.data());
        skips[key] = first != last ? *first - begins[key] : ~std::uint32_t{0};
    }
    for (std::size_t w = 0; w < taken.size(); ++w) {
        const Key* const word = keys.data() + 64 * w;
        for (std::uint64_t left = candidates_of_word(taken, w, keys.size()); left != 0;
             left &= left - 1) {
            const std::size_t key = word[std::countr_zero(left)];
            if (skips[key]-- == 0) {
                marked[w] |= left & (~left + 1);
                const std::size_t i = ++next[key];
                skips[key] = i < ranks.size() ? ranks[i] - ranks[i - 1] - 1 : ~std::uint32_t{0};
            }
        }
    }
}

template <typename Key>
inline void scatter_tokens_scalar(std::span<const Key> keys,
                                  std::span<const std::uint64_t> taken,
                                  std::span<std::uint32_t> cursors,
                                  std::span<std::uint32_t> out) noexcept {
    for (std::size_t w = 0; w < taken.size(); ++w) {
        for (std::uint64_t left = candidates_of_word(taken, w, keys.size()); left != 0;
             left &= left - 1) {
            const std::size_t t = 64 * w + static_cast<std::size_t>(std::countr_zero(left));
            out[cursors[keys[t]]++] = static_cast<std::uint32_t>(t);
        }
    }
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
