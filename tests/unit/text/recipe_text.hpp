// SPDX-License-Identifier: Apache-2.0
/// @file
/// parse_recipe and to_text of the library's catalogue, compiled once for all tests.
#pragma once

#include <kvcrush/recipe/recipe.hpp>

#include <string>
#include <string_view>

namespace kvcrush {

[[nodiscard]] recipe parse(std::string_view text);
[[nodiscard]] std::string written(const recipe& how);

/// The text of what a text is read as.
[[nodiscard]] std::string canonical(std::string_view text);
/// What parse() throws; always one line.
[[nodiscard]] std::string message_of(std::string_view text);

} // namespace kvcrush
