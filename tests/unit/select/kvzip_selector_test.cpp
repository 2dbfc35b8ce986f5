// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/select/kvzip_selector.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

using tokens = std::vector<token_index>;
using flat = std::vector<std::size_t>;

kvzip_scores make(const kvzip_shape& shape, const std::vector<float>& values) {
    kvzip_scores scores(shape);
    const std::size_t size = shape.num_kv_heads * shape.seq_len;
    for (std::size_t layer = 0; layer < shape.num_layers; ++layer) {
        std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(layer * size),
                    size,
                    scores.layer(layer).values().begin());
    }
    return scores;
}

/// What is kept as indices into kvzip_scores::values().
flat flatten(const std::vector<selection>& kept, const kvzip_shape& shape) {
    flat all;
    for (std::size_t layer = 0; layer < kept.size(); ++layer) {
        EXPECT_EQ(kept[layer].num_kv_heads(), shape.num_kv_heads);
        for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
            for (const token_index t : kept[layer].kept(head)) {
                all.push_back((layer * shape.num_kv_heads + head) * shape.seq_len + t);
            }
        }
    }
    return all;
}

const std::vector<float> known{0.9F, 0.1F, 0.5F, 0.5F, 0.8F, 0.2F, 0.7F, 0.3F};
constexpr kvzip_selector published{.cut = kvzip_cut::threshold};

TEST(KvzipSelector, ReproducesTheKnownAnswers) {
    // Known answer 7 of the specification, as two heads of one layer and as two layers.
    for (const kvzip_shape shape : {kvzip_shape{1, 2, 4}, kvzip_shape{2, 1, 4}}) {
        const kvzip_scores scores = make(shape, known);
        const auto kept = [&](const kvzip_selector& policy, double ratio) {
            return flatten(policy.select(scores, {0, 0}, kvzip_selector::total_for(scores, ratio)),
                           shape);
        };
        EXPECT_EQ(kept(published, 0.5), (flat{0, 4, 6})) << "one less, and the tie dropped";
        EXPECT_EQ(kept(published, 0.625), (flat{0, 4, 6}));
        EXPECT_EQ(kept({}, 0.5), (flat{0, 2, 4, 6}));
        EXPECT_EQ(kept({}, 0.625), (flat{0, 2, 3, 4, 6}));
        EXPECT_EQ(kept({.level = kvzip_level::pair_uniform}, 0.5), (flat{0, 2, 4, 6}));
        EXPECT_EQ(kept({.level = kvzip_level::head}, 0.5), (flat{0, 1, 2, 3}))
            << "head scores .9 .8";
        EXPECT_EQ(kept({.level = kvzip_level::head}, 0.75), (flat{0, 1, 2, 3, 4, 6}))
            << "the last head is cut to its best tokens";
        EXPECT_EQ(kept({.level = kvzip_level::head, .cut = kvzip_cut::threshold}, 0.5), flat{});
        EXPECT_EQ(kept({.level = kvzip_level::head, .cut = kvzip_cut::threshold}, 0.75),
                  (flat{0, 1, 2, 3}));
    }
}

TEST(KvzipSelector, HeadsKeepDifferentNumbers) {
    const kvzip_scores scores = make({1, 2, 4}, {0.9F, 0.8F, 0.7F, 0.6F, 0.1F, 0.2F, 0.3F, 0.65F});
    const auto kept = kvzip_selector{}.select(scores, {0, 0}, 4);
    EXPECT_EQ(test::list(kept[0].kept(0)), (tokens{0, 1, 2}));
    EXPECT_EQ(test::list(kept[0].kept(1)), (tokens{3}));
}

TEST(KvzipSelector, AgreesWithASortedListOverRaggedSizes) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    for (const std::size_t n : std::initializer_list<std::size_t>{0, 1, 5, 63, 64, 65, 130}) {
        for (const area_sizes sizes : {area_sizes{0, 0}, area_sizes{4, 0}, area_sizes{3, 2}}) {
            const kvzip_shape shape{3, 2, n};
            std::vector<float> values = test::random_scores(6 * n, n);
            for (std::size_t i = 0; i < values.size(); ++i) {
                values[i] = i % 17 == 3 ? nan : std::round(values[i] * 20.0F); // many ties
            }
            const kvzip_scores scores = make(shape, values);
            const areas area(sizes, n);
            const std::size_t always = 6 * area.num_protected();
            for (std::size_t total = always; total <= 6 * n; total += 1 + n / 3) {
                flat candidates;
                flat expected;
                for (std::size_t i = 0; i < values.size(); ++i) {
                    const bool middle = i % n >= area.middle_begin && i % n < area.middle_end;
                    (middle ? candidates : expected).push_back(i);
                }
                std::stable_sort(
                    candidates.begin(), candidates.end(), [&](std::size_t a, std::size_t b) {
                        return simd::ordered_key(values[a]) > simd::ordered_key(values[b]);
                    });
                const std::size_t budget = total - always;
                flat above = expected;
                expected.insert(expected.end(),
                                candidates.begin(),
                                candidates.begin() + static_cast<std::ptrdiff_t>(budget));
                std::sort(expected.begin(), expected.end());
                ASSERT_EQ(flatten(kvzip_selector{}.select(scores, sizes, total), shape), expected)
                    << n << " tokens, " << total << " rows";
                for (const std::size_t i : candidates) {
                    const std::size_t last = candidates[(budget > 0 ? budget : 1) - 1];
                    if (simd::ordered_key(values[i]) > simd::ordered_key(values[last])) {
                        above.push_back(i);
                    }
                }
                std::sort(above.begin(), above.end());
                ASSERT_EQ(flatten(published.select(scores, sizes, total), shape), above);
                for (const kvzip_level level : {kvzip_level::pair_uniform, kvzip_level::head}) {
                    const auto kept = kvzip_selector{.level = level}.select(scores, sizes, total);
                    ASSERT_EQ(flatten(kept, shape).size(), total);
                }
            }
        }
    }
}

TEST(KvzipSelector, HeadsShareEvenlyToTheLastRow) {
    const kvzip_scores scores = make({1, 3, 5}, std::vector<float>(15, 0.5F));
    const auto kept = kvzip_selector{.level = kvzip_level::pair_uniform}.select(scores, {1, 1}, 10);
    EXPECT_EQ(test::list(kept[0].kept(0)), (tokens{0, 1, 2, 4}));
    EXPECT_EQ(test::list(kept[0].kept(1)), (tokens{0, 1, 4}));
    EXPECT_EQ(test::list(kept[0].kept(2)), (tokens{0, 1, 4}));
}

TEST(KvzipSelector, SaysWhatIsWrong) {
    const kvzip_scores scores = make({1, 2, 4}, known);
    EXPECT_THROW((void)kvzip_selector{}.select(scores, {1, 1}, 3), std::invalid_argument);
    EXPECT_EQ(flatten(kvzip_selector{}.select(scores, {1, 1}, 99), scores.shape()).size(), 8U);
    EXPECT_THROW((void)kvzip_selector::total_for(scores, 0.0), std::invalid_argument);
    EXPECT_THROW((void)kvzip_selector::total_for(scores, std::nan("")), std::invalid_argument);
    EXPECT_THROW((kvzip_selector{.level = kvzip_level::pair_uniform, .cut = kvzip_cut::threshold}
                      .validate()),
                 std::invalid_argument);
    EXPECT_TRUE(kvzip_selector{}.select(kvzip_scores{}, {}, 5).empty());
}

} // namespace
} // namespace kvcrush
