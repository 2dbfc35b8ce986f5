// expect: kvcrush: this scorer reads keys: call select(kv) or select(kv, queries)
// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/retention/knorm.hpp>

void misuse(const kvcrush::attention_view& attention) {
    kvcrush::compressor crush(kvcrush::knorm_scorer{});
    crush.select(attention);
}
