// SPDX-License-Identifier: Apache-2.0
/// @file
/// What kv_cache does, behind its interface.
#pragma once

#include <kvcrush/cache/kv_cache.hpp>

namespace kvcrush {
inline namespace v0 {

inline std::size_t kv_cache::longest_head() const noexcept {
    std::size_t longest = 0;
    for (const kv_sequence& layer : layers_) {
        for (const stored_head& head : layer.heads()) {
            longest = (std::max)(longest, head.rows());
        }
    }
    return longest;
}

inline double kv_cache::mean_rows() const noexcept {
    std::size_t rows = 0;
    for (const kv_sequence& layer : layers_) {
        for (const stored_head& head : layer.heads()) {
            rows += head.rows();
        }
    }
    return static_cast<double>(rows) /
           static_cast<double>(shape_.num_layers * shape_.num_kv_heads);
}

inline std::size_t kv_cache::bytes_held() const noexcept {
    std::size_t bytes = 0;
    for (const kv_sequence& layer : layers_) {
        bytes += layer.bytes_held();
    }
    return bytes;
}

inline std::size_t kv_cache::query_bytes_held() const noexcept {
    std::size_t bytes = 0;
    for (const query_log& log : logs_) {
        bytes += log.bytes_held();
    }
    return bytes;
}

inline query_view kv_cache::view_of(std::span<const float> queries) const {
    const std::size_t width = shape_.num_q_heads * shape_.head_dim;
    detail::require(queries.size() % width == 0,
                    "kv_cache: queries hold ",
                    queries.size(),
                    " floats; they must hold ",
                    width,
                    " per token");
    return {queries,
            shape_.num_q_heads,
            queries.size() / width,
            shape_.head_dim,
            {shape_.head_dim, width, 1}};
}

/// Rows that left the window are encoded, some at a time. Rows that a codec cannot hold stay dense, and so do those just
/// added, which are still to be attended to.
inline void kv_cache::encode_old_rows(kv_sequence& layer, std::size_t added) {
    constexpr std::size_t at_once = 32;
    std::size_t most = 0;
    for (const stored_head& head : layer.heads()) {
        most = (std::max)(most, head.dense_rows() - added);
    }
    const std::size_t window = layer.storage().window;
    if (most >= at_once && most - at_once >= window) {
        static_cast<void>(layer.flush(window + added));
    }
}

inline void kv_cache::require_own(std::size_t layer, const query_view& queries) const {
    const std::size_t seen = layers_[checked(layer)].tokens_seen();
    detail::require(queries.num_q_heads() == shape_.num_q_heads &&
                        queries.head_dim() == shape_.head_dim && queries.num_queries() <= seen,
                    "kv_cache: layer ",
                    layer,
                    " is shown ",
                    queries.num_queries(),
                    " queries of ",
                    queries.num_q_heads(),
                    " heads with ",
                    queries.head_dim(),
                    " channels; at most ",
                    seen,
                    " of ",
                    shape_.num_q_heads,
                    " with ",
                    shape_.head_dim,
                    " are possible");
}

/// A query among several sees all rows up to its own, which are counted from the newest.
inline void kv_cache::require_rows(std::size_t layer, std::size_t num_queries) const {
    const kv_sequence& own = layers_[layer];
    for (const stored_head& head : own.heads()) {
        const position_set& dense = head.stores().back().positions();
        detail::require(num_queries <= 1 || (dense.end() == own.tokens_seen() &&
                                             dense.holds_last(num_queries - 1)),
                        "kv_cache: layer ",
                        layer,
                        " is to attend for its newest ",
                        num_queries,
                        " tokens, whose rows are evicted or encoded in part; attend() before compress()");
    }
}

inline void kv_cache::observe(std::size_t layer, const query_view& queries) {
    require_own(layer, queries);
    const std::size_t seen = layers_[layer].tokens_seen();
    logs_[layer].append(queries, seen, (std::max)(remembered_, recipe_.num_queries(seen)));
}

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

inline std::size_t kv_cache::tokens_of(const compress_request& request) const {
    const layer_extent extent = shape_.extent();
    return recipe_.tokens_for(request.keep ? *request.keep : recipe_.keep,
                              {tokens_seen(), extent.key_dim, extent.value_dim},
                              shape_.num_layers * shape_.num_kv_heads);
}

inline bool kv_cache::is_due(const compress_request& request) const {
    const std::size_t seen = tokens_seen();
    const std::size_t longest = longest_head();
    if (recipe_.keeps_everything() || seen == 0 ||
        (compressed_at_ && seen - *compressed_at_ < recipe_.when.every) ||
        longest <= recipe_.when.rows) {
        return false;
    }
    return (recipe_.rows.encodes() && !encodes_) || tokens_of(request) < longest;
}

inline void kv_cache::require_queries() const {
    const std::size_t seen = tokens_seen();
    for (std::size_t l = 0; l < layers_.size(); ++l) {
        detail::require(layers_[l].tokens_seen() == seen,
                        "kv_cache: layer ",
                        l,
                        " has seen ",
                        layers_[l].tokens_seen(),
                        " tokens, another one ",
                        seen,
                        "; all must have seen the same to be compressed");
        detail::require(recipe_.num_queries(seen) == 0 || seen == 0 ||
                            (logs_[l].size() > 0 && logs_[l].end() == seen),
                        "kv_cache: ",
                        recipe_.scorer.policy_name(),
                        " with ",
                        recipe_.selector.policy_name(),
                        " looks at queries; layer ",
                        l,
                        " was shown none of its newest token: attend() or observe() first");
    }
}

inline void kv_cache::replay(const compress_request& request,
                             std::span<const std::int32_t> tokens,
                             const replay_observer& observe) const {
    kv_cache copy = *this;
    copy.recipe_ = {};
    copy.remembered_ = tokens.size();
    request.replay(tokens, copy);
    std::vector<std::byte> memory;
    for (std::size_t l = 0; l < copy.layers_.size(); ++l) {
        const sequence_access access(copy.layers_[l], copy.logs_[l]);
        const kv_shape shape = access.shape();
        const heads_reader reader(access, 0, shape.num_kv_heads, shape.seq_len);
        memory.resize((std::max)(memory.size(), any_source::scratch_bytes(shape)));
        scratch room{std::span(memory)};
        observe(l, any_source(reader, room), access.queries(0, shape.num_kv_heads));
    }
}

inline model_plan kv_cache::plan_layers(const compress_request& request,
                                        std::size_t tokens,
                                        std::span<const layer_access* const> layers) const {
    const layer_policy policy = recipe_.policy();
    model_problem problem{.layers = layers,
                          .num_q_heads = shape_.num_q_heads,
                          .angles = shape_.angles,
                          .policy = policy,
                          .tokens = tokens,
                          .tokens_seen = tokens_seen(),
                          .context = request.context,
                          .repeat_request = request.repeat_request};
    if (request.replay) {
        problem.replay = [&](std::span<const std::int32_t> again, const replay_observer& observe) {
            replay(request, again, observe);
        };
    }
    return recipe_.model_allocator.plan(problem);
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
    const std::size_t num_lanes =
        (std::clamp)(request.num_lanes, std::size_t{1}, layers_.size());
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
    return result;
}

/// A choice that was made of this cache as it is.
inline void kv_cache::require_own(const std::vector<layer_choice>& choice) const {
    detail::require(choice.size() == layers_.size(),
                    "kv_cache: apply is given choices of ",
                    choice.size(),
                    " layers; there are ",
                    layers_.size());
    for (std::size_t l = 0; l < choice.size(); ++l) {
        const selection& kept = choice[l].kept;
        detail::require(layers_[l].holds(kept),
                        "kv_cache: the choice of layer ",
                        l,
                        " is not one of its rows, ascending");
        const bool tiers_fit =
            choice[l].tiers.empty() ||
            (choice[l].tiers.size() == kept.total() &&
             *std::max_element(choice[l].tiers.begin(), choice[l].tiers.end()) <
                 recipe_.rows.tiers.size());
        detail::require(tiers_fit, "kv_cache: the tiers of layer ", l, " are not those of its rows");
    }
}

template <Executor E>
compression kv_cache::apply(const std::vector<layer_choice>& choice,
                            std::size_t num_lanes,
                            E&& execute) {
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
                    const std::span<const std::uint8_t> tiers =
                        std::span(own.tiers).subspan(own.kept.indptr()[head],
                                                     own.kept.kept(head).size());
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

/// Queries whose rows are not side by side with the newest ones any more cannot be used again.
inline void kv_cache::forget_queries(std::size_t layer) {
    const sequence_access access(layers_[layer], logs_[layer]);
    std::size_t usable = 0;
    for (std::size_t head = 0; head < shape_.num_kv_heads; ++head) {
        usable = (std::max)(usable, access.queries(head, 1).num_queries());
    }
    logs_[layer].keep_last(usable);
}

inline std::vector<float> kv_cache::scores(std::size_t layer) const {
    const sequence_access access(layers_[checked(layer)], logs_[layer]);
    layer_judge judge(recipe_.policy(), shape_.num_q_heads);
    judge.look(access, layer, shape_.angles);
    const std::span<const float> scores = judge.scores().values();
    return {scores.begin(), scores.end()};
}

} // namespace v0
} // namespace kvcrush
