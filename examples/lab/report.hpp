// SPDX-License-Identifier: Apache-2.0
/// @file
/// Measurements for people (an aligned table) and for scripts (JSON).
#pragma once

#include "experiment.hpp"

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <vector>

namespace lab {

/// One line per measurement, and a legend of the columns below.
[[nodiscard]] std::string table_of(const std::vector<measurement>& measurements);

/// The `results` list of the JSON contract: every key is always there, null where a task has no such figure.
/// @param task  what was measured, such as "run" or "windows"
[[nodiscard]] nlohmann::json json_of(const std::vector<measurement>& measurements,
                                     const std::string& task);

/// CPU, rung and threads this program runs with.
[[nodiscard]] nlohmann::json json_of_machine();

} // namespace lab
