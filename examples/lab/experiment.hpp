// SPDX-License-Identifier: Apache-2.0
/// @file
/// The measurement that everything in the lab is for: prefill, compress, then see what the model still knows.
#pragma once

#include "fidelity.hpp"
#include "model.hpp"
#include "policy.hpp"
#include "window.hpp"

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace lab {

/// One policy at one keep ratio on one window.
struct measurement {
    std::string name;
    std::string policy;
    double keep_ratio = 1.0;
    std::size_t context = 0;
    double kept_tokens_mean = 0.0;
    /// All rows in f16 [bytes].
    double bytes_full = 0.0;
    /// What is allocated right after compression [bytes].
    double bytes_held = 0.0;
    fidelity quality;
    double nll_full = 0.0;
    double ppl_ratio = 1.0;
    double select_ms = 0.0;
    double compact_ms = 0.0;
    double prefill_ms = 0.0;
    double decode_ms_per_token = 0.0;
    /// Part of it: appending rows, encoding those that left the window, attention.
    double attention_ms_per_token = 0.0;
    /// Windows averaged: 1 for a window of its own.
    std::size_t samples = 1;
};

/// Asks the model to repeat its context, for methods that watch it do so.
inline constexpr std::string_view repeat_request_text =
    "\n\nRepeat the text above from its beginning, word for word:\n\n";

struct experiment {
    std::vector<policy> policies;
    std::vector<double> keep_ratios;
    cache_type type = cache_type::f16;
    /// Token ids that ask the model to repeat its context; may be empty.
    std::vector<int> repeat_request;
};

/// Says (steps done, steps in all) while it runs.
using step_callback = std::function<void(double, double)>;

/// Keys and values of so many tokens.
[[nodiscard]] double bytes_in_f16(const model_config& config, std::size_t tokens);

/// Throws what would fail after minutes of work, before it: budgets without room for sinks and recent tokens, windows
/// longer than the model's context.
void check(const experiment& plan, const std::vector<window>& windows, const llama& model);

/// One measurement per window, policy and ratio (the full cache has one per window), in the order of `plan`.
[[nodiscard]] std::vector<measurement> run(const experiment& plan,
                                           const std::vector<window>& windows,
                                           const llama& model,
                                           const step_callback& progress = {});

/// Adds one measurement called "mean" per policy and ratio. ppl_ratio is exp of the mean difference of nll.
void append_means(std::vector<measurement>& measurements);

} // namespace lab
