// SPDX-License-Identifier: Apache-2.0
/// @file
/// Scores that somebody else made: an observer, KVzip, the engine itself.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/parameter.hpp>

#include <algorithm>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Hands scores to a compressor, so that any selector and allocator can work with them.
///
///     compressor crush(given_scorer{}, kvcrush_selector<>{});
///     for each layer:
///         crush.set_scorer({observers[layer].scores()});     // or kvzip_scores::layer(layer)
///         compact(kv, crush.select(kv));
/// With scores of query heads fold them first: a selection is made per kv head.
struct given_scorer {
    static constexpr std::string_view name = "given";
    static constexpr std::string_view about = "what it is told";
    static constexpr bool needs_attention = false;
    static constexpr bool reads_cache = false;

    /// [num_kv_heads, seq_len], the caller's memory
    const_head_scores scores{};

    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}

    /// @pre the given scores have the shape of the cache; otherwise (release builds) all scores are 0
    template <KvSource Kv>
    void score(const Kv&, head_scores out) const noexcept {
        const bool fits =
            scores.num_heads() == out.num_heads() && scores.seq_len() == out.seq_len();
        KVCRUSH_ASSERT(fits && "kvcrush: the given scores are those of another cache");
        if (fits) {
            std::copy(scores.values().begin(), scores.values().end(), out.values().begin());
        } else {
            std::fill(out.values().begin(), out.values().end(), 0.0F);
        }
    }
};

} // namespace v0
} // namespace kvcrush
