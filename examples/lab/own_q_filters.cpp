// SPDX-License-Identifier: Apache-2.0
#include "own_q_filters.hpp"

#include <kvcrush/core/query_view.hpp>
#include <kvcrush/retention/q_filter_calibration.hpp>

namespace lab {

own_q_filters own_q_filters::at_layer(const kvcrush::layer_context& where) const {
    kvcrush::q_filter_calibration calibration(
        where.size.num_q_heads, where.size.kv.num_kv_heads, where.size.kv.key_dim);
    calibration.add(*where.queries);
    return {calibration.filters()};
}

} // namespace lab
