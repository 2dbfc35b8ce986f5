// SPDX-License-Identifier: Apache-2.0
/// @file
/// New tokens look at what a layer's cache holds.
#pragma once

#include <kvcrush/core/types.hpp>

#include "kv_cache.hpp"
#include "matrix.hpp"

#include <cstddef>
#include <vector>

namespace lab {

/// Memory that attention works in, kept from call to call. One per model run.
struct attention_workspace {
    struct per_thread {
        float_buffer queries;
        float_buffer scores;
        float_buffer sums;
        float_buffer rows;
        float_buffer output;
    };
    std::vector<per_thread> threads;
    float_buffer stored; ///< of kvcrush::attend
};

/// The new tokens: where their queries lie and where the results go.
struct attention_batch {
    std::size_t num_tokens;
    std::size_t num_q_heads;
    const float* queries;     ///< after RoPE; token t, head h at t * query_stride + h * head_dim
    std::size_t query_stride; ///< [floats]
    float* output;            ///< [num_tokens, num_q_heads, head_dim]
};

/// Softmax attention of the new tokens over the cache, whose last num_tokens rows per head are their own.
///
///     output[t, h] = sum over rows r of softmax_r(q[t, h] . key[r] / sqrt(head_dim)) * value[r]
///
/// Token t sees every row that was there before, unless hidden, and the new rows up to its own. Reads the rows as
/// stored, so the rounding of an f16 cache is felt. One token, as in decoding, is attended by kvcrush::attend; many, as in
/// a prompt, by matrix products, where scores exist for a block of queries at a time.
template <kvcrush::Element T>
void attend(const layer_cache<T>& cache,
            const attention_batch& batch,
            attention_workspace& workspace);

extern template void
attend(const layer_cache<float>&, const attention_batch&, attention_workspace&);
extern template void
attend(const layer_cache<kvcrush::f16>&, const attention_batch&, attention_workspace&);

/// The same over encoded rows, as they lie.
void attend(kvcrush::kv_sequence& cache,
            const attention_batch& batch,
            attention_workspace& workspace);

} // namespace lab
