// SPDX-License-Identifier: Apache-2.0
/// @file
/// Types of policies in a list, and what can be done with one that is known by its name.
#pragma once

#include <string_view>
#include <type_traits>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Policies by type; each has a name of its own.
template <typename... Ps>
struct policy_list {
    [[nodiscard]] static std::vector<std::string_view> names() { return {Ps::name...}; }
    [[nodiscard]] static constexpr bool contains([[maybe_unused]] std::string_view name) noexcept {
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
    [[nodiscard]] static bool with([[maybe_unused]] std::string_view name,
                                   [[maybe_unused]] const Use& use) {
        return ((Ps::name == name && (use(Ps{}), true)) || ...);
    }
};

namespace detail {

template <typename... Lists>
struct joined_lists;
template <>
struct joined_lists<> {
    using type = policy_list<>;
};
template <typename... Ps>
struct joined_lists<policy_list<Ps...>> {
    using type = policy_list<Ps...>;
};
template <typename... Ps, typename... More, typename... Rest>
struct joined_lists<policy_list<Ps...>, policy_list<More...>, Rest...> {
    using type = typename joined_lists<policy_list<Ps..., More...>, Rest...>::type;
};

template <typename List, typename Added>
struct extended_list;
template <typename... Ps, typename Added>
struct extended_list<policy_list<Ps...>, Added> {
    template <typename P>
    using kept = std::conditional_t<Added::contains(P::name), policy_list<>, policy_list<P>>;
    using type = typename joined_lists<kept<Ps>..., Added>::type;
};

} // namespace detail

/// A list with more policies, which replace those of the same name.
template <typename List, typename... More>
using extended = typename detail::extended_list<List, policy_list<More...>>::type;

} // namespace v0
} // namespace kvcrush
