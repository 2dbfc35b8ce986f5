// SPDX-License-Identifier: Apache-2.0
// The selector against its reference, over ragged sizes, hostile scores and every code width.
#include <kvcrush/grouping/farthest.hpp>
#include <kvcrush/grouping/most_important.hpp>
#include <kvcrush/grouping/step.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>

#include "reference/kvcrush.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

struct shape {
    std::size_t heads;
    std::size_t tokens;
};

/// Scores in which ties, NaN and infinities are common.
std::vector<float> hostile_scores(std::size_t count, std::uint64_t seed) {
    std::vector<float> scores(count);
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t bits = random_bits(seed, 3, i);
        switch (bits % 16) {
        case 0: scores[i] = std::numeric_limits<float>::quiet_NaN(); break;
        case 1: scores[i] = std::numeric_limits<float>::infinity(); break;
        case 2: scores[i] = -std::numeric_limits<float>::infinity(); break;
        case 3: scores[i] = -0.0F; break;
        case 4: scores[i] = 0.0F; break;
        default: scores[i] = static_cast<float>((bits >> 8) % 7) - 3.0F; break;
        }
    }
    return scores;
}

template <typename Picker>
void compare_with_reference(const std::vector<float>& observed,
                            const shape& s,
                            std::size_t num_kv_heads,
                            const area_sizes& sizes,
                            std::size_t budget,
                            const kvcrush_selector<Picker>& selector) {
    const std::vector<float> scores(
        observed.begin(), observed.begin() + static_cast<std::ptrdiff_t>(num_kv_heads * s.tokens));
    const std::vector<std::size_t> counts(num_kv_heads, budget);
    selection out;
    out.reserve(num_kv_heads, num_kv_heads * s.tokens);
    test::owned_scratch memory(selector.scratch_bytes({{num_kv_heads, s.tokens, 1, 1}, s.heads}));
    selector.select({const_head_scores(scores, num_kv_heads, s.tokens),
                     const_head_scores(observed, s.heads, s.tokens),
                     areas(sizes, s.tokens),
                     counts,
                     memory.get()},
                    out);

    std::vector<std::vector<double>> heads;
    for (std::size_t h = 0; h < s.heads; ++h) {
        const auto begin = observed.begin() + static_cast<std::ptrdiff_t>(h * s.tokens);
        heads.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(s.tokens));
    }
    const reference::kvcrush_settings settings{
        .share = selector.share,
        .quantile = selector.signature.quantile,
        .anchor = std::string(name_of(selector.anchor.kind)),
        .pick = std::string(Picker::name),
        .seed = selector.anchor.seed,
        .num_anchors = selector.anchor.count,
        .farthest_first = selector.sort == distance_sort::descending,
        .adaptive = selector.split == budget_split::adaptive};
    ASSERT_EQ(out.num_kv_heads(), num_kv_heads);
    for (std::size_t head = 0; head < num_kv_heads; ++head) {
        ASSERT_EQ(test::list(out.kept(head)),
                  reference::kvcrush(heads,
                                     heads[head],
                                     sizes.num_sink_tokens,
                                     sizes.num_recent_tokens,
                                     budget,
                                     settings))
            << s.heads << " heads, " << s.tokens << " tokens, budget " << budget << ", share "
            << settings.share << ", quantile " << settings.quantile << ", anchor "
            << settings.anchor << " x " << settings.num_anchors << ", pick " << settings.pick;
    }
}

TEST(KvcrushSelectorAgainstReference, EveryCodeWidthAndRaggedSize) {
    std::uint64_t seed = 0;
    for (const std::size_t heads :
         std::initializer_list<std::size_t>{1, 7, 8, 9, 16, 17, 32, 33, 64, 65, 130, 256, 300}) {
        for (const std::size_t count :
             std::initializer_list<std::size_t>{0, 1, 2, 36, 37, 63, 64, 65, 100, 257}) {
            ++seed;
            const std::vector<float> observed = seed % 2 == 0
                                                    ? test::random_scores(heads * count, seed)
                                                    : hostile_scores(heads * count, seed);
            const std::size_t budget = count / (1 + seed % 5);
            compare_with_reference<linspace_picker>(
                observed, {heads, count}, 1, {4, 32}, budget, {});
            compare_with_reference<most_important_picker>(
                observed,
                {heads, count},
                1,
                {0, 3},
                budget,
                {.share = 0.5,
                 .signature = {.quantile = 0.3},
                 .anchor = {.kind = anchor_kind::alternate}});
            compare_with_reference<farthest_picker>(
                observed,
                {heads, count},
                1,
                {1, 1},
                budget,
                {.share = 0.5, .anchor = {.kind = anchor_kind::zeros, .count = 3}});
        }
    }
}

TEST(KvcrushSelectorAgainstReference, EveryAnchorPickerAndShare) {
    std::uint64_t seed = 100;
    for (const anchor_kind kind : {anchor_kind::own,
                                   anchor_kind::zeros,
                                   anchor_kind::ones,
                                   anchor_kind::alternate,
                                   anchor_kind::random,
                                   anchor_kind::mean,
                                   anchor_kind::inverse_mean}) {
        for (const double share : {0.0, 0.1, 0.25, 0.9, 1.0}) {
            for (const double quantile : {0.0, 0.5, 0.75, 1.0}) {
                const std::vector<float> observed = hostile_scores(6 * 90, ++seed);
                const distance_sort sort =
                    seed % 3 == 0 ? distance_sort::descending : distance_sort::ascending;
                const std::size_t num_anchors = 1 + seed % anchor::max_count;
                const head_signature signature{.quantile = quantile};
                const anchor to{.kind = kind, .seed = 17, .count = num_anchors};
                compare_with_reference<linspace_picker>(observed,
                                                        {6, 90},
                                                        3,
                                                        {2, 5},
                                                        40,
                                                        {.share = share,
                                                         .sort = sort,
                                                         .signature = signature,
                                                         .anchor = {.kind = kind, .seed = 17}});
                compare_with_reference<linspace_picker>(
                    observed,
                    {6, 90},
                    3,
                    {2, 5},
                    40,
                    {.share = share, .sort = sort, .signature = signature, .anchor = to});
                compare_with_reference<step_picker>(
                    observed,
                    {6, 90},
                    3,
                    {0, 0},
                    90,
                    {.share = share, .sort = sort, .signature = signature, .anchor = to});
                compare_with_reference<farthest_picker>(
                    observed,
                    {6, 90},
                    3,
                    {0, 0},
                    50,
                    {.share = share, .sort = sort, .signature = signature, .anchor = to});
                compare_with_reference<most_important_picker>(
                    observed,
                    {6, 90},
                    2,
                    {0, 0},
                    31,
                    {.share = share, .sort = sort, .signature = signature, .anchor = to});
            }
        }
    }
}

TEST(KvcrushSelectorAgainstReference, AdaptiveSplit) {
    for (std::uint64_t seed = 0; seed < 60; ++seed) {
        std::vector<float> observed = test::random_scores(4 * 120, seed);
        for (std::size_t i = 0; i < observed.size(); ++i) {
            // From nothing negligible to nearly everything, over nine decades.
            observed[i] = std::pow(observed[i] * observed[i], static_cast<float>(seed % 10));
            if (random_bits(seed, 9, i) % 97 == 0) {
                observed[i] = std::numeric_limits<float>::quiet_NaN();
            }
        }
        compare_with_reference<linspace_picker>(
            observed,
            {4, 120},
            2,
            {2, 5},
            60,
            {.share = 0.1 * static_cast<double>(seed % 11), .split = budget_split::adaptive});
    }
}

} // namespace
} // namespace kvcrush
