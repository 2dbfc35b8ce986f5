// SPDX-License-Identifier: Apache-2.0
/// @file
/// Compresses a cache as a user of the library would, and takes the time.
#pragma once

#include <kvcrush/cache/kv_cache.hpp>
#include <kvcrush/core/selection.hpp>

#include "model.hpp"
#include "policy.hpp"

#include <cstddef>
#include <span>
#include <vector>

namespace lab {

/// What one compression did and what it took.
struct timed_compression {
    /// Per layer, what each kv head kept; empty for the full cache.
    std::vector<kvcrush::selection> kept;
    double select_ms = 0.0;
    double compact_ms = 0.0;
    /// Mean over layers and kv heads [tokens].
    double kept_tokens_mean = 0.0;
    /// Allocated for keys, values and positions [bytes].
    std::size_t bytes_held = 0;
};

/// Where a cache comes from, for methods that ask the model to repeat it.
struct cache_history {
    const llama& model;
    /// All tokens read so far.
    std::span<const int> tokens;
    /// Token ids that ask the model to repeat its context; may be empty.
    std::span<const int> repeat_request = {};
};

/// A copy of a cache that goes on with a policy of its own.
[[nodiscard]] kvcrush::kv_cache copy_for(const kvcrush::kv_cache& prefilled, const policy& how);

/// @throws std::invalid_argument if the budget does not hold the policy's sinks and recent tokens, or if the policy needs
///         what this cache no longer has; input_error if its codecs cannot store a row
[[nodiscard]] timed_compression compress(kvcrush::kv_cache& cache,
                                         const cache_history& history,
                                         const kvcrush::cache_budget& keep);

} // namespace lab
