// SPDX-License-Identifier: Apache-2.0
/// @file
/// Sets of tokens on any machine.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/rank_cut_search.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// The scores of one word that are inside the cut, from word `w` on; at most 64.
[[nodiscard]] inline std::uint64_t
word_inside(std::span<const float> scores, rank_cut cut, std::size_t w) noexcept {
    std::uint64_t word = 0;
    const std::size_t num = (std::min)(scores.size() - 64 * w, std::size_t{64});
    for (std::size_t t = 0; t < num; ++t) {
        word |= std::uint64_t{cut.contains(scores[64 * w + t], 64 * w + t)} << t;
    }
    return word;
}

inline void mark_inside_scalar(std::span<const float> scores,
                               rank_cut cut,
                               std::span<std::uint64_t> words) noexcept {
    for (std::size_t w = 0; w < words.size(); ++w) {
        words[w] = word_inside(scores, cut, w);
    }
}

/// Writes the tokens of one word from out[num] on, as many as there is room for.
inline std::size_t write_word(std::uint64_t word,
                              std::uint32_t first,
                              std::span<std::uint32_t> out,
                              std::size_t num) noexcept {
    for (; word != 0 && num < out.size(); word &= word - 1) {
        out[num++] = first + static_cast<std::uint32_t>(std::countr_zero(word));
    }
    return num;
}

inline std::size_t write_marked_scalar(std::span<const std::uint64_t> words,
                                       std::span<std::uint32_t> out,
                                       std::uint32_t offset) noexcept {
    std::size_t num = 0;
    for (std::size_t w = 0; w < words.size(); ++w) {
        num = write_word(words[w], offset + static_cast<std::uint32_t>(64 * w), out, num);
    }
    return num;
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
