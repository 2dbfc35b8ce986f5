// SPDX-License-Identifier: Apache-2.0
/// @file
/// ggml's CPU backend, where the build has it: run.sh --with-ggml.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace kvcrush::bench {

enum class ggml_rows { f16, q8_0, q4_0 };

/// Whether the build has ggml. Nothing below may be called without it.
[[nodiscard]] bool has_ggml();
[[nodiscard]] std::string name_of_ggml();

/// What the CPU backend quantises rows with. @param x  [size], a multiple of 32
void ggml_quantise(ggml_rows format, const float* x, std::size_t size, void* out);
/// What files are quantised with.
void ggml_quantise_reference(ggml_rows format, const float* x, std::size_t size, void* out);

/// flash_attn_ext over keys and values of one format, one query a head, on the calling thread.
class ggml_attention {
public:
    /// @param queries       [num_q_heads, dim]
    /// @param keys, values  [num_kv_heads, tokens, dim]
    /// @param output        [num_q_heads, dim]
    ggml_attention(ggml_rows format,
                   const float* queries,
                   const void* keys,
                   const void* values,
                   std::size_t num_q_heads,
                   std::size_t num_kv_heads,
                   std::size_t tokens,
                   std::size_t dim,
                   float* output);
    ggml_attention(const ggml_attention&) = delete;
    ggml_attention& operator=(const ggml_attention&) = delete;
    ~ggml_attention();

    void operator()();

private:
    struct graph;
    std::unique_ptr<graph> graph_;
};

} // namespace kvcrush::bench
