// SPDX-License-Identifier: Apache-2.0
/// @file
/// Representatives at even spacing, first and last candidate included.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/grouping/picker.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <tuple>

namespace kvcrush {
inline namespace v0 {

/// Picks candidates floor(i * (candidates - 1) / (picks - 1)): every distance is represented in proportion to how many
/// tokens have it. One pick takes the nearest.
/// @see KVCrush, arXiv:2503.00022; the index rule is that of the authors' vLLM code.
struct linspace_picker {
    static constexpr std::string_view name = "linspace";
    static constexpr auto parameters() { return std::tuple{}; }
    void validate() const {}

    void pick(std::span<const token_index> order,
              std::span<const float>,
              std::span<token_index> out) const noexcept {
        KVCRUSH_ASSERT(out.size() <= order.size());
        for (std::size_t i = 0; i < out.size(); ++i) {
            const std::uint64_t place =
                out.size() == 1 ? 0 : std::uint64_t{i} * (order.size() - 1) / (out.size() - 1);
            out[i] = order[static_cast<std::size_t>(place)];
        }
    }
};
static_assert(RepresentativePicker<linspace_picker>);

} // namespace v0
} // namespace kvcrush
