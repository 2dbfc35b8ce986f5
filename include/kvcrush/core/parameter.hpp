// SPDX-License-Identifier: Apache-2.0
/// @file
/// How a policy names its parameters, so that programs can print, list and parse any policy without knowing it.
///
///     struct my_scorer {
///         static constexpr std::string_view name = "mine";
///         double decay = 0.9;
///         static constexpr auto parameters() {
///             return std::tuple{parameter{"decay", &my_scorer::decay, "weight of the step before"}};
///         }
///     };
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

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

/// The values of an enumeration with their names: specialise with a static constexpr array `values` of
/// (name, value) pairs.
template <typename Enum>
struct enum_names;

template <typename Enum>
concept NamedEnum = std::is_enum_v<Enum> && requires { enum_names<Enum>::values; };

template <NamedEnum Enum>
[[nodiscard]] constexpr std::string_view name_of(Enum value) noexcept {
    for (const auto& [name, candidate] : enum_names<Enum>::values) {
        if (candidate == value) {
            return name;
        }
    }
    return "unnamed";
}

/// A small value with a name, checked once before use.
template <typename P>
concept Policy = std::copyable<P> && requires(const P& policy) {
    { P::name } -> std::convertible_to<std::string_view>;
    policy.validate();
    P::parameters();
};

} // namespace v0
} // namespace kvcrush
