// SPDX-License-Identifier: Apache-2.0
/// @file
/// The text form of policies: `kvcrush(h2o(last=256),anchor=alternate,share=0.25)`.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lab {

/// A name with arguments. `window=8` is a named argument whose expression is the bare name `8`.
struct expression {
    std::string name;
    /// What stands before the = of a named argument.
    std::string key;
    std::vector<expression> positional;
    std::vector<expression> named;
    /// As it was written.
    std::string text;
};

/// @throws input_error naming the place where the text stops making sense
[[nodiscard]] expression parse_expression(std::string_view text);

/// Splits at the commas that stand outside parentheses; empty parts are an error.
[[nodiscard]] std::vector<std::string> split_list(std::string_view text);

} // namespace lab
