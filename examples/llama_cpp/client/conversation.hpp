// SPDX-License-Identifier: Apache-2.0
/// @file
/// A text that goes on and is evicted from again and again, on top of what was evicted before.
#pragma once

#include <kvcrush/cache/kv_cache.hpp>
#include <kvcrush/recipe/recipe.hpp>

#include "engine.hpp"
#include "evicting_cache.hpp"
#include "model_layout.hpp"
#include "query_watch.hpp"

#include <cstddef>
#include <memory>
#include <span>

namespace client {

/// What one eviction did.
struct eviction_report {
    std::size_t rows = 0; ///< of each kv head, afterwards
    std::size_t state_bytes_before = 0;
    std::size_t state_bytes = 0;
    double select_ms = 0.0;
    double rewrite_ms = 0.0; ///< the state checked and written anew
    double move_ms = 0.0;    ///< into a new context of its size
};

/// One sequence in llama.cpp whose cache stays small. This library's cache beside it knows the true position of each row,
/// which llama.cpp's labels do not say any more after the first eviction.
class conversation {
public:
    /// @param how         an even recipe, see make_even
    /// @param most_added  tokens that are read between two evictions, at most
    /// @throws lab::input_error as probe(); std::invalid_argument if the recipe does not fit the model
    conversation(const engine& engine,
                 const kvcrush::recipe& how,
                 const context_options& options,
                 std::size_t most_added);

    /// Reads tokens behind those read so far.
    void read(std::span<const llama_token> tokens, const logits_callback& logits = {});
    /// Keeps what the recipe chooses at this budget. If anything fails, the conversation is what it was.
    /// @throws lab::input_error, or std::invalid_argument if the budget does not hold sinks and recent tokens
    eviction_report evict(const kvcrush::cache_budget& keep);

    [[nodiscard]] std::size_t tokens_seen() const noexcept { return seen_; }
    [[nodiscard]] const kvcrush::kv_cache& cache() const noexcept { return *cache_; }
    [[nodiscard]] const model_layout& layout() const noexcept { return layout_; }
    [[nodiscard]] context& cells() noexcept { return *cells_; }

private:
    [[nodiscard]] std::unique_ptr<context> new_context(std::size_t rows);
    void watch_on();

    const engine& engine_;
    context_options options_;
    std::size_t most_added_;
    std::unique_ptr<query_watch> watch_ = std::make_unique<query_watch>();
    std::unique_ptr<context> cells_;
    model_layout layout_;
    std::unique_ptr<kvcrush::kv_cache> cache_;
    std::size_t seen_ = 0;
};

} // namespace client
