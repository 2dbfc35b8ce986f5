// SPDX-License-Identifier: Apache-2.0
#include "any_scorer.hpp"

#include <kvcrush/core/query_view.hpp>
#include <kvcrush/retention/q_filter_calibration.hpp>

namespace lab {

std::vector<float> filters_of_queries(const model_config& config, std::span<const float> log) {
    kvcrush::q_filter_calibration calibration(
        config.num_q_heads, config.num_kv_heads, config.head_dim);
    const std::size_t width = config.num_q_heads * config.head_dim;
    calibration.add(kvcrush::query_view(
        log, config.num_q_heads, log.size() / width, config.head_dim, {config.head_dim, width, 1}));
    return calibration.filters();
}

} // namespace lab
