// SPDX-License-Identifier: Apache-2.0
#include "allocation_parser.hpp"

#include <kvcrush/kvcrush.hpp>

#include "alternatives.hpp"
#include "arguments.hpp"
#include "layer_scores.hpp"

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <variant>
#include <vector>

namespace lab {
namespace {

[[nodiscard]] kvcrush::model_heads heads_of(const planning_input& input) {
    return {input.model.config().num_layers, input.model.config().num_kv_heads};
}

[[nodiscard]] std::size_t rows_of(const planning_input& input) {
    return input.cache.visit([](const auto& layers) { return layers.at(0).rows(0); });
}

struct ada_kv : kvcrush::ada_kv_allocator {
    static constexpr std::string_view about =
        "what its base says, with more tokens in heads that need more of them";

    [[nodiscard]] any_allocator allocator() const {
        return any_allocator(kvcrush::ada_kv_allocator(*this));
    }
};

struct pyramid_kv : kvcrush::pyramid_kv {
    static constexpr std::string_view about =
        "what its base says, with more tokens in low layers than in high ones";

    [[nodiscard]] layer_plan plan(const planning_input& input, const any_scorer&) const {
        return {.tokens =
                    layer_tokens(input.model.config().num_layers, rows_of(input), input.budget)};
    }
};

struct kv_compress : kvcrush::kv_compress {
    static constexpr std::string_view about =
        "the best tokens of all layers and heads together, block by block";

    [[nodiscard]] layer_plan plan(const planning_input& input, const any_scorer& scorer) const {
        layer_plan result;
        result.scores = score_layers(scorer, input);
        const std::size_t heads = heads_of(input).num_kv_heads;
        std::vector<kvcrush::const_head_scores> metrics;
        for (const std::vector<float>& layer : result.scores) {
            metrics.emplace_back(layer, heads, layer.size() / heads);
        }
        result.counts = counts(metrics, input.budget);
        return result;
    }
};

struct baklava : kvcrush::baklava {
    static constexpr std::string_view about =
        "what its base says, with more tokens in heads that turn their input most";

    [[nodiscard]] layer_plan plan(const planning_input& input, const any_scorer&) const {
        return {.counts = counts(
                    profile_directions(input), heads_of(input), rows_of(input), input.budget)};
    }
};

struct duo_attention : kvcrush::duo_attention {
    static constexpr std::string_view about =
        "everything in heads that look at the middle, sinks and recent tokens in the others";

    /// As many heads keep everything as the budget allows.
    [[nodiscard]] layer_plan plan(const planning_input& input, const any_scorer& scorer) const {
        const kvcrush::model_heads model = heads_of(input);
        const std::size_t rows = rows_of(input);
        const std::size_t always = kvcrush::areas(input.areas, rows).num_protected();
        kvcrush::duo_attention own = *this;
        own.full_share = rows == always
                             ? 1.0
                             : static_cast<double>(input.budget.tokens_for(rows) - always) /
                                   static_cast<double>(rows - always);
        return {.counts = own.counts(
                    profile_middle(score_layers(scorer, input), model.num_kv_heads, input.areas),
                    model,
                    rows,
                    input.areas)};
    }

    static constexpr auto parameters() { return std::tuple{}; }
};

struct head_level : kvcrush::head_level {
    static constexpr std::string_view about =
        "everything in the heads with the largest scores, sinks and recent tokens in the others";

    [[nodiscard]] layer_plan plan(const planning_input& input, const any_scorer& scorer) const {
        const kvcrush::model_heads model = heads_of(input);
        return {.counts = counts(profile_scores(score_layers(scorer, input), model.num_kv_heads),
                                 model,
                                 rows_of(input),
                                 input.budget)};
    }
};

/// Every allocation the lab knows. A new one is one more name here.
using any_allocation =
    std::variant<ada_kv, pyramid_kv, kv_compress, baklava, duo_attention, head_level>;

} // namespace

std::vector<std::string_view> allocation_names() { return names_of<any_allocation>(); }

allocation parse_allocation(const expression& text, area_parameters& areas) {
    expression own = text;
    own.positional.clear(); // the base is the caller's business
    const auto chosen = parse_choice<any_allocation>(own, areas);
    return std::visit(
        [](const auto& policy) {
            allocation result;
            if constexpr (requires { &std::decay_t<decltype(policy)>::plan; }) {
                result.planner = [policy](const planning_input& input, const any_scorer& scorer) {
                    return policy.plan(input, scorer);
                };
            } else {
                result.allocator = policy.allocator();
            }
            return result;
        },
        chosen);
}

std::vector<policy_help> list_allocations() { return help_of<any_allocation>("(POLICY)"); }

} // namespace lab
