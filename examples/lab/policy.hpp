// SPDX-License-Identifier: Apache-2.0
/// @file
/// Policies by name: what the command line can choose, bound to the library's types.
#pragma once

#include <kvcrush/kvcrush.hpp>

#include "any_allocator.hpp"
#include "any_scorer.hpp"
#include "any_selector.hpp"
#include "codec_choice.hpp"
#include "layer_plan.hpp"
#include "policy_help.hpp"

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lab {

/// One line of an experiment: how a cache is compressed.
struct policy {
    /// As given on the command line.
    std::string text;
    /// Keeps everything: the baseline.
    bool full = false;
    kvcrush::area_sizes areas{};
    any_scorer scorer{};
    any_selector selector{};
    any_allocator allocator{};
    /// Settles what layers and heads keep, where that is not for each layer to say; may be empty.
    layer_planner planner{};
    /// How the kept rows are stored; as they are, if empty.
    std::optional<codec_choice> codec{};

    /// What it keeps where a run asks for these ratios: its own ratio where it has one.
    [[nodiscard]] std::vector<double> ratios(const std::vector<double>& keep_ratios) const {
        if (full) {
            return {1.0};
        }
        return codec && codec->keep ? std::vector<double>{*codec->keep} : keep_ratios;
    }
};

/// @throws input_error naming what is misspelt or out of range, and what is allowed
[[nodiscard]] policy parse_policy(std::string_view text);

/// A comma-separated list; `all` stands for every policy with its defaults.
/// @throws input_error likewise
[[nodiscard]] std::vector<policy> parse_policies(std::string_view list);

/// What `kvcrush-lab policies` prints.
[[nodiscard]] std::vector<policy_help> list_policies();

} // namespace lab
