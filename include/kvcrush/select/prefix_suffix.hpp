// SPDX-License-Identifier: Apache-2.0
/// @file
/// The first and the last tokens, whatever anybody thinks of them.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/select/selector.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Keeps the first `num_prefix_tokens` tokens and fills the budget with the last ones. Scores are not read.
///
///     |<- prefix ->|          dropped          |<- suffix = budget - prefix ->|
///
/// Sinks and recent tokens are kept first; where the budget leaves less than the prefix needs, the prefix is shorter.
/// @note Behind an allocator that gives each layer its own count, this is what methods with a stopping rule keep.
/// @see  StreamingLLM, arXiv:2309.17453 (prefix 4), and ReFreeKV, arXiv:2502.16886 (prefix 4, the count from its rule).
///       Deviation: keys keep their true positions.
struct prefix_suffix_selector {
    static constexpr std::string_view name = "prefix_suffix";
    static constexpr bool reads_scores = false;
    static constexpr std::string_view about = "the first tokens and the last ones";

    /// Tokens kept at the start, sinks included.
    std::size_t num_prefix_tokens = 4;

    static constexpr auto parameters() {
        return parameter_list{parameter{"prefix",
                                        &prefix_suffix_selector::num_prefix_tokens,
                                        "tokens kept at the start, sinks included"}};
    }
    void validate() const {}

    [[nodiscard]] std::size_t scratch_bytes(const problem_size&) const noexcept { return 0; }

    /// @see Selector
    template <typename... Inputs>
    void select(const selection_request& request, selection& out, const Inputs&...) const noexcept {
        const areas& area = request.area;
        out.clear();
        for (std::size_t head = 0; head < request.scores.num_heads(); ++head) {
            const std::size_t budget = detail::middle_budget(area, request.counts[head]);
            const std::size_t wanted =
                num_prefix_tokens - (std::min)(num_prefix_tokens, area.middle_begin);
            const std::size_t more = (std::min)(wanted, budget);
            out.extend_range(0, area.middle_begin + more);
            out.extend_range(area.middle_end - (budget - more), area.seq_len);
            out.end_head();
        }
    }
};

} // namespace v0
} // namespace kvcrush
