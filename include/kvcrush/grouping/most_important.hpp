// SPDX-License-Identifier: Apache-2.0
/// @file
/// Each stratum sends its best token.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/grouping/picker.hpp>
#include <kvcrush/simd/ordered_key.hpp>

#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Cuts the order into as many nearly equal strata as there are picks and takes the best-scored token of each; the
/// nearest one on ties.
///
///     stratum i = candidates [floor(i * m / picks), floor((i + 1) * m / picks))
struct most_important_picker {
    static constexpr std::string_view name = "most_important";
    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}

    void pick(std::span<const token_index> order,
              std::span<const float> scores,
              std::span<token_index> out) const noexcept {
        KVCRUSH_ASSERT(out.size() <= order.size());
        std::size_t begin = 0;
        for (std::size_t i = 0; i < out.size(); ++i) {
            const auto end = detail::share_of(i + 1, order.size(), out.size());
            token_index best = order[begin];
            for (std::size_t place = begin + 1; place < end; ++place) {
                if (simd::ordered_key(scores[order[place]]) > simd::ordered_key(scores[best])) {
                    best = order[place];
                }
            }
            out[i] = best;
            begin = end;
        }
    }
};
static_assert(OrderPicker<most_important_picker>);

} // namespace v0
} // namespace kvcrush
