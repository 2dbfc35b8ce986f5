// SPDX-License-Identifier: Apache-2.0
/// @file
/// What was measured, as a table with the bars beside it and as JSON.
#pragma once

#include "turns.hpp"

#include <string>
#include <vector>

namespace turns {

[[nodiscard]] std::string table_of(const std::vector<row>& rows);
[[nodiscard]] std::string json_of(const std::vector<row>& rows);

} // namespace turns
