// SPDX-License-Identifier: Apache-2.0
/// @file
/// Fills policies from the named arguments of an expression, and says what is wrong with them.
#pragma once

#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/policy_text.hpp>
#include <kvcrush/text/expression.hpp>

#include <charconv>
#include <cstddef>
#include <locale>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <vector>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Sinks and recent tokens, which may be given to any policy.
struct area_parameters {
    std::size_t sinks = area_sizes{}.num_sink_tokens;
    std::size_t recent = area_sizes{}.num_recent_tokens;

    static constexpr auto parameters() {
        return parameter_list{
            parameter{"sinks", &area_parameters::sinks, "tokens always kept at the start"},
            parameter{"recent", &area_parameters::recent, "tokens always kept at the end"}};
    }
    [[nodiscard]] area_sizes chosen() const noexcept { return {sinks, recent}; }
};

/// What a parameter of type T may be, for messages and help.
template <typename T>
[[nodiscard]] std::string allowed_values() {
    if constexpr (NamedEnum<T>) {
        std::vector<std::string_view> names;
        for (const auto& [name, value] : enum_names<T>::values) {
            names.push_back(name);
        }
        return join(names, "|");
    } else if constexpr (std::is_same_v<T, bool>) {
        return "0|1";
    } else if constexpr (std::is_integral_v<T>) {
        return "a whole number";
    } else {
        return "a number";
    }
}

/// Reads a number, and nothing behind it.
template <typename T>
[[nodiscard]] bool parse_number(std::string_view text, T& value) {
#if !defined(__cpp_lib_to_chars) // libc++ reads whole numbers alone
    if constexpr (std::is_floating_point_v<T>) {
        std::istringstream in{std::string(text)};
        in.imbue(std::locale::classic());
        return static_cast<bool>(in >> std::noskipws >> value) && in.peek() == EOF;
    } else
#endif
    {
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        return error == std::errc() && end == text.data() + text.size();
    }
}

/// @return false if the text is no value of T
template <typename T>
[[nodiscard]] bool parse_value(std::string_view text, T& value) {
    if constexpr (NamedEnum<T>) {
        for (const auto& [name, candidate] : enum_names<T>::values) {
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
        return parse_number(text, value);
    }
}

/// Sets the parameter called `name`, if the policy or a part of it has one.
/// @return false if it has none
/// @throws std::invalid_argument if the value is not one of the parameter's
template <typename P>
[[nodiscard]] bool
set_parameter(P& policy, std::string_view owner, std::string_view name, std::string_view text) {
    bool found = false;
    for_each_parameter(policy, [&](std::string_view candidate, auto& member, std::string_view) {
        if (candidate == name) {
            found = true;
            if (!parse_value(text, member)) {
                fail({"policy ",
                     owner,
                     ": ",
                     name,
                     " is ",
                     in_quotes(text),
                     "; allowed: ",
                     allowed_values<std::remove_reference_t<decltype(member)>>()});
            }
        }
    });
    return found;
}

/// @throws std::invalid_argument if the value of a named argument is an expression of its own
inline void require_plain(const expression& owner, const expression& value) {
    require(value.text == value.name,
            "policy ",
            owner.name,
            ": ",
            value.key,
            " takes a plain value, not ",
            in_quotes(value.text));
}

/// Sets the first of `policies` that has a parameter of that name.
/// @param more  further names to list when there is none
/// @throws std::invalid_argument if none has it, or if the value is not one of the parameter's
template <typename... Ps>
void set_argument(const expression& owner,
                  const expression& value,
                  std::vector<std::string_view> more,
                  Ps&... policies) {
    const auto list_names = [&](const auto& policy) {
        for_each_parameter(policy, [&](std::string_view name, const auto&, std::string_view) {
            more.push_back(name);
        });
    };
    const auto is_known = [&](const auto& policy) {
        bool known = false;
        for_each_parameter(policy, [&](std::string_view name, const auto&, std::string_view) {
            known = known || name == value.key;
        });
        return known;
    };
    if (!(is_known(policies) || ...)) {
        (list_names(policies), ...);
        fail({"policy ",
             owner.name,
             ": there is no parameter ",
             in_quotes(value.key),
             "; it has ",
             more.empty() ? std::string("none") : join(more, ", ")});
    }
    require_plain(owner, value);
    static_cast<void>((set_parameter(policies, owner.name, value.key, value.text) || ...));
}

/// Sets all named arguments, likewise.
template <typename... Ps>
void set_arguments(const expression& text, Ps&... policies) {
    for (const expression& value : text.named) {
        set_argument(text, value, {}, policies...);
    }
}

inline void require_no_positional(const expression& text, std::string_view instead) {
    if (!text.positional.empty()) {
        fail({"policy ",
             text.name,
             ": ",
             in_quotes(text.positional.front().text),
             " has no name; write ",
             instead});
    }
}

/// Calls use(policy) with the policy of a list that an expression names, its parameters set.
/// @param shared  policies whose parameters may stand among the arguments, too
/// @throws std::invalid_argument naming what is misspelt or out of range, and what is allowed
template <typename List, typename Use, typename... Shared>
void parse_choice(const expression& text, const Use& use, Shared&... shared) {
    const bool known = List::with(text.name, [&](auto policy) {
        require_no_positional(text, "parameter=value");
        set_arguments(text, policy, shared...);
        policy.validate();
        use(policy);
    });
    require(known,
            "policy ",
            in_quotes(text.name),
            " is unknown here; allowed: ",
            join(List::names(), ", "));
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
