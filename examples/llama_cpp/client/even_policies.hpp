// SPDX-License-Identifier: Apache-2.0
/// @file
/// Policies as llama.cpp's state can hold what they choose: as many rows in each layer and kv head.
#pragma once

#include "policy.hpp"

#include <string>
#include <vector>

namespace client {

struct even_policies {
    std::vector<lab::policy> policies;
    /// A line for each that was changed.
    std::vector<std::string> notes;
};

/// Budgets that differ between heads or layers are divided evenly instead.
/// @throws lab::input_error for policies that are nothing but such a division: kvzip, dbudget_kv
[[nodiscard]] even_policies make_even(std::vector<lab::policy> policies);

} // namespace client
