// SPDX-License-Identifier: Apache-2.0
/// @file
/// Every kv head keeps the same number of tokens.
#pragma once

#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/parameter.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Gives each kv head the budget as it is.
struct uniform_allocator {
    static constexpr std::string_view name = "uniform";
    static constexpr bool reads_scores = false;

    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}

    /// @param[in]  tokens  budget per kv head, as budget::tokens_for() gives it
    /// @param[out] counts  tokens that each kv head keeps, sinks and recent included; their sum is
    ///                     tokens * num_kv_heads
    void allocate(const_head_scores,
                  const areas&,
                  std::size_t tokens,
                  std::span<std::size_t> counts) const noexcept {
        std::fill(counts.begin(), counts.end(), tokens);
    }
};

} // namespace v0
} // namespace kvcrush
