// SPDX-License-Identifier: Apache-2.0
/// @file
/// The Llama forward pass.
#pragma once

#include <kvcrush/cache/kv_cache.hpp>

#include "gguf.hpp"
#include "matrix.hpp"
#include "weights.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace lab {

/// What rows are held in before they are compressed.
enum class cache_type : std::uint8_t { f16, f32 };

/// Called with (tokens done, tokens in all) after each chunk of a prompt.
using progress_callback = std::function<void(std::size_t, std::size_t)>;

/// A Llama model on the CPU: RMSNorm, grouped-query attention with RoPE at true positions, SwiGLU.
class llama {
public:
    /// Tokens of a prompt that pass through the layers together: bounds the memory, fills the matrix products.
    static constexpr std::size_t chunk_size = 256;

    /// @throws input_error if the file is not a complete Llama model. The file may be closed afterwards.
    [[nodiscard]] static llama load(const gguf_file& file);

    [[nodiscard]] const model_config& config() const noexcept { return config_; }
    /// A cache that keeps everything and remembers all queries, for policies to come.
    [[nodiscard]] kvcrush::kv_cache make_cache(cache_type type) const;

    /// Reads tokens: appends a row per layer and kv head for each, and continues at cache.tokens_seen().
    /// @param[in]     num_logits  how many of the last tokens to predict after, at most ids.size()
    /// @param[out]    attention_ms  if given, grows by what it took to add rows and attend to them [ms]
    /// @return [num_logits, vocab], one row per token
    /// @throws input_error, before anything has changed, for an id outside the vocabulary, more tokens than the
    ///         context length, too many logits, or a cache of another shape
    [[nodiscard]] matrix forward(std::span<const int> ids,
                                 kvcrush::kv_cache& cache,
                                 std::size_t num_logits,
                                 double* attention_ms = nullptr,
                                 const progress_callback& progress = {}) const;

private:
    llama(model_config config, model_weights weights)
        : config_(config), weights_(std::move(weights)) {}

    void check(std::span<const int> ids, const kvcrush::kv_cache& cache, std::size_t num_logits) const;

    model_config config_;
    model_weights weights_;
};

} // namespace lab
