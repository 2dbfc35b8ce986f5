// SPDX-License-Identifier: Apache-2.0
/// @file
/// How a policy names its parameters, so that programs can print, list and parse any policy without knowing it.
///
///     struct my_scorer {
///         static constexpr std::string_view name = "mine";
///         double decay = 0.9;
///         static constexpr auto parameters() {
///             return parameter_list{parameter{"decay", &my_scorer::decay, "weight of the step before"}};
///         }
///     };
#pragma once

#include <concepts>
#include <string_view>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// One named member of a policy.
template <typename Policy, typename T>
struct parameter {
    std::string_view name;
    T Policy::*member;
    /// What it is, in a few words, with its unit.
    std::string_view about;
};
template <typename Policy, typename T>
parameter(std::string_view, T Policy::*, std::string_view) -> parameter<Policy, T>;

/// The parameters of a policy, one after the other. A std::tuple would do, and does more than that: those of all policies
/// took a sixth of the time in which this library compiles (g++ 12).
template <typename... Rows>
struct parameter_list;
template <>
struct parameter_list<> {
    /// Calls see(row) for each of them.
    constexpr void visit(const auto& /*see*/) const {}
};
template <typename Row, typename... Rest>
struct parameter_list<Row, Rest...> {
    Row row;
    parameter_list<Rest...> rest;

    explicit constexpr parameter_list(Row first, Rest... others) : row(first), rest(others...) {}
    constexpr void visit(const auto& see) const {
        see(row);
        rest.visit(see);
    }
};
template <typename... Rows>
parameter_list(Rows...) -> parameter_list<Rows...>;

template <typename Enum>
struct named_value {
    std::string_view name;
    Enum value;
};

/// The values of an enumeration with their names: specialise with a static constexpr array `values` of named_value.
template <typename Enum>
struct enum_names;

template <typename Enum>
concept NamedEnum = std::is_enum_v<Enum> && requires {
    enum_names<Enum>::values;
};

template <NamedEnum Enum>
[[nodiscard]] constexpr std::string_view name_of(Enum value) noexcept {
    for (const auto& [name, candidate] : enum_names<Enum>::values) {
        if (candidate == value) {
            return name;
        }
    }
    return "unnamed";
}

namespace detail {

/// Its address tells types apart, with or without RTTI.
template <typename T>
inline constexpr char type_tag = 0;

} // namespace detail

/// A small value with a name, checked once before use.
template <typename P>
concept Policy = std::copyable<P> && requires(const P& policy) {
    { P::name } -> std::convertible_to<std::string_view>;
    policy.validate();
    P::parameters();
};

} // namespace v0
} // namespace kvcrush
