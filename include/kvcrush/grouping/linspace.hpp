// SPDX-License-Identifier: Apache-2.0
/// @file
/// Representatives at even spacing, first and last candidate included.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/grouping/picker.hpp>

#include <cstddef>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Picks candidates floor(i * (candidates - 1) / (picks - 1)): every distance is represented in proportion to how many
/// tokens have it. One pick takes the nearest.
/// @see KVCrush, arXiv:2503.00022; the index rule is that of the authors' vLLM code.
struct linspace_picker {
    static constexpr std::string_view name = "linspace";
    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}

    [[nodiscard]] constexpr std::size_t
    rank(std::size_t i, std::size_t candidates, std::size_t picks) const noexcept {
        return picks < 2 ? 0 : detail::share_of(i, candidates - 1, picks - 1);
    }
};
static_assert(RankPicker<linspace_picker>);

} // namespace v0
} // namespace kvcrush
