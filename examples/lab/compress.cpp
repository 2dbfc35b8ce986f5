// SPDX-License-Identifier: Apache-2.0
#include "compress.hpp"

#include "layer_queries.hpp"
#include "layer_view.hpp"
#include "stopwatch.hpp"

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>
#include <tuple>
#include <variant>

namespace lab {
namespace {

template <kvcrush::Element T>
void compress_layer(layer_cache<T>& layer,
                    const cache_history& history,
                    std::size_t layer_index,
                    const policy& how,
                    const kvcrush::budget& budget,
                    const layer_plan& plan,
                    compression& result) {
    require_even(layer);
    const layer_view<T> view(layer);
    const model_config& config = history.model.config();
    const std::span<const float> log = history.queries.layers.at(layer_index);
    const kvcrush::budget own =
        plan.tokens.empty() ? budget
                            : kvcrush::budget::tokens(plan.tokens.at(layer_index), how.areas);
    const any_allocator allocator =
        plan.counts.values().empty()
            ? how.allocator
            : any_allocator(kvcrush::fixed_counts{plan.counts.layer(layer_index)});
    const auto select = [&](const auto& scorer) {
        kvcrush::compressor crush(scorer, how.selector.for_layer(layer_index), allocator);
        crush.plan({view.shape(), config.num_q_heads}, own);
        const kvcrush::query_view queries = queries_of(log, config, contiguous_tail(layer));
        const stopwatch watch;
        const kvcrush::selection& kept = crush.select(view, queries);
        result.select_ms += watch.milliseconds();
        result.kept.push_back(kept);
    };
    if (!plan.kept.empty()) {
        result.kept.push_back(plan.kept.at(layer_index));
    } else if (plan.scores.empty()) {
        std::visit(
            [&](const auto& scorer) {
                with_scorer_of_layer(scorer, layer_index, config, log, select);
            },
            how.scorer);
    } else {
        const std::vector<float>& given = plan.scores.at(layer_index);
        select(kvcrush::given_scorer{kvcrush::const_head_scores(
            given, config.num_kv_heads, given.size() / config.num_kv_heads)});
    }

    const kvcrush::selection& kept = result.kept.back();
    const stopwatch watch;
    kvcrush::compact(view, kept);
    for (std::size_t head = 0; head < layer.num_kv_heads(); ++head) {
        kvcrush::compact_values(layer.positions(head), kept.kept(head));
        layer.keep_first(head, kept.kept(head).size());
    }
    result.compact_ms += watch.milliseconds();
}

} // namespace

kvcrush::budget budget_for(const policy& how, double keep_ratio, std::size_t context) {
    const kvcrush::budget budget = kvcrush::budget::keep_ratio(keep_ratio, how.areas);
    static_cast<void>(budget.tokens_for(context)); // throws here rather than after the prefill
    return budget;
}

compression compress(kv_cache& cache,
                     const cache_history& history,
                     const policy& how,
                     const kvcrush::budget& budget) {
    compression result;
    layer_plan plan;
    if (how.planner) {
        const stopwatch watch;
        plan = how.planner({history.model,
                            history.tokens,
                            cache,
                            history.queries,
                            budget,
                            how.areas,
                            history.repeat_request},
                           how.scorer);
        result.select_ms += watch.milliseconds();
    }
    std::size_t rows = 0;
    std::size_t heads = 0;
    std::size_t position_bytes = 0;
    cache.visit([&](auto& layers) {
        for (std::size_t l = 0; l < layers.size(); ++l) {
            if (!how.full) {
                compress_layer(layers[l], history, l, how, budget, plan, result);
                position_bytes += layers[l].position_bytes_held();
            }
            for (std::size_t head = 0; head < layers[l].num_kv_heads(); ++head) {
                rows += layers[l].rows(head);
                ++heads;
            }
        }
    });
    result.kept_tokens_mean =
        heads == 0 ? 0.0 : static_cast<double>(rows) / static_cast<double>(heads);
    result.bytes_held = cache.bytes_held() + position_bytes;
    return result;
}

} // namespace lab
