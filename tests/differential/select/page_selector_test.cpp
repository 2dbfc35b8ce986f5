// SPDX-License-Identifier: Apache-2.0
// Pages against their reference: sizes that no page divides, scores with ties and NaN, every combination of parts.
#include <kvcrush/grouping/farthest.hpp>
#include <kvcrush/grouping/most_important.hpp>
#include <kvcrush/grouping/step.hpp>
#include <kvcrush/select/page_selector.hpp>

#include "reference/page_kvcrush.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

/// Eighths, so that sums are exact in any order; some of them NaN.
std::vector<float> coarse_scores(std::size_t count, std::uint64_t seed) {
    std::vector<float> scores(count);
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t bits = random_bits(seed, 5, i);
        scores[i] = bits % 37 == 0 ? std::numeric_limits<float>::quiet_NaN()
                                   : static_cast<float>((bits >> 8) % 100) / 8.0F;
    }
    return scores;
}

template <typename Picker>
void compare_with_reference(std::size_t heads,
                            std::size_t tokens,
                            const area_sizes& sizes,
                            std::size_t budget,
                            const page_selector<Picker>& selector,
                            std::uint64_t seed) {
    ASSERT_NO_THROW(selector.validate());
    const std::vector<float> scores = coarse_scores(heads * tokens, seed);
    const std::vector<std::size_t> counts(heads, budget);
    selection out;
    out.reserve(heads, heads * tokens);
    test::owned_scratch memory(selector.scratch_bytes({{heads, tokens, 1, 1}, heads}));
    const const_head_scores view(scores, heads, tokens);
    selector.select({view, view, areas(sizes, tokens), counts, memory.get()}, out);

    reference::score_rows rows;
    for (std::size_t h = 0; h < heads; ++h) {
        const auto begin = scores.begin() + static_cast<std::ptrdiff_t>(h * tokens);
        rows.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(tokens));
    }
    const auto expected =
        reference::page_kvcrush(rows,
                                sizes.num_sink_tokens,
                                sizes.num_recent_tokens,
                                budget,
                                {.page_size = selector.page_size,
                                 .share = selector.share,
                                 .shared_table = selector.table == page_table::shared,
                                 .bits = std::string(name_of(selector.bits)),
                                 .quantile = selector.quantile,
                                 .anchor_per_page = selector.span == anchor_span::page,
                                 .farthest_first = selector.sort == distance_sort::descending,
                                 .anchor = std::string(name_of(selector.anchor.kind)),
                                 .pick = std::string(Picker::name),
                                 .seed = selector.anchor.seed});
    ASSERT_EQ(out.num_kv_heads(), heads);
    for (std::size_t h = 0; h < heads; ++h) {
        ASSERT_EQ(test::list(out.kept(h)), expected[h])
            << "head " << h << " of " << heads << ", " << tokens << " tokens, pages of "
            << selector.page_size << ", budget " << budget << ", bits " << name_of(selector.bits)
            << ", anchor " << name_of(selector.anchor.kind) << ", pick " << Picker::name;
    }
}

TEST(PageSelectorAgainstReference, EveryPageSizeAndRaggedLength) {
    std::uint64_t seed = 0;
    for (const std::size_t heads : std::initializer_list<std::size_t>{1, 2, 3, 8, 9, 17, 33, 64}) {
        for (const std::size_t page_size : std::initializer_list<std::size_t>{1, 2, 5, 16, 32}) {
            for (const std::size_t tokens :
                 std::initializer_list<std::size_t>{0, 1, 36, 63, 64, 65, 200, 257}) {
                ++seed;
                compare_with_reference<linspace_picker>(
                    heads, tokens, {4, 8}, tokens / (1 + seed % 3), {.page_size = page_size}, seed);
            }
        }
    }
}

TEST(PageSelectorAgainstReference, EveryCombinationOfParts) {
    std::uint64_t seed = 1000;
    for (const anchor_kind kind : {anchor_kind::zeros,
                                   anchor_kind::ones,
                                   anchor_kind::alternate,
                                   anchor_kind::random,
                                   anchor_kind::mean,
                                   anchor_kind::inverse_mean}) {
        for (const page_bits bits :
             {page_bits::per_head, page_bits::summed, page_bits::summed_rest}) {
            for (const page_table table : {page_table::per_head, page_table::shared}) {
                for (const anchor_span span : {anchor_span::bit, anchor_span::page}) {
                    for (const double share : {0.0, 0.25, 1.0}) {
                        const bool of_codes =
                            kind == anchor_kind::mean || kind == anchor_kind::inverse_mean;
                        if ((bits == page_bits::summed_rest && table == page_table::per_head) ||
                            (span == anchor_span::page && of_codes)) {
                            continue; // refused by validate()
                        }
                        ++seed;
                        const auto compare = [&](auto picker) {
                            compare_with_reference<decltype(picker)>(
                                3,
                                203,
                                {8, 13},
                                101,
                                {.page_size = 8,
                                 .share = share,
                                 .table = table,
                                 .bits = bits,
                                 .quantile = seed % 2 == 0 ? 0.5 : 0.3,
                                 .anchor = {.kind = kind, .seed = 3},
                                 .span = span,
                                 .sort = seed % 5 < 2 ? distance_sort::descending
                                                      : distance_sort::ascending},
                                seed);
                        };
                        compare(linspace_picker{});
                        compare(step_picker{});
                        compare(farthest_picker{});
                        compare(most_important_picker{});
                    }
                }
            }
        }
    }
}

} // namespace
} // namespace kvcrush
