// expect: kvcrush: this scorer looks at attention: call select(kv, queries) or select(attention)
// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/select/top_k.hpp>

void misuse(const kvcrush::kv_view<float>& kv) {
    kvcrush::compressor crush(kvcrush::snapkv_scorer{}, kvcrush::top_k_selector{});
    static_cast<void>(crush.select(kv));
}
