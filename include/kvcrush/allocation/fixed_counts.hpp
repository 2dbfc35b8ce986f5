// SPDX-License-Identifier: Apache-2.0
/// @file
/// Counts that were decided elsewhere: by a profile, by a look at all layers together, by the engine.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Gives each kv head the tokens that are written down for it.
///
///     const head_counts counts = baklava{}.counts(profile, model, seq_len, tokens);
///     compressor crush(snapkv_scorer{}, top_k_selector{}, fixed_counts{counts.layer(0)});
///     crush.plan(size, tokens);
///     for each layer l:
///         crush.set_allocator(fixed_counts{counts.layer(l)});
///         compact(kv, crush.select(kv, queries));
/// @note The budget of the plan then only says which tokens are protected: a count below that becomes as many, and one
///       above the sequence becomes the sequence.
struct fixed_counts {
    static constexpr std::string_view name = "fixed_counts";
    static constexpr bool reads_scores = false;

    /// Tokens per kv head of the layer, sinks and recent included. The memory is the caller's and must outlive this.
    std::span<const std::size_t> counts{};

    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}

    /// @throws std::invalid_argument if there is not one count per kv head
    void validate_for(const problem_size& size) const {
        detail::require(counts.size() == size.kv.num_kv_heads,
                        "fixed_counts: ",
                        counts.size(),
                        " counts are given; the layer has ",
                        size.kv.num_kv_heads,
                        " kv heads");
    }

    /// @param[out] out  [num_kv_heads]
    void allocate(const_head_scores,
                  const areas& area,
                  std::size_t,
                  std::span<std::size_t> out) const noexcept {
        KVCRUSH_ASSERT(counts.size() == out.size());
        for (std::size_t head = 0; head < (std::min)(out.size(), counts.size()); ++head) {
            out[head] = (std::clamp)(counts[head], area.num_protected(), area.seq_len);
        }
    }
};

} // namespace v0
} // namespace kvcrush
