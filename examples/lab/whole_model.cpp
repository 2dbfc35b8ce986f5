// SPDX-License-Identifier: Apache-2.0
#include "whole_model.hpp"

#include <kvcrush/kvcrush.hpp>

#include "alternatives.hpp"
#include "arguments.hpp"
#include "error.hpp"
#include "layer_queries.hpp"
#include "layer_view.hpp"

#include <cstddef>
#include <cstdint>
#include <utility>
#include <variant>

namespace lab {
namespace {

/// The model repeats its context, and what it looks at for that stays.
struct kvzip : kvcrush::kvzip_reconstruction {
    static constexpr std::string_view about =
        "what the model looks at to repeat its context, over all layers and heads";
    kvcrush::kvzip_selector selector{};

    [[nodiscard]] layer_plan plan(const planning_input& input) const {
        const model_config& config = input.model.config();
        return input.cache.visit([&](auto& layers) {
            const std::size_t rows = input.tokens.size();
            for (const auto& layer : layers) {
                for (std::size_t head = 0; head < layer.num_kv_heads(); ++head) {
                    if (layer.rows(head) != rows) {
                        fail("policy kvzip compresses a cache once, right after it was filled; a "
                             "head of this one holds ",
                             layer.rows(head),
                             " of ",
                             rows,
                             " tokens");
                    }
                }
            }
            kvcrush::kvzip_scores scores({config.num_layers, config.num_kv_heads, rows});
            const std::vector<std::int32_t> ids(input.tokens.begin(), input.tokens.end());
            const std::vector<std::int32_t> request(input.repeat_request.begin(),
                                                    input.repeat_request.end());
            const auto engine = [&](const kvcrush::kvzip_pass& pass,
                                    kvcrush::kvzip_observer& observe) {
                kv_cache copy = input.cache;
                query_log log;
                const std::vector<int> repeat(pass.tokens.begin(), pass.tokens.end());
                static_cast<void>(input.model.forward(repeat, copy, 0, &log));
                copy.visit([&](auto& repeated) {
                    for (std::size_t l = 0; l < repeated.size(); ++l) {
                        observe(l,
                                layer_view(repeated[l]),
                                queries_of(log.layers.at(l), config, repeat.size()));
                    }
                });
            };
            score(ids, {.first = request, .next = request}, engine, scores);
            layer_plan result;
            result.kept = selector.select(scores,
                                          input.areas,
                                          config.num_layers * config.num_kv_heads *
                                              input.budget.tokens_for(rows));
            return result;
        });
    }
};

/// Each layer keeps as much of the end of the text as its attention needs.
struct dbudget_kv : kvcrush::dbudget_kv {
    static constexpr std::string_view about =
        "sinks and as many recent tokens as a layer's attention needs; takes no budget";

    [[nodiscard]] layer_plan plan(const planning_input& input) const {
        const model_config& config = input.model.config();
        layer_plan result;
        input.cache.visit([&](auto& layers) {
            for (std::size_t l = 0; l < layers.size(); ++l) {
                require_even(layers[l]);
                const layer_view view(layers[l]);
                const kvcrush::kv_shape shape = view.shape();
                std::size_t kept = shape.seq_len;
                if (!keeps_all(l)) {
                    const kvcrush::query_view queries =
                        queries_of(input.queries.layers.at(l), config, last);
                    std::vector<float> mass(config.num_q_heads * shape.seq_len);
                    std::vector<float> workspace(kvcrush::attention_mass_workspace(
                        shape, config.num_q_heads, queries.num_queries()));
                    kvcrush::attention_mass(
                        view, queries, std::span<float>(mass), std::span<float>(workspace));
                    std::vector<std::byte> memory(scratch_bytes(config.num_q_heads));
                    kept = this->tokens(
                        kvcrush::const_head_scores(mass, config.num_q_heads, shape.seq_len),
                        kvcrush::scratch(std::span(memory)));
                }
                const kvcrush::areas area(area_of(kept), shape.seq_len);
                kvcrush::selection own;
                own.reserve(shape.num_kv_heads, shape.num_kv_heads * shape.seq_len);
                for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
                    own.extend_range(0, area.middle_begin);
                    own.extend_range(area.middle_end, shape.seq_len);
                    own.end_head();
                }
                result.kept.push_back(std::move(own));
            }
        });
        return result;
    }
};

/// Every such method the lab knows. A new one is one more name here.
using any_method = std::variant<kvzip, dbudget_kv>;

} // namespace

std::vector<std::string_view> whole_model_names() { return names_of<any_method>(); }

layer_planner parse_whole_model(const expression& text, area_parameters& areas) {
    return std::visit(
        [](const auto& method) -> layer_planner {
            return [method](const planning_input& input, const any_scorer&) {
                return method.plan(input);
            };
        },
        parse_choice<any_method>(text, areas));
}

std::vector<policy_help> list_whole_model() { return help_of<any_method>(); }

} // namespace lab
