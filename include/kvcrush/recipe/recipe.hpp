// SPDX-License-Identifier: Apache-2.0
/// @file
/// How a cache is compressed, as a value: which tokens stay, how many, and how their rows are stored.
#pragma once

#include <kvcrush/core/budget.hpp>
#include <kvcrush/recipe/cache_budget.hpp>
#include <kvcrush/recipe/layer_judge.hpp>
#include <kvcrush/recipe/model_allocator.hpp>
#include <kvcrush/recipe/row_storage.hpp>

#include <algorithm>
#include <cstddef>

namespace kvcrush {
inline namespace v0 {

/// When a cache is compressed by itself: kv_cache::compress_if_due().
struct compression_trigger {
    /// Tokens between two compressions; the prompt counts as such a stretch, however short. 0: whenever it is full.
    std::size_t every = 64;
    /// Rows of the longest head above which it is; 0: no limit.
    std::size_t rows = 0;
};

/// What a kv_cache is made from. Every part has a default, and the default of the whole keeps all tokens in f16.
///
///     recipe how{.scorer = snapkv_scorer{}, .keep = cache_budget::keep_ratio(0.25)};
///     recipe how{.rows = {.sinks = {q8_0_codec{}, q8_0_codec{}}, .tiers = {{q8_0_codec{}, q4_0_codec{}}}}};
struct recipe {
    /// How important is a token?
    any_scorer scorer{};
    /// Which tokens, given that?
    any_selector selector{};
    /// How many for each kv head of a layer?
    any_allocator allocator{};
    /// How many for each layer, where that is not the same for all?
    any_model_allocator model_allocator{};
    /// Sinks and recent tokens, which always stay.
    area_sizes areas{};
    /// How much stays?
    cache_budget keep{};
    /// How is it stored?
    row_storage rows{};
    compression_trigger when{};

    /// What decides within a layer.
    [[nodiscard]] layer_policy policy() const { return {scorer, selector, allocator, areas}; }

    /// Whether compression can do nothing at all: every token stays, dense.
    [[nodiscard]] bool keeps_everything() const noexcept {
        return keep == cache_budget::everything() && !rows.encodes() && !model_allocator;
    }

    /// Tokens per kv head that `keep` allows on average, sinks and recent included.
    /// @param head       what a kv head has seen
    /// @param num_heads  kv heads of all layers
    /// @throws std::invalid_argument if they do not hold the protected tokens
    [[nodiscard]] std::size_t
    tokens_for(const cache_budget& budget_of, const head_extent& head, std::size_t num_heads) const {
        const double share = budget_of.token_share(rows, head, num_heads);
        const auto seen = static_cast<double>(head.tokens_seen);
        switch (budget_of.counts()) {
        case cache_budget::unit::token_share:
            return budget::keep_ratio(share, areas).tokens_for(head.tokens_seen);
        case cache_budget::unit::tokens:
            return budget::tokens(static_cast<std::size_t>((std::min)(budget_of.value(), seen)), areas)
                .tokens_for(head.tokens_seen);
        default:
            return budget::tokens(static_cast<std::size_t>(share * seen), areas)
                .tokens_for(head.tokens_seen);
        }
    }

    /// Queries of the newest tokens that compression looks at, of a cache that has seen so many.
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return (std::max)({scorer.num_queries(seq_len),
                           selector.num_queries(seq_len),
                           model_allocator ? model_allocator.num_queries(seq_len) : 0});
    }

    /// @throws std::invalid_argument if a part of it makes no sense
    void validate() const {
        scorer.validate();
        selector.validate();
        allocator.validate();
        rows.validate();
    }
    /// @throws std::invalid_argument likewise, or if it does not fit caches of this size
    void validate_for(const problem_size& size) const {
        validate();
        rows.validate_for(size.kv.key_dim, size.kv.value_dim);
        scorer.validate_for(size);
        selector.validate_for(size);
        allocator.validate_for(size);
    }
};

} // namespace v0
} // namespace kvcrush
