// SPDX-License-Identifier: Apache-2.0
/// @file
/// Steps of scoring and selecting, the usual way: -O3, no -march.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvcrush::bench {

/// sums[t] += softmax(logits)[t], by std::exp. Overwrites the logits.
void exp_softmax_add(float* logits, std::size_t size, float* sums);

/// The indices of the k largest scores: std::nth_element over pairs of score and index, then a pass over the first k.
/// @param pairs  room for num_tokens pairs, 8 bytes each
void nth_element_top_k(
    const float* scores, std::size_t num_tokens, std::size_t k, void* pairs, std::uint32_t* out);

/// The same by std::partial_sort of indices.
void partial_sort_top_k(const float* scores,
                        std::size_t num_tokens,
                        std::size_t k,
                        std::uint32_t* order,
                        std::uint32_t* out);

/// Row kept[i] of `row_bytes` bytes becomes row i, by memcpy of a size known at run time.
void copy_kept_rows(std::byte* rows,
                    std::size_t row_bytes,
                    const std::uint32_t* kept,
                    std::size_t num_kept);

} // namespace kvcrush::bench
