// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/math/window_logits.hpp>

#include "reference/attention_layer.hpp"
#include "reference/guarded_buffer.hpp"
#include "support/cache_data.hpp"
#include "unit/simd/every_rung.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <vector>

namespace kvcrush {
namespace {

class WindowLogits : public reference::every_rung {};

TEST_P(WindowLogits, AreScaledDotProductsOfTheBlock) {
    for (const reference::attention_layer& layer : reference::ragged_layers()) {
        const std::size_t n = layer.seq_len;
        const float scale = 1.0F / std::sqrt(static_cast<float>(layer.head_dim));
        for (std::size_t skipped = 0; skipped < 3 && skipped <= n; ++skipped) {
            const logits_block block{.kv_head = layer.num_kv_heads - 1,
                                     .head = (layer.num_kv_heads - 1) * layer.group_size,
                                     .num_heads = layer.group_size,
                                     .query = skipped,
                                     .num_queries = (n - skipped) / 2,
                                     .num_keys = n - skipped};
            const std::size_t size = block.num_heads * block.num_queries * block.num_keys;
            reference::guarded_buffer<float> logits(size);
            reference::guarded_buffer<float> workspace(window_logits_workspace(layer.head_dim));
            window_logits(layer.kv(),
                          layer.all_queries(),
                          block,
                          scale,
                          logits.span(),
                          workspace.span(),
                          rung());
            // |q| |k| <= 2 per channel, (head_dim + 1) roundings of 2^-23.
            const auto dim = static_cast<double>(layer.head_dim);
            const double bound = 2.0 * dim * (dim + 2.0) * 0x1p-23 * static_cast<double>(scale);
            std::size_t at = 0;
            for (std::size_t h = 0; h < block.num_heads; ++h) {
                for (std::size_t i = 0; i < block.num_queries; ++i) {
                    for (std::size_t j = 0; j < block.num_keys; ++j) {
                        ASSERT_NEAR(
                            logits[at++], layer.logit(block.head + h, block.query + i, j), bound)
                            << layer.text();
                    }
                }
            }
        }
    }
}

TEST_P(WindowLogits, AreTheSameInEveryLayoutAndType) {
    const kv_shape shape{2, 70, 9, 3};
    std::vector<float> queries(2 * 4 * 9);
    for (std::size_t i = 0; i < queries.size(); ++i) {
        queries[i] = random_unit(1, 0, i);
    }
    std::vector<float> first;
    const auto check = [&](const auto& kv) {
        std::vector<float> logits(2 * 3 * 70);
        std::vector<float> workspace(window_logits_workspace(9));
        window_logits(
            kv, query_view(queries, 2, 4, 9), {1, 0, 2, 1, 3, 70}, 0.5F, logits, workspace, rung());
        if (first.empty()) {
            first = logits;
        }
        EXPECT_EQ(logits, first);
    };
    test::with_every_layout<float>(shape, check);
    test::with_every_layout<f16>(shape, check);
    test::with_every_layout<bf16>(shape, check);
}

KVCRUSH_ON_EVERY_RUNG(WindowLogits);

} // namespace
} // namespace kvcrush
