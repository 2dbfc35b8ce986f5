// SPDX-License-Identifier: Apache-2.0
/// @file
/// What kv_cache does with an executor.
#pragma once

#include <kvcrush/cache/kv_cache.hpp>
#include <kvcrush/config.hpp>

namespace kvcrush {
inline namespace v0 {

template <Executor E>
void kv_cache::attend(std::size_t layer,
                      std::span<const float> queries,
                      std::span<float> output,
                      std::size_t num_lanes,
                      E&& execute) {
    const query_view view = view_of(queries);
    const std::size_t value_dim = shape_.extent().value_dim;
    attend(layer,
           view,
           output,
           {.output = {value_dim, shape_.num_q_heads * value_dim, 1}, .num_lanes = num_lanes},
           std::forward<E>(execute));
}

template <Executor E>
void kv_cache::attend(std::size_t layer,
                      const query_view& queries,
                      std::span<float> output,
                      const attend_options& options,
                      E&& execute) {
    require_own(layer, queries);
    require_rows(layer, queries.num_queries());
    layers_[layer].attend_in(workspace_, queries, output, options, std::forward<E>(execute));
    observe(layer, queries);
}

template <Executor E>
std::vector<layer_choice> kv_cache::choose(const compress_request& request, E&& execute) const {
    const std::size_t tokens = tokens_of(request);
    require_queries();
    std::deque<sequence_access> access;
    std::vector<const layer_access*> layers;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
        layers.push_back(&access.emplace_back(layers_[l], logs_[l]));
    }
    const model_plan plan =
        recipe_.model_allocator ? plan_layers(request, tokens, layers) : model_plan{};
    std::vector<layer_choice> result(layers_.size());
    const std::size_t num_lanes = (std::clamp)(request.num_lanes, std::size_t{1}, layers_.size());
    detail::task_failure failure;
    const auto lane_task = [&](std::size_t lane) noexcept {
        failure.guard([&] {
            layer_judge judge(recipe_.policy(), shape_.num_q_heads);
            for (std::size_t l = lane; l < layers_.size(); l += num_lanes) {
                if (!plan.kept.empty()) {
                    result[l].kept = plan.kept[l];
                    result[l].tiers.assign(recipe_.rows.encodes() ? plan.kept[l].total() : 0, 0);
                    continue;
                }
                detail::layer_chooser chooser(access[l],
                                              recipe_.rows,
                                              recipe_.areas,
                                              plan.tokens.empty() ? tokens : plan.tokens[l],
                                              plan.counts.values().empty()
                                                  ? std::span<const std::size_t>{}
                                                  : plan.counts.layer(l),
                                              judge);
                result[l] = chooser.choose(l, shape_.angles);
            }
        });
    };
    execute(num_lanes, lane_task);
    failure.rethrow();
    for (std::size_t l = 0; l < layers_.size(); ++l) {
        result[l].tokens_seen = layers_[l].tokens_seen();
    }
    return result;
}

template <Executor E>
compression
kv_cache::apply(const std::vector<layer_choice>& choice, std::size_t num_lanes, E&& execute) {
    require_own(choice);
    compression result{.rows_before = mean_rows(), .bytes_before = bytes_held()};
    const std::size_t lanes = (std::clamp)(num_lanes, std::size_t{1}, layers_.size());
    std::vector<std::size_t> not_stored(layers_.size(), 0);
    detail::task_failure failure;
    const auto lane_task = [&](std::size_t lane) noexcept {
        failure.guard([&] {
            for (std::size_t l = lane; l < layers_.size(); l += lanes) {
                const layer_choice& own = choice[l];
                layers_[l].evict(own.kept);
                const std::size_t heads = own.tiers.empty() ? 0 : own.kept.num_kv_heads();
                for (std::size_t head = 0; head < heads; ++head) {
                    const std::span<const std::uint8_t> tiers = std::span(own.tiers).subspan(
                        own.kept.indptr()[head], own.kept.kept(head).size());
                    not_stored[l] += layers_[l].store(head, tiers) ? 0U : 1U;
                }
                layers_[l].shrink_to_fit();
                forget_queries(l);
            }
        });
    };
    execute(lanes, lane_task);
    failure.rethrow();
    encodes_ = encodes_ || recipe_.rows.encodes();
    compressed_at_ = tokens_seen();
    result.rows_kept = mean_rows();
    result.bytes_held = bytes_held();
    for (const std::size_t count : not_stored) {
        result.heads_not_stored += count;
    }
    return result;
}

#if KVCRUSH_EXTERN_INSTANCES

KVCRUSH_INSTANCE void kv_cache::attend(
    std::size_t, std::span<const float>, std::span<float>, std::size_t, serial_executor&&);
KVCRUSH_INSTANCE void kv_cache::attend(
    std::size_t, const query_view&, std::span<float>, const attend_options&, serial_executor&&);
KVCRUSH_INSTANCE std::vector<layer_choice> kv_cache::choose(const compress_request&,
                                                            serial_executor&) const;
KVCRUSH_INSTANCE std::vector<layer_choice> kv_cache::choose(const compress_request&,
                                                            serial_executor&&) const;
KVCRUSH_INSTANCE compression kv_cache::apply(const std::vector<layer_choice>&,
                                             std::size_t,
                                             serial_executor&);
KVCRUSH_INSTANCE compression kv_cache::apply(const std::vector<layer_choice>&,
                                             std::size_t,
                                             serial_executor&&);

#endif

} // namespace v0
} // namespace kvcrush
