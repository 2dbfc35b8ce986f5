// SPDX-License-Identifier: Apache-2.0
/// @file
/// From query heads to kv heads.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/parameter.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// How the query heads that share a kv head become one row of scores.
enum class head_reduction { mean, max, sum };

template <>
struct enum_names<head_reduction> {
    static constexpr named_value<head_reduction> values[] = {
        {"mean", head_reduction::mean}, {"max", head_reduction::max}, {"sum", head_reduction::sum}};
};

/// Folds rows [first_head, first_head + num_heads) of `mass` into one row.
/// @note NaN poisons mean and sum of its token (it counts as lowest later), and is passed over by max.
inline void fold_heads(const_head_scores mass,
                       std::size_t first_head,
                       std::size_t num_heads,
                       head_reduction reduction,
                       std::span<float> out) noexcept {
    KVCRUSH_ASSERT(first_head + num_heads <= mass.num_heads() && out.size() == mass.seq_len());
    const bool largest = reduction == head_reduction::max;
    std::fill(out.begin(), out.end(), largest ? -std::numeric_limits<float>::infinity() : 0.0F);
    for (std::size_t head = first_head; head < first_head + num_heads; ++head) {
        const std::span<const float> row = mass.row(head);
        if (largest) {
            for (std::size_t t = 0; t < out.size(); ++t) {
                out[t] = row[t] > out[t] ? row[t] : out[t];
            }
        } else {
            for (std::size_t t = 0; t < out.size(); ++t) {
                out[t] += row[t];
            }
        }
    }
    if (reduction == head_reduction::mean && num_heads > 0) {
        for (float& value : out) {
            value /= static_cast<float>(num_heads);
        }
    }
}

/// Folds each group of query heads into its kv head; query head h belongs to kv head h / group_size.
/// @pre mass.num_heads() is a multiple of scores.num_heads()
inline void
fold_groups(const_head_scores mass, head_reduction reduction, head_scores scores) noexcept {
    const std::size_t group_size =
        scores.num_heads() == 0 ? 0 : mass.num_heads() / scores.num_heads();
    KVCRUSH_ASSERT(group_size * scores.num_heads() == mass.num_heads());
    for (std::size_t head = 0; head < scores.num_heads(); ++head) {
        fold_heads(mass, head * group_size, group_size, reduction, scores.row(head));
    }
}

} // namespace v0
} // namespace kvcrush
