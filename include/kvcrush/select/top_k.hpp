// SPDX-License-Identifier: Apache-2.0
/// @file
/// The best-scored tokens of each head.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/select/selector.hpp>
#include <kvcrush/simd/top_k.hpp>

#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Keeps sinks, recent tokens and the best of the middle; ties keep the earlier token, NaN is the lowest score.
struct top_k_selector {
    static constexpr std::string_view name = "top_k";
    static constexpr std::string_view about = "the best-scored tokens of each head";
    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}

    [[nodiscard]] std::size_t scratch_bytes(const problem_size&) const noexcept { return 0; }

    template <typename... Inputs>
    void select(const selection_request& request, selection& out, const Inputs&...) const noexcept {
        const const_head_scores scores = request.scores;
        const areas& area = request.area;
        out.clear();
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const std::size_t middle = detail::middle_budget(area, request.counts[head]);
            out.extend_range(0, area.middle_begin);
            simd::top_k(area.middle(scores.row(head)),
                        middle,
                        out.extend(middle),
                        static_cast<token_index>(area.middle_begin));
            out.extend_range(area.middle_end, area.seq_len);
            out.end_head();
        }
    }
};

} // namespace v0
} // namespace kvcrush
