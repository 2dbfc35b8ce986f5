// SPDX-License-Identifier: Apache-2.0
/// @file
/// The place of each score in the order of all.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/simd/ordered_key.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Bytes of scratch memory that score_ranks needs for that many scores.
[[nodiscard]] constexpr std::size_t score_ranks_bytes(std::size_t size) noexcept {
    return 2 * scratch::bytes<std::uint64_t>(size);
}

/// Ranks from 0 for the best: the larger score first, of equal ones the earlier, NaN last.
/// @param[in]  scores  fewer than 2^32
/// @param[out] ranks   [scores.size()], each of 0 ... size - 1 once
/// @note  linear: three passes of a radix sort
inline void score_ranks(std::span<const float> scores,
                        std::span<std::uint32_t> ranks,
                        scratch memory) noexcept {
    KVCRUSH_ASSERT(ranks.size() == scores.size());
    constexpr unsigned digit_bits = 11;
    constexpr std::size_t num_digits = std::size_t{1} << digit_bits;
    std::span<std::uint64_t> from = memory.take<std::uint64_t>(scores.size());
    std::span<std::uint64_t> to = memory.take<std::uint64_t>(scores.size());
    for (std::size_t i = 0; i < scores.size(); ++i) {
        // Complements: the best score has the smallest key. The sort is stable, so ties keep their order.
        from[i] = std::uint64_t{~simd::ordered_key(scores[i])} << 32 | i;
    }
    for (unsigned shift = 32; shift < 64; shift += digit_bits) {
        std::array<std::uint32_t, num_digits> begins{};
        for (const std::uint64_t entry : from) {
            ++begins[entry >> shift & (num_digits - 1)];
        }
        std::uint32_t sum = 0;
        for (std::uint32_t& begin : begins) {
            const std::uint32_t count = begin;
            begin = sum;
            sum += count;
        }
        for (const std::uint64_t entry : from) {
            to[begins[entry >> shift & (num_digits - 1)]++] = entry;
        }
        std::swap(from, to);
    }
    for (std::size_t rank = 0; rank < from.size(); ++rank) {
        ranks[static_cast<std::uint32_t>(from[rank])] = static_cast<std::uint32_t>(rank);
    }
}

} // namespace v0
} // namespace kvcrush
