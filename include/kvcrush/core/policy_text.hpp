// SPDX-License-Identifier: Apache-2.0
/// @file
/// A policy as text, from what it says of its parameters.
#pragma once

#include <kvcrush/core/parameter.hpp>

#include <array>
#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

namespace detail {

/// Members of a policy that are policies themselves and whose parameters are written as its own: what it says in
/// `static constexpr auto parts()`, a parameter_list of pointers to members.
template <typename P>
[[nodiscard]] constexpr auto parts_of() {
    if constexpr (requires { P::parts(); }) {
        return P::parts();
    } else {
        return parameter_list{};
    }
}

} // namespace detail

/// Calls visit(name, member, about) for each parameter of a policy, and then for those of its parts.
template <typename P, typename Visit>
void for_each_parameter(P& policy, Visit&& visit) {
    using own = std::remove_const_t<P>;
    own::parameters().visit(
        [&](const auto& row) { visit(row.name, policy.*(row.member), row.about); });
    detail::parts_of<own>().visit(
        [&](const auto& part) { for_each_parameter(policy.*part, visit); });
}

/// The value of a parameter: a name of its enumeration, 0 or 1, or the shortest number that reads back as the same.
template <typename T>
[[nodiscard]] std::string parameter_text(const T& value) {
    if constexpr (NamedEnum<T>) {
        return std::string(name_of(value));
    } else if constexpr (std::is_same_v<T, bool>) {
        return value ? "1" : "0";
    } else {
        std::array<char, 32> digits;
        const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
        return {digits.data(), end};
    }
}

/// "a" and "b" to "a,b"; nothing to either is the other.
inline void append_argument(std::string& arguments, std::string_view argument) {
    if (!arguments.empty() && !argument.empty()) {
        arguments += ',';
    }
    arguments += argument;
}
inline void
append_argument(std::string& arguments, std::string_view parameter, std::string_view value) {
    append_argument(arguments, parameter);
    arguments.append("=").append(value);
}

/// Parameters that differ from those of `standard`, "window=8,pool=avg"; those of parts included.
template <typename P>
[[nodiscard]] std::string changed_parameters(const P& policy, const P& standard) {
    std::string result;
    P::parameters().visit([&](const auto& row) {
        if (policy.*(row.member) != standard.*(row.member)) {
            append_argument(result, row.name, parameter_text(policy.*(row.member)));
        }
    });
    detail::parts_of<P>().visit([&](const auto& part) {
        append_argument(result, changed_parameters(policy.*part, standard.*part));
    });
    return result;
}

/// Parameters that differ from their defaults. A policy made of others that are chosen by name says it itself, by a member
/// arguments().
template <Policy P>
[[nodiscard]] std::string policy_arguments(const P& policy) {
    if constexpr (requires { policy.arguments(); }) {
        return policy.arguments();
    } else {
        return changed_parameters(policy, P{});
    }
}

/// "name", or "name(arguments)".
[[nodiscard]] inline std::string call_text(std::string_view name, std::string_view arguments) {
    std::string result(name);
    if (!arguments.empty()) {
        result.append("(").append(arguments).append(")");
    }
    return result;
}

/// A policy as it is written in a policy expression, "snapkv(window=8)".
template <Policy P>
[[nodiscard]] std::string policy_text(const P& policy) {
    if constexpr (requires { policy.policy_name(); }) {
        return call_text(policy.policy_name(), policy_arguments(policy));
    } else {
        return call_text(P::name, policy_arguments(policy));
    }
}

} // namespace v0
} // namespace kvcrush
