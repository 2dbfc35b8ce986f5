// expect: kvcrush: this memory is const: name its elements so, as in kv_view<const float>
// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/kv_view.hpp>

#include <vector>

void misuse(const std::vector<float>& rows) {
    const kvcrush::kv_view<float> kv(rows, rows, kvcrush::kv_shape{1, 1, 1, 1});
    static_cast<void>(kv);
}
