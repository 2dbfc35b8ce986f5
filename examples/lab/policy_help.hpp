// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a user can read about a policy and its parameters.
#pragma once

#include "parameters.hpp"

#include <iterator>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace lab {

/// One policy of the list that `kvcrush-lab policies` prints.
struct policy_help {
    struct row {
        std::string name;
        std::string value;
        std::string allowed;
        std::string about;
    };
    std::string name;
    std::string about;
    std::vector<row> parameters;

    /// Adds the parameters of a policy with their defaults.
    template <typename Policy>
    void add(const Policy& policy) {
        for_each_parameter(
            policy, [&](std::string_view parameter, const auto& value, std::string_view what) {
                parameters.push_back({std::string(parameter),
                                      show_value(value),
                                      allowed_values<std::decay_t<decltype(value)>>(),
                                      std::string(what)});
            });
    }
};

} // namespace lab
