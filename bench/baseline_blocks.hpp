// SPDX-License-Identifier: Apache-2.0
/// @file
/// Block-level KVCrush as OpenVINO GenAI publishes it, written anew from its description and no faster than that:
/// one size_t per bit, half of all tokens sorted, a search through the evicted blocks for every block.
#pragma once

#include <cstddef>
#include <vector>

namespace kvcrush::bench {

/// Each with the mean of all blocks as its anchor, -O3, no -march.
struct published_blocks {
    std::size_t block_size = 16;

    /// Hamming distance of each block to the anchor.
    /// @param scores  [num_tokens], a multiple of block_size
    [[nodiscard]] std::vector<std::size_t> distances(const double* scores,
                                                     std::size_t num_tokens) const;

    /// The blocks of `evicted` that stay after all, at most `budget`.
    [[nodiscard]] std::vector<std::size_t> retain(const double* scores,
                                                  std::size_t num_tokens,
                                                  const std::vector<std::size_t>& evicted,
                                                  std::size_t budget) const;
};

} // namespace kvcrush::bench
