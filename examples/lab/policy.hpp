// SPDX-License-Identifier: Apache-2.0
/// @file
/// Policies by name: what the command line can choose, bound to the library's types.
#pragma once

#include <kvcrush/kvcrush.hpp>

#include "any_selector.hpp"
#include "crush_parser.hpp"
#include "policy_help.hpp"

#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace lab {

/// Every scorer the lab knows. A new one is one more name here.
using any_scorer = std::variant<kvcrush::random_scorer,
                                kvcrush::streaming_llm_scorer,
                                kvcrush::knorm_scorer,
                                kvcrush::h2o_scorer,
                                kvcrush::snapkv_scorer>;

/// One line of an experiment: how a cache is compressed.
struct policy {
    /// As given on the command line.
    std::string text;
    /// Keeps everything: the baseline.
    bool full = false;
    kvcrush::area_sizes areas{};
    any_scorer scorer{};
    any_selector selector{};
};

/// @throws input_error naming what is misspelt or out of range, and what is allowed
[[nodiscard]] policy parse_policy(std::string_view text);

/// A comma-separated list; `all` stands for every policy with its defaults.
/// @throws input_error likewise
[[nodiscard]] std::vector<policy> parse_policies(std::string_view list);

/// What `kvcrush-lab policies` prints.
[[nodiscard]] std::vector<policy_help> list_policies();

} // namespace lab
