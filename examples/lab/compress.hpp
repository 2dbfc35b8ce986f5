// SPDX-License-Identifier: Apache-2.0
/// @file
/// Compresses every layer of a cache with one policy, for real: rows move and memory is given back.
#pragma once

#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/selection.hpp>

#include "kv_cache.hpp"
#include "model.hpp"
#include "policy.hpp"

#include <cstddef>
#include <span>
#include <vector>

namespace lab {

/// What one compression did and what it took.
struct compression {
    /// One selection per layer; empty for the full cache.
    std::vector<kvcrush::selection> kept;
    double select_ms = 0.0;
    double compact_ms = 0.0;
    /// Mean over layers and kv heads [tokens].
    double kept_tokens_mean = 0.0;
    /// Allocated for keys, values and, where rows are missing, their positions [bytes].
    std::size_t bytes_held = 0;
};

/// Where a cache comes from.
struct cache_history {
    const llama& model;
    /// All tokens read so far.
    std::span<const int> tokens;
    /// Of those tokens, as llama::forward logs them.
    const query_log& queries;
    /// Token ids that ask the model to repeat its context, for kvzip; may be empty.
    std::span<const int> repeat_request = {};
};

/// @throws std::invalid_argument if the budget does not hold the policy's sinks and recent tokens; input_error if the
///         policy needs what this cache no longer has
[[nodiscard]] compression compress(kv_cache& cache,
                                   const cache_history& history,
                                   const policy& how,
                                   const kvcrush::budget& budget);

/// The budget of a policy at a keep ratio of its context.
/// @throws std::invalid_argument likewise, or if the ratio lies outside (0, 1]
[[nodiscard]] kvcrush::budget budget_for(const policy& how, double keep_ratio, std::size_t context);

/// The budget of a policy that may keep so many of the tokens seen, whatever it was left with before: its own share of
/// those where it has one, and more of them where its ratios count bytes.
[[nodiscard]] kvcrush::budget
budget_within(const policy& how, std::size_t tokens, std::size_t tokens_seen);

/// Whether compressing a cache of so many rows per head evicts some or stores them in codecs.
[[nodiscard]] bool would_change(const kv_cache& cache,
                                std::size_t rows,
                                const policy& how,
                                const kvcrush::budget& budget);

/// @throws input_error if compressing this cache leaves heads of one layer with different numbers of tokens: such a cache
///         cannot be compressed again
void require_even_heads(const kv_cache& cache, std::size_t num_kv_heads, const policy& how);

} // namespace lab
