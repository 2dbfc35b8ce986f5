// SPDX-License-Identifier: Apache-2.0
/// @file
/// How much each layer, or each kv head of each layer, keeps: for methods that look at more than one layer.
#pragma once

#include <kvcrush/allocation/head_counts.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/selection.hpp>

#include "any_scorer.hpp"
#include "kv_cache.hpp"
#include "model.hpp"

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

namespace lab {

/// What a plan may be made of: a filled cache, the queries that filled it, and the model for those that ask it again.
struct planning_input {
    const llama& model;
    std::span<const int> tokens;
    /// Read only, in effect; views of it could write.
    kv_cache& cache;
    const query_log& queries;
    const kvcrush::budget& budget;
    kvcrush::area_sizes areas;
    /// What asks the model to repeat its context; may be empty.
    std::span<const int> repeat_request;
};

/// What is settled before the first layer is compressed.
struct layer_plan {
    /// Tokens per kv head of each layer; empty: the budget.
    std::vector<std::size_t> tokens{};
    /// Tokens of each layer and kv head; none: the allocator divides what its layer has.
    kvcrush::head_counts counts{};
    /// Scores of each layer, [num_kv_heads, rows]; empty: the scorer gives them.
    std::vector<std::vector<float>> scores{};
    /// What each layer keeps, where the plan says all; empty: scorer, allocator and selector do.
    std::vector<kvcrush::selection> kept{};
};

/// The scorer is that of the policy, for plans that compare what it says of layers.
using layer_planner = std::function<layer_plan(const planning_input&, const any_scorer& scorer)>;

} // namespace lab
