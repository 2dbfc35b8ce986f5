// SPDX-License-Identifier: Apache-2.0
/// @file
/// Decode attention the obvious way.
#pragma once

#include <cstddef>

namespace kvcrush::bench {

/// One query per head, keys and values [num_kv_heads, tokens, dim], all fp32. Each query head goes over the rows of its kv
/// head on its own: all logits, softmax, weighted sum.
/// @param logits  [tokens]
/// @param output  [num_q_heads, dim]
void attend_naively(const float* queries,
                    const float* keys,
                    const float* values,
                    std::size_t num_q_heads,
                    std::size_t num_kv_heads,
                    std::size_t tokens,
                    std::size_t dim,
                    float* logits,
                    float* output);

} // namespace kvcrush::bench
