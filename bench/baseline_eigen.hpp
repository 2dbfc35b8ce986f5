// SPDX-License-Identifier: Apache-2.0
/// @file
/// Products of matrices as users of Eigen write them, f32, one thread. Row-major throughout.
#pragma once

#include <cstddef>

namespace kvcrush::bench {

/// logits[r, t] = sum over k of queries[r, k] * keys[t, k]
struct eigen_logits {
    const float* queries; ///< [num_queries, head_dim]
    const float* keys;    ///< [num_tokens, head_dim]
    float* logits;        ///< [num_queries, num_tokens]
    std::size_t num_queries;
    std::size_t num_tokens;
    std::size_t head_dim;
};
void native_eigen_logits(const eigen_logits& work); ///< -O3 -march=native
void avx2_eigen_logits(const eigen_logits& work);   ///< -O2 -mavx2 -mfma

/// A slice of the prefill of one layer of a Llama, in f32: what an engine does for `slice` of its tokens. The values
/// mean nothing; the shapes do.
struct prefill_shape {
    std::size_t hidden;
    std::size_t intermediate;
    std::size_t num_q_heads;
    std::size_t num_kv_heads;
    std::size_t head_dim;

    /// Operations of the projections and the gated MLP, per token.
    [[nodiscard]] double matmul_flop() const noexcept {
        const auto wide = static_cast<double>(hidden);
        const auto heads = static_cast<double>(2 * num_q_heads + 2 * num_kv_heads);
        return 2.0 * wide *
               (heads * static_cast<double>(head_dim) + 3.0 * static_cast<double>(intermediate));
    }
    /// Operations of the attention of one token to `keys` keys.
    [[nodiscard]] double attention_flop(double keys) const noexcept {
        return 4.0 * static_cast<double>(num_q_heads * head_dim) * keys;
    }
};

/// @param weights  [intermediate, hidden], used for every projection: only what is multiplied matters
/// @param in       [slice, hidden]
/// @param out      [slice, max(2 * intermediate, (num_q_heads + 2 * num_kv_heads) * head_dim)]
void native_eigen_matmuls(const prefill_shape& shape,
                          std::size_t slice,
                          const float* weights,
                          const float* in,
                          float* out);

/// @param keys     [num_keys, head_dim], of every head, and values likewise
/// @param logits   [slice, num_keys]
/// @param in       [slice, hidden]
void native_eigen_attention(const prefill_shape& shape,
                            std::size_t slice,
                            std::size_t num_keys,
                            const float* keys,
                            const float* values,
                            const float* in,
                            float* logits,
                            float* out);

} // namespace kvcrush::bench
