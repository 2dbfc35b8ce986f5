// SPDX-License-Identifier: Apache-2.0
/// @file
/// Reads and writes the named parameters of any policy of the library.
#pragma once

#include <kvcrush/core/parameter.hpp>

#include "error.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <vector>

namespace lab {

/// What a parameter of type T may be, for messages and help.
template <typename T>
[[nodiscard]] std::string allowed_values() {
    if constexpr (kvcrush::NamedEnum<T>) {
        std::vector<std::string_view> names;
        for (const auto& [name, value] : kvcrush::enum_names<T>::values) {
            names.push_back(name);
        }
        return fmt::format("{}", fmt::join(names, "|"));
    } else if constexpr (std::is_same_v<T, bool>) {
        return "0|1";
    } else if constexpr (std::is_integral_v<T>) {
        return "a whole number";
    } else {
        return "a number";
    }
}

/// @return false if the text is no value of T
template <typename T>
[[nodiscard]] bool parse_value(std::string_view text, T& value) {
    if constexpr (kvcrush::NamedEnum<T>) {
        for (const auto& [name, candidate] : kvcrush::enum_names<T>::values) {
            if (name == text) {
                value = candidate;
                return true;
            }
        }
        return false;
    } else if constexpr (std::is_same_v<T, bool>) {
        value = text == "1" || text == "true";
        return value || text == "0" || text == "false";
    } else {
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        return error == std::errc() && end == text.data() + text.size();
    }
}

template <typename T>
[[nodiscard]] std::string show_value(const T& value) {
    if constexpr (kvcrush::NamedEnum<T>) {
        return std::string(kvcrush::name_of(value));
    } else if constexpr (std::is_same_v<T, bool>) {
        return value ? "1" : "0";
    } else {
        return fmt::format("{}", value);
    }
}

/// Calls visit(name, member reference, about) for each parameter.
template <typename Policy, typename Visit>
void for_each_parameter(Policy& policy, Visit&& visit) {
    std::apply([&](const auto&... row) { (visit(row.name, policy.*(row.member), row.about), ...); },
               std::remove_const_t<Policy>::parameters());
}

/// Sets the parameter called `name`, if the policy has one.
/// @return false if it has none
/// @throws input_error if the value is not one of the parameter's
template <typename Policy>
[[nodiscard]] bool set_parameter(Policy& policy,
                                 std::string_view owner,
                                 std::string_view name,
                                 std::string_view text) {
    bool found = false;
    for_each_parameter(policy, [&](std::string_view candidate, auto& member, std::string_view) {
        using value_type = std::remove_reference_t<decltype(member)>;
        if (candidate == name) {
            found = true;
            if (!parse_value(text, member)) {
                fail("policy ",
                     owner,
                     ": ",
                     name,
                     " is ",
                     in_quotes(text),
                     "; allowed: ",
                     allowed_values<value_type>());
            }
        }
    });
    return found;
}

template <typename Policy>
void append_names(const Policy& policy, std::vector<std::string>& names) {
    for_each_parameter(policy, [&](std::string_view name, const auto&, std::string_view) {
        names.emplace_back(name);
    });
}

} // namespace lab
