// SPDX-License-Identifier: Apache-2.0
// A compacted cache answers like the full one with the evicted tokens masked, whatever the layout and however ragged
// the sets.
#include <kvcrush/kvcrush.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace kvcrush {
namespace {

/// softmax(q k / sqrt(d)) v over the given rows, in double.
template <KvSource Kv>
std::vector<double> attend(const Kv& kv,
                           std::size_t head,
                           const std::vector<float>& query,
                           const std::vector<token_index>& rows) {
    const kv_shape shape = kv.shape();
    std::vector<double> weights;
    double largest = -std::numeric_limits<double>::infinity();
    for (const token_index row : rows) {
        double dot = 0.0;
        for (std::size_t d = 0; d < shape.key_dim; ++d) {
            dot +=
                static_cast<double>(query[d]) * static_cast<double>(to_float(kv.key(head, row)[d]));
        }
        weights.push_back(dot / std::sqrt(static_cast<double>(shape.key_dim)));
        largest = std::max(largest, weights.back());
    }
    double sum = 0.0;
    for (double& weight : weights) {
        weight = std::exp(weight - largest);
        sum += weight;
    }
    std::vector<double> out(shape.value_dim, 0.0);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        for (std::size_t d = 0; d < shape.value_dim; ++d) {
            out[d] += weights[i] / sum * static_cast<double>(to_float(kv.value(head, rows[i])[d]));
        }
    }
    return out;
}

TEST(CompactedAttention, EqualsTheMaskedFullCache) {
    const kv_shape shape{3, 61, 16, 9};
    std::vector<float> query(16);
    for (std::size_t d = 0; d < 16; ++d) {
        query[d] = 3.0F * random_unit(5, 5, d) - 1.5F;
    }
    selection kept;
    kept.reserve(3, 3 * 61);
    for (std::size_t head = 0; head < 3; ++head) { // 61, about 30 and about 10 rows
        for (std::size_t t = 0; t < 61; ++t) {
            if (head == 0 || random_bits(1, head, t) % (head * head + 1) == 0) {
                kept.extend(1)[0] = static_cast<token_index>(t);
            }
        }
        kept.end_head();
    }
    test::with_every_layout<float>(shape, [&](const auto& kv) {
        std::vector<std::vector<double>> masked;
        for (std::size_t head = 0; head < 3; ++head) {
            masked.push_back(attend(kv, head, query, test::list(kept.kept(head))));
        }
        compact(kv, kept);
        for (std::size_t head = 0; head < 3;
             ++head) { // nothing behind the kept rows may be looked at any more
            for (std::size_t t = kept.kept(head).size(); t < 61; ++t) {
                for (std::size_t d = 0; d < 16; ++d) {
                    kv.key(head, t)[d] = std::numeric_limits<float>::quiet_NaN();
                }
            }
            std::vector<token_index> front(kept.kept(head).size());
            for (std::size_t i = 0; i < front.size(); ++i) {
                front[i] = static_cast<token_index>(i);
            }
            const std::vector<double> compacted = attend(kv, head, query, front);
            for (std::size_t d = 0; d < 9; ++d) {
                ASSERT_DOUBLE_EQ(compacted[d], masked[head][d])
                    << "head " << head << ", channel " << d;
            }
        }
    });
}

} // namespace
} // namespace kvcrush
