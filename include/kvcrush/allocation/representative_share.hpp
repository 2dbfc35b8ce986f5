// SPDX-License-Identifier: Apache-2.0
/// @file
/// How a budget is divided between important tokens and representatives of the rest.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/math/finite_mean.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

enum class budget_split {
    /// The share as given.
    fixed,
    /// The share as given, or less where few tokens are negligible: see representative_count().
    adaptive
};

template <>
struct enum_names<budget_split> {
    static constexpr named_value<budget_split> values[] = {{"fixed", budget_split::fixed},
                                                           {"adaptive", budget_split::adaptive}};
};

/// Part of the tokens whose score lies below factor * mean, for the smallest factor of 1e-6, 1e-5, ... 0.1 that makes
/// it a quarter or more; what it is at 0.1 otherwise. Scores that are not finite are left out.
[[nodiscard]] inline double negligible_part(std::span<const float> scores) noexcept {
    const auto [mean, count] = finite_mean(scores);
    if (count == 0) {
        return 0.0;
    }
    double part = 0.0;
    for (const double factor : {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1}) {
        std::size_t below = 0;
        for (const float score : scores) {
            below += std::isfinite(score) && static_cast<double>(score) < factor * mean ? 1U : 0U;
        }
        part = static_cast<double>(below) / static_cast<double>(count);
        if (part >= 0.25) {
            break;
        }
    }
    return part;
}

/// Representatives among `budget` tokens: floor(budget * share), with `adaptive` floor(budget * min(share, part of
/// the tokens that are negligible)).
/// @param scores  importance of the tokens that compete, read by `adaptive` alone
/// @see   KVCrush names a dynamic split as future work (arXiv:2503.00022); the rule is that of the authors' vLLM code,
///        there for all heads of a layer together, here per kv head
[[nodiscard]] inline std::size_t representative_count(double share,
                                                      budget_split split,
                                                      std::span<const float> scores,
                                                      std::size_t budget) noexcept {
    const double part =
        split == budget_split::adaptive ? (std::min)(share, negligible_part(scores)) : share;
    return static_cast<std::size_t>(part * static_cast<double>(budget));
}

} // namespace v0
} // namespace kvcrush
