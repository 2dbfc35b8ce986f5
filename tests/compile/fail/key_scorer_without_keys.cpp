// expect: kvcrush: this scorer reads keys: call select(kv) or select(kv, queries)
// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/select/top_k.hpp>

void misuse(const kvcrush::attention_view& attention) {
    kvcrush::compressor crush(kvcrush::knorm_scorer{}, kvcrush::top_k_selector{});
    static_cast<void>(crush.select(attention));
}
