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

#include <cstddef>
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

    /// Shares of the tokens it keeps where a run asks for these ratios: its own where it has one, and more of them
    /// where ratios count bytes.
    [[nodiscard]] std::vector<double> ratios(const std::vector<double>& keep_ratios) const;

    /// Tells it how many channels rows have; what counts bytes has to know before it is asked for ratios.
    void set_head_dim(std::size_t channels) { head_dim_ = channels; }

private:
    std::size_t head_dim_ = 0;
};

/// @throws input_error naming what is misspelt or out of range, and what is allowed
[[nodiscard]] policy parse_policy(std::string_view text);

/// A comma-separated list; `all` stands for every policy with its defaults.
/// @throws input_error likewise
[[nodiscard]] std::vector<policy> parse_policies(std::string_view list);

/// What `kvcrush-lab policies` prints.
[[nodiscard]] std::vector<policy_help> list_policies();

} // namespace lab
