// SPDX-License-Identifier: Apache-2.0
/// @file
/// Representatives at a whole step from the nearest on.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/grouping/picker.hpp>

#include <cstddef>
#include <span>
#include <string_view>
#include <tuple>

namespace kvcrush {
inline namespace v0 {

/// Picks candidates i * floor(candidates / picks). Never reaches the far end; with fewer than two candidates per pick
/// it takes the nearest ones.
/// @see OpenVINO GenAI's KVCrush.
struct step_picker {
    static constexpr std::string_view name = "step";
    static constexpr auto parameters() { return std::tuple{}; }
    void validate() const {}

    void pick(std::span<const token_index> order,
              std::span<const float>,
              std::span<token_index> out) const noexcept {
        KVCRUSH_ASSERT(out.size() <= order.size());
        const std::size_t step = out.empty() ? 0 : order.size() / out.size();
        for (std::size_t i = 0; i < out.size(); ++i) {
            out[i] = order[i * step];
        }
    }
};
static_assert(RepresentativePicker<step_picker>);

} // namespace v0
} // namespace kvcrush
