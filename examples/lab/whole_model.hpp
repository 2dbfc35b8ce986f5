// SPDX-License-Identifier: Apache-2.0
/// @file
/// Methods that settle by themselves what every layer keeps, from more than its cache: kvzip runs the model again,
/// dbudget_kv has no budget to be given.
#pragma once

#include "area_parameters.hpp"
#include "expression.hpp"
#include "layer_plan.hpp"
#include "policy_help.hpp"

#include <string_view>
#include <vector>

namespace lab {

[[nodiscard]] std::vector<std::string_view> whole_model_names();

/// Sets sinks and recent tokens among the arguments, too.
/// @throws input_error naming what is misspelt or out of range, and what is allowed
[[nodiscard]] layer_planner parse_whole_model(const expression& text, area_parameters& areas);

[[nodiscard]] std::vector<policy_help> list_whole_model();

} // namespace lab
