// SPDX-License-Identifier: Apache-2.0
/// @file
/// The scores of several layers, and one selection at a time from them.
#pragma once

#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>

#include "huge_buffer.hpp"

#include <cstddef>
#include <vector>

namespace kvcrush::bench {

/// Scores as an engine with 32 query heads and 8 kv heads has them.
class layer_scores {
public:
    static constexpr std::size_t num_observed_heads = 32;
    static constexpr std::size_t num_kv_heads = 8;

    layer_scores(std::size_t tokens, std::size_t num_layers)
        : tokens_(tokens),
          num_layers_(num_layers),
          observed_(num_layers * num_observed_heads * tokens),
          decisive_(num_layers * num_kv_heads * tokens) {
        for (std::size_t i = 0; i < observed_.size(); ++i) {
            const float x = random_unit(11, 0, i);
            observed_.data()[i] = x * x * x;
        }
        // A kv head decides by the mean of its four query heads.
        for (std::size_t layer = 0; layer < num_layers; ++layer) {
            for (std::size_t head = 0; head < num_observed_heads; ++head) {
                const float* from = observed_.data() + (layer * num_observed_heads + head) * tokens;
                float* to = decisive_.data() + (layer * num_kv_heads + head / 4) * tokens;
                for (std::size_t t = 0; t < tokens; ++t) {
                    to[t] += 0.25F * from[t];
                }
            }
        }
    }

    [[nodiscard]] std::size_t tokens() const noexcept { return tokens_; }
    [[nodiscard]] std::size_t num_layers() const noexcept { return num_layers_; }
    [[nodiscard]] const_head_scores observed(std::size_t layer) const noexcept {
        return part(observed_, num_observed_heads, layer);
    }
    [[nodiscard]] const_head_scores decisive(std::size_t layer) const noexcept {
        return part(decisive_, num_kv_heads, layer);
    }

private:
    [[nodiscard]] const_head_scores
    part(const huge_buffer<float>& of, std::size_t heads, std::size_t layer) const noexcept {
        return {of.span().subspan(layer * heads * tokens_, heads * tokens_), heads, tokens_};
    }

    std::size_t tokens_;
    std::size_t num_layers_;
    huge_buffer<float> observed_;
    huge_buffer<float> decisive_;
};

/// What one thread needs to select from layers of one size: keeps a quarter of the tokens.
class selecting_lane {
public:
    explicit selecting_lane(std::size_t tokens)
        : room_(selector_.scratch_bytes(
              {{layer_scores::num_kv_heads, tokens, 128, 128}, layer_scores::num_observed_heads})),
          counts_(layer_scores::num_kv_heads, budget::keep_ratio(0.25).tokens_for(tokens)),
          area_(budget::keep_ratio(0.25).protected_areas(), tokens) {
        kept_.reserve(layer_scores::num_kv_heads, layer_scores::num_kv_heads * counts_[0]);
    }

    const selection& select(const layer_scores& scores, std::size_t layer) {
        selector_.select(
            {scores.decisive(layer), scores.observed(layer), area_, counts_, scratch(room_.span())},
            kept_);
        return kept_;
    }

private:
    kvcrush_selector<> selector_{};
    huge_buffer<std::byte> room_;
    std::vector<std::size_t> counts_;
    areas area_;
    selection kept_;
};

} // namespace kvcrush::bench
