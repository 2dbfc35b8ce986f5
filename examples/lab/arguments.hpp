// SPDX-License-Identifier: Apache-2.0
/// @file
/// Fills policies from the named arguments of an expression, and says what is wrong with them.
#pragma once

#include "alternatives.hpp"
#include "error.hpp"
#include "expression.hpp"
#include "parameters.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace lab {

[[nodiscard]] inline std::string join(const std::vector<std::string_view>& names,
                                      std::string_view between) {
    return fmt::format("{}", fmt::join(names, between));
}

/// @throws input_error if the value of a named argument is an expression of its own
inline void require_plain(const expression& owner, const expression& value) {
    if (!value.positional.empty() || !value.named.empty()) {
        fail("policy ",
             owner.name,
             ": ",
             value.key,
             " takes a plain value, not ",
             in_quotes(value.text));
    }
}

/// Sets the first of `policies` that has a parameter of that name.
/// @param more  further names to list when there is none
/// @throws input_error if none has it, or if the value is not one of the parameter's
template <typename... Policies>
void set_argument(const expression& owner,
                  const expression& value,
                  std::vector<std::string> more,
                  Policies&... policies) {
    require_plain(owner, value);
    if (!(set_parameter(policies, owner.name, value.key, value.text) || ...)) {
        (append_names(policies, more), ...);
        fail("policy ",
             owner.name,
             ": there is no parameter ",
             in_quotes(value.key),
             "; it has ",
             more.empty() ? std::string("none") : fmt::format("{}", fmt::join(more, ", ")));
    }
}

/// A scorer, or another policy of a variant, by name with its arguments.
/// @param shared  policies whose parameters may stand among the arguments, too
/// @throws input_error naming what is misspelt or out of range, and what is allowed
template <typename Variant, typename... Shared>
[[nodiscard]] Variant parse_choice(const expression& text, Shared&... shared) {
    Variant chosen;
    if (!choose(text.name, chosen)) {
        fail("policy ",
             in_quotes(text.name),
             " is unknown here; allowed: ",
             join(names_of<Variant>(), ", "));
    }
    if (!text.positional.empty()) {
        fail("policy ",
             text.name,
             ": ",
             in_quotes(text.positional.front().text),
             " has no name; write parameter=value");
    }
    std::visit(
        [&](auto& policy) {
            for (const expression& value : text.named) {
                set_argument(text, value, {}, policy, shared...);
            }
            policy.validate();
        },
        chosen);
    return chosen;
}

} // namespace lab
