// SPDX-License-Identifier: Apache-2.0
#include "compress.hpp"

#include "error.hpp"
#include "layer_queries.hpp"
#include "layer_view.hpp"
#include "stopwatch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <string_view>
#include <tuple>
#include <variant>

namespace lab {
namespace {

/// What a layer keeps of a budget.
template <kvcrush::Element T>
[[nodiscard]] kvcrush::selection select_layer(layer_cache<T>& layer,
                                              const cache_history& history,
                                              std::size_t layer_index,
                                              const policy& how,
                                              const kvcrush::budget& budget,
                                              const layer_plan& plan,
                                              double& select_ms) {
    kvcrush::selection result;
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
        result = crush.select(view, queries);
        select_ms += watch.milliseconds();
    };
    if (!plan.kept.empty()) {
        result = plan.kept.at(layer_index);
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
    return result;
}

/// Moves the kept rows together and gives back the memory of the others.
template <kvcrush::Element T>
void evict(layer_cache<T>& layer, const kvcrush::selection& kept) {
    kvcrush::compact(layer_view<T>(layer), kept);
    for (std::size_t head = 0; head < layer.num_kv_heads(); ++head) {
        kvcrush::compact_values(layer.positions(head), kept.kept(head));
        layer.keep_first(head, kept.kept(head).size());
    }
}

/// For each kept row of each head, whether it goes to the first tier (0) or to the second (1).
/// @param best  some of `kept`
[[nodiscard]] std::vector<std::vector<std::uint8_t>> tiers_of(const kvcrush::selection& kept,
                                                              const kvcrush::selection& best) {
    std::vector<std::vector<std::uint8_t>> tiers(kept.num_kv_heads());
    for (std::size_t head = 0; head < kept.num_kv_heads(); ++head) {
        const auto first = best.kept(head);
        for (const kvcrush::token_index token : kept.kept(head)) {
            tiers[head].push_back(std::binary_search(first.begin(), first.end(), token) ? 0 : 1);
        }
    }
    return tiers;
}

/// The tokens that the first tier may hold.
[[nodiscard]] kvcrush::budget
first_tier(const policy& how, const kvcrush::budget& budget, std::size_t rows) {
    const std::size_t all = budget.tokens_for(rows);
    const std::size_t protected_tokens =
        how.areas.num_sink_tokens + how.areas.num_recent_tokens + 1;
    const auto share = static_cast<std::size_t>(how.codec->first_share * static_cast<double>(all));
    return kvcrush::budget::tokens((std::min)(all, (std::max)(share, protected_tokens)), how.areas);
}

} // namespace

kvcrush::budget budget_for(const policy& how, double keep_ratio, std::size_t context) {
    const kvcrush::budget budget = kvcrush::budget::keep_ratio(keep_ratio, how.areas);
    static_cast<void>(budget.tokens_for(context)); // throws here rather than after the prefill
    return budget;
}

kvcrush::budget budget_within(const policy& how, std::size_t tokens, std::size_t tokens_seen) {
    const auto seen = static_cast<double>((std::max)(tokens_seen, std::size_t{1}));
    const double wanted = (std::min)(static_cast<double>(tokens) / seen, 1.0);
    const double own = how.ratios({wanted}).front();
    if (own == wanted) {
        return kvcrush::budget::tokens(tokens, how.areas);
    }
    const std::size_t protected_tokens = how.areas.num_sink_tokens + how.areas.num_recent_tokens;
    const auto share = static_cast<std::size_t>(std::ceil(own * seen));
    return kvcrush::budget::tokens((std::max)(share, protected_tokens), how.areas);
}

bool would_change(const kv_cache& cache,
                  std::size_t rows,
                  const policy& how,
                  const kvcrush::budget& budget) {
    const bool stored = !how.codec || cache.is_coded();
    return !stored || budget.tokens_for(rows) < rows;
}

void require_even_heads(const kv_cache& cache, std::size_t num_kv_heads, const policy& how) {
    for (std::size_t layer = 0; layer < cache.num_layers(); ++layer) {
        for (std::size_t head = 1; head < num_kv_heads; ++head) {
            if (cache.rows(layer, head) != cache.rows(layer, 0)) {
                fail("policy ",
                     in_quotes(how.text),
                     " keeps different numbers of tokens per head; such a cache can be compressed "
                     "once only, not again and again");
            }
        }
    }
}

compression compress(kv_cache& cache,
                     const cache_history& history,
                     const policy& how,
                     const kvcrush::budget& budget) {
    compression result;
    // Policies look at rows of numbers; what is encoded stays as it is, and loses the same rows.
    kv_cache readable = cache.is_coded() ? cache.decoded() : kv_cache(cache.type(), 0, 0, 0);
    kv_cache& seen = cache.is_coded() ? readable : cache;
    layer_plan plan;
    if (how.planner) {
        const stopwatch watch;
        plan = how.planner({history.model,
                            history.tokens,
                            seen,
                            history.queries,
                            budget,
                            how.areas,
                            history.repeat_request},
                           how.scorer);
        result.select_ms += watch.milliseconds();
    }
    std::vector<std::vector<std::vector<std::uint8_t>>> tiers;
    seen.visit([&](auto& layers) {
        for (std::size_t l = 0; l < layers.size(); ++l) {
            if (how.full) {
                continue;
            }
            const auto select = [&](const kvcrush::budget& tokens) {
                return select_layer(layers[l], history, l, how, tokens, plan, result.select_ms);
            };
            result.kept.push_back(select(budget));
            if (how.codec && how.codec->first_share < 1.0 && !cache.is_coded()) {
                tiers.push_back(tiers_of(result.kept.back(),
                                         select(first_tier(how, budget, layers[l].rows(0)))));
            }
            const stopwatch watch;
            if (cache.is_coded()) {
                cache.coded()[l].evict(result.kept.back());
            } else {
                evict(layers[l], result.kept.back());
            }
            result.compact_ms += watch.milliseconds();
        }
    });
    if (how.codec && !cache.is_coded()) {
        const stopwatch watch;
        cache.encode(*how.codec, tiers);
        result.compact_ms += watch.milliseconds();
    }
    const std::size_t num_kv_heads = history.model.config().num_kv_heads;
    std::size_t rows = 0;
    for (std::size_t l = 0; l < cache.num_layers(); ++l) {
        for (std::size_t head = 0; head < num_kv_heads; ++head) {
            rows += cache.rows(l, head);
        }
    }
    const std::size_t heads = cache.num_layers() * num_kv_heads;
    result.kept_tokens_mean =
        heads == 0 ? 0.0 : static_cast<double>(rows) / static_cast<double>(heads);
    result.bytes_held = cache.bytes_held() + (how.full ? 0 : cache.position_bytes_held());
    return result;
}

} // namespace lab
