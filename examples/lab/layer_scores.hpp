// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a scorer thinks of all layers, for methods that compare layers and heads before any of them is compressed.
#pragma once

#include "any_scorer.hpp"
#include "layer_plan.hpp"

#include <vector>

namespace lab {

/// Scores of each layer, [num_kv_heads, rows].
/// @throws input_error if the heads of a layer hold different numbers of rows
[[nodiscard]] std::vector<std::vector<float>> score_layers(const any_scorer& scorer,
                                                           const planning_input& input);

/// How much attention changes what goes through a head: its query without RoPE against what it reads for it, over the
/// newest tokens.
/// @see BaKlaVa, arXiv:2502.13176. Factors of layers are left at 1: they need the hidden states.
[[nodiscard]] kvcrush::head_profile profile_directions(const planning_input& input);

/// The largest score of each head.
/// @see KVzip, arXiv:2505.23416, head level
[[nodiscard]] kvcrush::head_profile profile_scores(const std::vector<std::vector<float>>& scores,
                                                   std::size_t num_kv_heads);

/// The part of each head's scores that lies between sinks and recent tokens: heads that look there cannot stream.
[[nodiscard]] kvcrush::head_profile profile_middle(const std::vector<std::vector<float>>& scores,
                                                   std::size_t num_kv_heads,
                                                   const kvcrush::area_sizes& areas);

} // namespace lab
