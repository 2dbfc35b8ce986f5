// SPDX-License-Identifier: Apache-2.0
/// @file
/// `ada_kv(BASE, ...)`, `pyramid_kv(BASE, ...)`, ...: what divides a budget over layers and heads.
#pragma once

#include "any_allocator.hpp"
#include "area_parameters.hpp"
#include "expression.hpp"
#include "layer_plan.hpp"
#include "policy_help.hpp"

#include <string_view>
#include <vector>

namespace lab {

/// What an allocation adds to the policy inside its parentheses. One of the two is set.
struct allocation {
    any_allocator allocator{};
    layer_planner planner{};
};

[[nodiscard]] std::vector<std::string_view> allocation_names();

/// Sets sinks and recent tokens among the arguments, too.
/// @throws input_error naming what is misspelt or out of range, and what is allowed
[[nodiscard]] allocation parse_allocation(const expression& text, area_parameters& areas);

[[nodiscard]] std::vector<policy_help> list_allocations();

} // namespace lab
