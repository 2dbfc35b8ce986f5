// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the command line can choose: recipes of the library by their text.
#pragma once

#include <kvcrush/recipe/recipe.hpp>

#include "weights.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace kvcrush {
inline namespace v0 {
struct policy_help; // of text/help.hpp, which takes long to compile
} // namespace v0
} // namespace kvcrush

namespace lab {

/// One line of an experiment: how a cache is compressed.
struct policy {
    /// As given on the command line.
    std::string text;
    kvcrush::recipe how{};

    /// Keeps everything as it is: the baseline.
    [[nodiscard]] bool full() const noexcept { return how.keeps_everything(); }

    /// What stands as keep ratio where a run asks for these: its own where it has one.
    [[nodiscard]] std::vector<double> ratios(const std::vector<double>& keep_ratios) const;

    /// What it may keep at one of them.
    /// @throws std::invalid_argument if the ratio lies outside (0, 1]
    [[nodiscard]] kvcrush::cache_budget at(double keep_ratio) const {
        return how.keep.with_ratio(keep_ratio);
    }
    /// What it may keep of a text that goes on, where a run says so many tokens per kv head: its own share where it has
    /// one, and more of them where it counts bytes.
    [[nodiscard]] kvcrush::cache_budget within(std::size_t tokens, std::size_t tokens_seen) const;

    /// @throws std::invalid_argument if it does not fit the model, or its budget holds no sinks and recent tokens
    void check_for(const model_config& model,
                   const kvcrush::cache_budget& keep,
                   std::size_t tokens) const;
};

/// @throws std::invalid_argument naming what is misspelt or out of range, and what is allowed
[[nodiscard]] policy parse_policy(std::string_view text);

/// A comma-separated list; `all` stands for every policy with its defaults.
/// @throws std::invalid_argument likewise
[[nodiscard]] std::vector<policy> parse_policies(std::string_view list);

/// What `kvcrush-lab policies` prints.
[[nodiscard]] std::vector<kvcrush::policy_help> list_policies();

} // namespace lab
