// SPDX-License-Identifier: Apache-2.0
/// @file
/// Greedy continuation of a prompt.
#pragma once

#include "model.hpp"

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace lab {

struct generation_options {
    std::size_t max_new_tokens = 128;
    /// Generation stops after this token and includes it.
    std::optional<int> end_token = std::nullopt;
    progress_callback progress = {}; ///< of the prompt
};

/// Called for each new token, numbered from 0, when it has been chosen and before the model reads it: the moment
/// to show it, and to compress the cache.
using generation_hook = std::function<void(std::size_t number, int token)>;

/// @return the id of the largest logit; of the first of equal ones; NaN never wins
[[nodiscard]] int most_likely(std::span<const float> logits) noexcept;

/// Reads the prompt into the cache, then always takes the most likely token. The last token is not read back.
/// @return the new tokens, without the prompt
/// @throws input_error, before anything has changed, if the prompt is empty or the context is too short
[[nodiscard]] std::vector<int> generate(const llama& model,
                                        kvcrush::kv_cache& cache,
                                        std::span<const int> prompt,
                                        const generation_options& options,
                                        const generation_hook& hook = {});

} // namespace lab
