// expect: kvcrush: the scorer of the bits looks at attention: call select(kv, queries) or select(attention)
// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>

using namespace kvcrush;

void misuse(const kv_view<float>& kv) {
    compressor crush(knorm_scorer{}, kvcrush_selector<linspace_picker, snapkv_scorer>{});
    static_cast<void>(crush.select(kv));
}
