// SPDX-License-Identifier: Apache-2.0
/// @file
/// From the scores and keys of pages to the pages that stay: what page_selector and page_stream have in common.
#pragma once

#include <kvcrush/core/scratch.hpp>
#include <kvcrush/grouping/distance_order.hpp>
#include <kvcrush/grouping/representatives.hpp>
#include <kvcrush/grouping/token_groups.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// How a page budget is divided.
struct page_counts {
    std::size_t important = 0;
    std::size_t representatives = 0;
};

namespace detail {

/// Keeps the best pages and representatives of the rest.
/// @param[in]  scores  one per page
/// @param[in]  keys    one per page, as group_tokens() gives them
/// @param[out] kept    [simd::bitmap_words(pages)]
template <typename Picker, simd::Distance Key>
void choose_pages(const Picker& picker,
                  std::span<const float> scores,
                  std::span<const Key> keys,
                  const group_keys& possible,
                  distance_sort sort,
                  const page_counts& counts,
                  std::span<const std::uint64_t> important,
                  std::span<std::uint64_t> kept,
                  scratch memory) noexcept {
    std::copy(important.begin(), important.end(), kept.begin());
    if (counts.representatives > 0) {
        mark_representatives(
            picker, keys, possible, sort, scores, important, counts.representatives, kept, memory);
    }
}

/// Adds the scores of one head to those of others; what is NaN adds nothing.
inline void add_scores(std::span<const float> scores, std::span<float> sums) noexcept {
    for (std::size_t t = 0; t < sums.size(); ++t) {
        sums[t] += std::isnan(scores[t]) ? 0.0F : scores[t];
    }
}

/// Adds up the scores of each page; what is NaN adds nothing.
inline void
sum_pages(std::span<const float> scores, std::size_t page_size, std::span<float> out) noexcept {
    for (std::size_t page = 0; page < out.size(); ++page) {
        const auto own = scores.subspan(page * page_size, page_size);
        std::array<double, 4> sums{}; // four chains: an addition takes four cycles
        for (std::size_t i = 0; i < own.size(); ++i) {
            sums[i % 4] += std::isnan(own[i]) ? 0.0 : static_cast<double>(own[i]);
        }
        out[page] = static_cast<float>((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
}

} // namespace detail

} // namespace v0
} // namespace kvcrush
