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
/// @param leaves_out  leaves policies out that are nothing but such a division, kvzip and dbudget_kv, and says so
/// @throws lab::input_error for those otherwise
[[nodiscard]] even_policies make_even(std::vector<lab::policy> policies, bool leaves_out = false);

} // namespace client
