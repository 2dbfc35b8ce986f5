// SPDX-License-Identifier: Apache-2.0
/// @file
/// The k best scores as a bitmap, for float and double scores, exact and in linear time.
///
/// Doubles are rounded to float first. Rounding keeps the order, so the cut of the floats is the cut of the doubles
/// except among tokens that round to the float on the boundary: only those are compared as doubles.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/simd/bitmap.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// What accumulated scores may be made of.
template <typename T>
concept ScoreValue = std::same_as<T, float> || std::same_as<T, double>;

namespace detail {

/// Orders as the scores do: -0 equals +0, and every NaN is 0, below -infinity.
[[nodiscard]] constexpr std::uint64_t ordered_key64(double score) noexcept {
    const auto bits = std::bit_cast<std::uint64_t>(score);
    if ((bits & 0x7FFFFFFFFFFFFFFFU) > 0x7FF0000000000000U) {
        return 0;
    }
    return (bits >> 63) != 0 ? 0U - bits : bits | 0x8000000000000000U;
}

/// A boundary in the order of 64-bit keys: larger keys are inside, and equal ones before `tie_end`.
struct key_cut {
    std::uint64_t key;
    std::size_t tie_end;

    [[nodiscard]] constexpr bool contains(std::uint64_t own, std::size_t i) const noexcept {
        return own > key || (own == key && i < tie_end);
    }
};

/// The cut of the k largest of `key_of(0)` to `key_of(count - 1)`; of equal ones the earlier.
/// @pre  0 < k <= count
/// @note O(count) whatever the keys: each pass leaves 8 bits of the key less to find, so there are ten at most
template <typename KeyOf>
[[nodiscard]] key_cut find_key_cut(std::size_t count, std::size_t k, KeyOf key_of) noexcept {
    KVCRUSH_ASSERT(k > 0 && k <= count);
    std::uint64_t low = (std::numeric_limits<std::uint64_t>::max)();
    std::uint64_t high = 0;
    for (std::size_t i = 0; i < count; ++i) {
        low = (std::min)(low, std::uint64_t{key_of(i)});
        high = (std::max)(high, std::uint64_t{key_of(i)});
    }
    std::size_t above = 0; // keys larger than `high`
    while (low < high) {
        const std::uint64_t width = high - low;
        const int bits = 64 - std::countl_zero(width);
        const int shift = bits > 8 ? bits - 8 : 0;
        std::array<std::size_t, 256> buckets{};
        for (std::size_t i = 0; i < count; ++i) {
            const std::uint64_t offset = key_of(i) - low;
            if (offset <= width) {
                ++buckets[offset >> shift];
            }
        }
        std::size_t bucket = width >> shift;
        while (above + buckets[bucket] < k) {
            above += buckets[bucket];
            --bucket;
        }
        low += std::uint64_t{bucket} << shift;
        high = low + (std::min)(high - low, (std::uint64_t{1} << shift) - 1);
    }
    std::size_t i = 0;
    for (std::size_t left = k - above; left > 0; ++i) {
        left -= key_of(i) == low ? 1U : 0U;
    }
    return {low, i};
}

[[nodiscard]] inline std::size_t num_marked(std::span<const std::uint64_t> words) noexcept {
    std::size_t count = 0;
    for (const std::uint64_t word : words) {
        count += static_cast<std::size_t>(std::popcount(word));
    }
    return count;
}

/// Rounds to nearest; what is too large becomes infinity, NaN stays NaN.
inline void round_to_float(std::span<const double> in, std::span<float> out) noexcept {
    constexpr std::size_t step = 16; // a fixed count, so that -O2 makes vectors of it
    std::size_t i = 0;
    for (; i + step <= in.size(); i += step) {
        const double* const from = in.data() + i;
        float rounded[step];
        for (std::size_t j = 0; j < step; ++j) {
            rounded[j] = static_cast<float>(from[j]);
        }
        std::copy_n(rounded, step, out.data() + i);
    }
    for (; i < in.size(); ++i) {
        out[i] = static_cast<float>(in[i]);
    }
}

template <ScoreValue Score>
[[nodiscard]] constexpr std::size_t mark_best_scratch_bytes(std::size_t num_scores) noexcept {
    if constexpr (std::is_same_v<Score, float>) {
        return 0;
    } else {
        return scratch::bytes<float>(num_scores) +
               scratch::bytes<std::uint64_t>(simd::bitmap_words(num_scores)) +
               scratch::bytes<std::uint32_t>(num_scores);
    }
}

/// Marks the k best scores: the larger ones, of equal ones the earlier, NaN last.
/// @param[out] words  [simd::bitmap_words(scores.size())]
/// @pre  k <= scores.size() < 2^32
template <ScoreValue Score>
void mark_best(std::span<const Score> scores,
               std::size_t k,
               std::span<std::uint64_t> words,
               scratch memory) noexcept {
    KVCRUSH_ASSERT(k <= scores.size());
    if constexpr (std::is_same_v<Score, float>) {
        simd::mark_inside(scores, simd::find_rank_cut(scores, k), words);
    } else {
        const std::span<float> rounded = memory.take<float>(scores.size());
        round_to_float(scores, rounded);
        const simd::rank_cut cut = simd::find_rank_cut(rounded, k);
        simd::mark_inside(rounded, {cut.key, scores.size()}, words);
        if (num_marked(words) == k) {
            return; // nobody on the boundary stays out
        }
        const std::span<std::uint64_t> ties = memory.take<std::uint64_t>(words.size());
        std::copy(words.begin(), words.end(), ties.begin());
        simd::mark_inside(rounded, {cut.key, 0}, words);
        for (std::size_t w = 0; w < words.size(); ++w) {
            ties[w] &= ~words[w];
        }
        const std::span<std::uint32_t> tokens = memory.take<std::uint32_t>(scores.size());
        const std::size_t num_ties = simd::write_marked(ties, tokens);
        const auto key_of = [&](std::size_t i) noexcept {
            return ordered_key64(scores[tokens[i]]);
        };
        const key_cut exact = find_key_cut(num_ties, k - num_marked(words), key_of);
        for (std::size_t i = 0; i < num_ties; ++i) {
            words[tokens[i] / 64] |= std::uint64_t{exact.contains(key_of(i), i)}
                                     << (tokens[i] % 64);
        }
    }
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
