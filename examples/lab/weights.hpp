// SPDX-License-Identifier: Apache-2.0
/// @file
/// A Llama model's numbers: its shape, and its weights as floats.
#pragma once

#include "gguf.hpp"
#include "matrix.hpp"

#include <cstddef>
#include <vector>

namespace lab {

struct model_config {
    std::size_t num_layers = 0;
    std::size_t num_q_heads = 0;
    std::size_t num_kv_heads = 0; ///< divides num_q_heads
    std::size_t head_dim = 0;     ///< even
    std::size_t hidden = 0;       ///< width of the residual stream
    std::size_t ffn = 0;          ///< width inside the feed-forward layer
    std::size_t vocab = 0;
    std::size_t context_length = 0; ///< [tokens]
    double rope_theta = 10000.0;
    float rms_epsilon = 1e-5F;

    [[nodiscard]] std::size_t group_size() const noexcept { return num_q_heads / num_kv_heads; }
    [[nodiscard]] std::size_t q_width() const noexcept { return num_q_heads * head_dim; }
    [[nodiscard]] std::size_t kv_width() const noexcept { return num_kv_heads * head_dim; }
};

/// Matrices are [outputs, inputs]. What reads the same input is stacked, so that one product serves all.
struct layer_weights {
    std::vector<float> attention_norm; ///< [hidden]
    packed_matrix qkv;                 ///< rows of Q, K, V: [q_width + 2 kv_width, hidden]
    packed_matrix attention_output;    ///< [hidden, q_width]
    std::vector<float> ffn_norm;       ///< [hidden]
    packed_matrix gate_up;             ///< [2 ffn, hidden]
    packed_matrix down;                ///< [hidden, ffn]
};

struct model_weights {
    packed_matrix embedding; ///< [vocab, hidden]
    packed_matrix output;    ///< [vocab, hidden]; empty when the embedding serves as output too
    std::vector<float> output_norm;
    std::vector<layer_weights> layers;
};

/// @throws input_error if the file is not a Llama model, lacks a key, or asks for something the lab does not do
[[nodiscard]] model_config read_config(const gguf_file& file);

/// Dequantises everything to f32.
///
/// Llama GGUF files store the rows of Q and K so that RoPE pairs are neighbours; here they are put back into
/// half-split order (channel j turns with channel j + head_dim / 2), the order of every other implementation.
/// No logit changes, but cached keys do.
/// @throws input_error if a tensor is missing, has another shape, or is not part of a model the lab knows
[[nodiscard]] model_weights load_weights(const gguf_file& file, const model_config& config);

} // namespace lab
