// SPDX-License-Identifier: Apache-2.0
/// @file
/// What an evaluation found: means with intervals, and how far policies are apart on the same samples.
#pragma once

#include "bootstrap.hpp"
#include "evaluation.hpp"

#include <nlohmann/json_fwd.hpp>

#include <optional>
#include <string>
#include <vector>

namespace lab {

/// How far one policy is from another at the same keep ratio, or from the full cache, on the same samples.
struct comparison {
    std::string task;
    /// "1", "2", ..., "2+" for the mean of all but the first; empty for texts.
    std::string turn{};
    std::string policy;
    std::string against;
    double keep_ratio = 1.0;
    /// "accuracy", "answer_nll", "nll" (differences) or "kld_mean" (geometric mean of the ratios).
    std::string metric;
    interval change{};
    std::size_t samples = 0;
};

/// @param against  a policy of the run, as given
[[nodiscard]] std::vector<comparison> compare_with(const evaluation_results& results,
                                                   const std::string& against);

/// One line per task, policy and ratio, and a legend of the columns below.
/// @param mode  "agnostic", "aware" or "requests"
[[nodiscard]] std::string table_of(const evaluation_results& results, const std::string& mode);
[[nodiscard]] std::string table_of(const std::vector<comparison>& comparisons);

/// The `results` list of the JSON contract: one row per text or answer, and rows named "mean" whose lo and hi are the
/// interval of their accuracy, for texts of their kld_mean. A turn is a number, or "2+" for the mean of all but
/// the first.
[[nodiscard]] nlohmann::json json_of(const evaluation_results& results, const std::string& mode);
[[nodiscard]] nlohmann::json json_of(const std::vector<comparison>& comparisons);

/// The `kept_map` list of the JSON contract: {"name", "policy", "keep_ratio", "context", "num_kv_heads", "layers",
/// "pieces"} per policy. layers[layer][kv head] lists the kept tokens; null: all of them.
/// @param pieces  what each token of the text spells
[[nodiscard]] nlohmann::json json_of(const kept_maps& kept, const std::vector<std::string>& pieces);

} // namespace lab
