// SPDX-License-Identifier: Apache-2.0
/// @file
/// Columns that line up.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace lab {

using table_line = std::vector<std::string>;

/// @param lines  all of the same length, the titles first; control characters in them are made visible
/// @param left   how many columns, from the first on, begin at the same place; the others end there
[[nodiscard]] std::string aligned(std::vector<table_line> lines, std::size_t left);

} // namespace lab
