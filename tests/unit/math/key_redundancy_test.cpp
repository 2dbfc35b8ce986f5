// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/math/key_redundancy.hpp>

#include "reference/r_kv.hpp"
#include "support/cache_data.hpp"
#include "unit/simd/every_rung.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <vector>

namespace kvcrush {
namespace {

class KeyRedundancy : public reference::every_rung {
protected:
    static std::vector<float> likeness(const reference::attention_layer& layer,
                                       std::size_t head,
                                       const redundancy_rule& rule) {
        std::vector<float> out(layer.seq_len);
        test::owned_scratch memory(key_redundancy_bytes(layer.shape(), rule.search));
        key_redundancy(layer.kv(), head, rule, out, memory.get(), rung());
        return out;
    }
};

TEST_P(KeyRedundancy, IsThatOfTheFullMatrix) {
    for (const redundancy_rule& rule : {redundancy_rule{.threshold = 0.101F},
                                        redundancy_rule{.threshold = -0.3F, .num_forgiven = 70},
                                        redundancy_rule{.num_forgiven = 0},
                                        redundancy_rule{.threshold = 0.0301F, .search = 65},
                                        redundancy_rule{.else_forgive_first = true}}) {
        const reference::r_kv expected{.threshold = static_cast<double>(rule.threshold),
                                       .num_forgiven = rule.num_forgiven,
                                       .search = rule.search,
                                       .published = rule.else_forgive_first};
        for (const reference::attention_layer& layer : reference::ragged_layers()) {
            if (expected.margin(layer) < 1e-6) {
                continue; // a rounding error decides who is forgiven
            }
            for (std::size_t head = 0; head < layer.num_kv_heads; ++head) {
                const std::vector<float> out = likeness(layer, head, rule);
                const std::vector<double> means = expected.likeness(layer, head);
                for (std::size_t j = 0; j < out.size(); ++j) {
                    // Roundings of unit keys, of cosines and of the mean.
                    ASSERT_NEAR(out[j], means[j], 2e-6) << layer.text() << " token " << j;
                }
            }
        }
    }
}

TEST_P(KeyRedundancy, IdenticalKeysForgiveTheNewestOther) {
    // All keys alike: everyone forgives the last one, which forgives the one before.
    reference::attention_layer layer(1, 1, 130, 4);
    for (float& channel : layer.keys) {
        channel = 1.0F;
    }
    const std::vector<float> out = likeness(layer, 0, {});
    for (std::size_t j = 0; j < 128; ++j) {
        EXPECT_NEAR(out[j], 129.0 / 130.0, 1e-6);
    }
    EXPECT_NEAR(out[128], 128.0 / 130.0, 1e-6);
    EXPECT_NEAR(out[129], 0.0, 1e-6);
}

TEST_P(KeyRedundancy, KeysThatAreNotFiniteAreNanAndLikeNoOther) {
    for (const float bad : reference::bad_numbers) {
        reference::attention_layer layer(1, 1, 66, 4);
        reference::attention_layer without = layer;
        layer.keys[40 * 4 + 1] = bad;
        for (std::size_t k = 0; k < 4; ++k) {
            without.keys[40 * 4 + k] = 0.0F;
        }
        const std::vector<float> out = likeness(layer, 0, {});
        const std::vector<float> expected = likeness(without, 0, {});
        for (std::size_t j = 0; j < 66; ++j) {
            if (j == 40) {
                EXPECT_TRUE(std::isnan(out[j]));
            } else {
                EXPECT_EQ(out[j], expected[j]) << j;
            }
        }
    }
}

KVCRUSH_ON_EVERY_RUNG(KeyRedundancy);

} // namespace
} // namespace kvcrush
