// SPDX-License-Identifier: Apache-2.0
/// @file
/// Every scorer the lab knows, and what the lab does for those that need more than a layer of the cache.
#pragma once

#include <kvcrush/kvcrush.hpp>

#include "model.hpp"

#include <cstddef>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <variant>
#include <vector>

namespace lab {

/// q_filters_scorer with filters that the text itself calibrates: the lab has no other texts at hand. An engine would
/// calibrate once, with many.
struct own_q_filters {
    static constexpr std::string_view name = kvcrush::q_filters_scorer::name;
    static constexpr std::string_view about = kvcrush::q_filters_scorer::about;
    static constexpr auto parameters() { return std::tuple{}; }
    void validate() const {}
};

/// A new scorer is one more name here.
using any_scorer = std::variant<kvcrush::random_scorer,
                                kvcrush::streaming_llm_scorer,
                                kvcrush::knorm_scorer,
                                kvcrush::key_diff_scorer,
                                kvcrush::lag_kv_scorer,
                                own_q_filters,
                                kvcrush::expected_attention_scorer,
                                kvcrush::tova_scorer,
                                kvcrush::snapkv_scorer,
                                kvcrush::h2o_scorer,
                                kvcrush::glob_scorer,
                                kvcrush::alisa_scorer,
                                kvcrush::keyformer_scorer,
                                kvcrush::squared_attention_scorer,
                                kvcrush::r_kv_scorer>;

/// Calls use(scorer) with what the library's scorer is for one layer.
/// @param log  queries of the layer, [tokens, num_q_heads, head_dim] after RoPE
template <typename Scorer, typename Use>
void with_scorer_of_layer(const Scorer& scorer,
                          std::size_t layer,
                          const model_config& config,
                          std::span<const float> log,
                          const Use& use) {
    if constexpr (std::is_same_v<Scorer, own_q_filters>) {
        kvcrush::q_filter_calibration calibration(
            config.num_q_heads, config.num_kv_heads, config.head_dim);
        const std::size_t width = config.num_q_heads * config.head_dim;
        calibration.add(kvcrush::query_view(log,
                                            config.num_q_heads,
                                            log.size() / width,
                                            config.head_dim,
                                            {config.head_dim, width, 1}));
        const std::vector<float> filters = calibration.filters();
        use(kvcrush::q_filters_scorer{filters});
    } else {
        Scorer own = scorer;
        if constexpr (requires { own.seed; }) {
            // Layers draw apart: one seed for all would keep the same random tokens everywhere.
            own.seed = kvcrush::random_bits(scorer.seed, 1, layer);
        }
        if constexpr (requires { own.rope.theta; }) {
            own.rope.theta = config.rope_theta;
        }
        use(own);
    }
}

} // namespace lab
