// SPDX-License-Identifier: Apache-2.0
/// @file
/// Representatives at a whole step from the nearest on.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/grouping/picker.hpp>

#include <cstddef>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Picks candidates i * floor(candidates / picks). Never reaches the far end; with fewer than two candidates per pick
/// it takes the nearest ones.
/// @see OpenVINO GenAI's KVCrush.
struct step_picker {
    static constexpr std::string_view name = "step";
    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}

    [[nodiscard]] constexpr std::size_t
    rank(std::size_t i, std::size_t candidates, std::size_t picks) const noexcept {
        return picks == 0 ? 0 : i * (candidates / picks);
    }
};
static_assert(RankPicker<step_picker>);

} // namespace v0
} // namespace kvcrush
