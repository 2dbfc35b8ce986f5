// SPDX-License-Identifier: Apache-2.0
/// @file
/// Types of policies in a list, and what can be done with one that is known by its name.
#pragma once

#include <string_view>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Policies by type; each has a name of its own.
template <typename... Ps>
struct policy_list {
    [[nodiscard]] static std::vector<std::string_view> names() { return {Ps::name...}; }
    [[nodiscard]] static constexpr bool contains(std::string_view name) noexcept {
        return ((Ps::name == name) || ...);
    }
    /// Calls visit(policy) for each with its defaults, in order.
    template <typename Visit>
    static void for_each(const Visit& visit) {
        (visit(Ps{}), ...);
    }
    /// Calls use(policy) for the first of that name, with its defaults.
    /// @return false if there is none
    template <typename Use>
    [[nodiscard]] static bool with(std::string_view name, const Use& use) {
        return ((Ps::name == name && (use(Ps{}), true)) || ...);
    }
};

namespace detail {

template <typename List, typename... More>
struct extended_list;
template <typename... Ps, typename... More>
struct extended_list<policy_list<Ps...>, More...> {
    using type = policy_list<More..., Ps...>;
};

} // namespace detail

/// A list with more policies; of two with one name the added one counts.
template <typename List, typename... More>
using extended = typename detail::extended_list<List, More...>::type;

} // namespace v0
} // namespace kvcrush
