// SPDX-License-Identifier: Apache-2.0
/// @file
/// The usual way with the standard library, -O3, no -march.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvcrush::bench {

/// Bit h of codes[t] is set where scores[h, t] is among the best half of its head: std::nth_element over a copy of each
/// row, then a comparison per head and token.
/// @param scores      [num_heads, num_tokens]; at most 32 heads
/// @param thresholds  [num_heads], written
/// @param row         [num_tokens], written
void nth_element_codes(const float* scores,
                       std::size_t num_heads,
                       std::size_t num_tokens,
                       float* thresholds,
                       float* row,
                       std::uint32_t* codes);

/// Tokens whose bit is not set in `taken`, by std::stable_sort of their distances. Returns how many there are.
std::size_t stable_sort_order(const std::uint8_t* distances,
                              const std::uint64_t* taken,
                              std::size_t num_tokens,
                              std::uint32_t* order);

} // namespace kvcrush::bench
