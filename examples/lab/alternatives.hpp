// SPDX-License-Identifier: Apache-2.0
/// @file
/// The policies of a variant by name: to list them, to choose one, to explain them.
#pragma once

#include "area_parameters.hpp"
#include "policy_help.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lab {

/// Calls visit(policy) for each alternative with its defaults, in order.
template <typename Variant, typename Visit>
void for_each_alternative(const Visit& visit) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
        (visit(std::variant_alternative_t<I, Variant>{}), ...);
    }(std::make_index_sequence<std::variant_size_v<Variant>>{});
}

template <typename Variant>
[[nodiscard]] std::vector<std::string_view> names_of() {
    std::vector<std::string_view> names;
    for_each_alternative<Variant>([&](const auto& policy) { names.push_back(policy.name); });
    return names;
}

/// Makes `chosen` the alternative with the given name.
/// @return false if there is none
template <typename Variant>
[[nodiscard]] bool choose(std::string_view name, Variant& chosen) {
    bool found = false;
    for_each_alternative<Variant>([&](const auto& candidate) {
        if (!found && candidate.name == name) {
            chosen = candidate;
            found = true;
        }
    });
    return found;
}

/// What a user can read about each alternative, sinks and recent tokens included.
/// @param suffix  follows the name: what stands in parentheses
template <typename Variant>
[[nodiscard]] std::vector<policy_help> help_of(std::string_view suffix = "") {
    std::vector<policy_help> list;
    for_each_alternative<Variant>([&](const auto& policy) {
        policy_help help{std::string(policy.name).append(suffix), std::string(policy.about), {}};
        help.add(policy);
        help.add(area_parameters{});
        list.push_back(std::move(help));
    });
    return list;
}

} // namespace lab
