// SPDX-License-Identifier: Apache-2.0
/// @file
/// Attention sinks and a sliding window, nothing else.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>

#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Scores a token by its place: the newest stay. With the sinks, which the areas protect, this is StreamingLLM.
/// @see arXiv:2309.17453. Deviation: keys keep their true positions; the authors renumber them inside the cache.
struct streaming_llm_scorer {
    static constexpr std::string_view name = "streaming_llm";
    static constexpr std::string_view about = "the first tokens and the newest ones";
    static constexpr bool needs_attention = false;
    static constexpr bool reads_cache = false;

    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}

    /// @param[out] scores  [num_kv_heads, seq_len]; above 2^24 tokens neighbours may tie, the earlier one then stays
    template <KvSource Kv>
    void score(const Kv&, head_scores scores) const noexcept {
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const std::span<float> row = scores.row(head);
            for (std::size_t token = 0; token < row.size(); ++token) {
                row[token] = static_cast<float>(token);
            }
        }
    }
};

} // namespace v0
} // namespace kvcrush
