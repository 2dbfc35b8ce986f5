// SPDX-License-Identifier: Apache-2.0
/// @file
/// What kv_cache does, behind its interface, where no executor is given.
#pragma once

#include <kvcrush/cache/kv_cache.hpp>
#include <kvcrush/config.hpp>

namespace kvcrush {
inline namespace v0 {

KVCRUSH_INLINE kv_cache::kv_cache(const model_shape& shape, recipe how)
    : shape_(shape), recipe_(std::move(how)) {
    shape.validate();
    recipe_.validate_for(size_for(0));
    layers_ = std::vector<kv_sequence>(shape.num_layers, kv_sequence(shape.extent(), recipe_.rows));
    logs_ = std::vector<query_log>(shape.num_layers, query_log(shape.num_q_heads, shape.head_dim));
}

KVCRUSH_INLINE void kv_cache::use(recipe how) {
    how.validate_for(size_for(0));
    std::vector<kv_sequence> layers = layers_;
    for (kv_sequence& layer : layers) {
        layer.set_storage(how.rows);
    }
    layers_ = std::move(layers);
    recipe_ = std::move(how);
    recipe_.rows = layers_.front().storage();
    encodes_ = false;
}

KVCRUSH_INLINE std::size_t kv_cache::tokens_seen() const noexcept {
    std::size_t seen = layers_.empty() ? 0 : layers_.front().tokens_seen();
    for (const kv_sequence& layer : layers_) {
        seen = (std::min)(seen, layer.tokens_seen());
    }
    return seen;
}

KVCRUSH_INLINE bool
kv_cache::append(std::size_t layer, std::span<const float> keys, std::span<const float> values) {
    kv_sequence& to = layers_[checked(layer)];
    const std::size_t seen = to.tokens_seen();
    if (!to.append(keys, values)) {
        return false;
    }
    if (encodes_) {
        encode_old_rows(to, to.tokens_seen() - seen);
    }
    return true;
}

KVCRUSH_INLINE std::size_t kv_cache::checked(std::size_t layer) const {
    detail::require(layer < layers_.size(),
                    "kv_cache: there is no layer ",
                    layer,
                    "; there are ",
                    layers_.size());
    return layer;
}

KVCRUSH_INLINE std::size_t kv_cache::longest_head() const noexcept {
    std::size_t longest = 0;
    for (const kv_sequence& layer : layers_) {
        for (const stored_head& head : layer.heads()) {
            longest = (std::max)(longest, head.rows());
        }
    }
    return longest;
}

KVCRUSH_INLINE double kv_cache::mean_rows() const noexcept {
    std::size_t rows = 0;
    for (const kv_sequence& layer : layers_) {
        for (const stored_head& head : layer.heads()) {
            rows += head.rows();
        }
    }
    return static_cast<double>(rows) / static_cast<double>(shape_.num_layers * shape_.num_kv_heads);
}

KVCRUSH_INLINE std::size_t kv_cache::bytes_held() const noexcept {
    std::size_t bytes = 0;
    for (const kv_sequence& layer : layers_) {
        bytes += layer.bytes_held();
    }
    return bytes;
}

KVCRUSH_INLINE std::size_t kv_cache::query_bytes_held() const noexcept {
    std::size_t bytes = 0;
    for (const query_log& log : logs_) {
        bytes += log.bytes_held();
    }
    return bytes;
}

KVCRUSH_INLINE query_view kv_cache::view_of(std::span<const float> queries) const {
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
KVCRUSH_INLINE void kv_cache::encode_old_rows(kv_sequence& layer, std::size_t added) {
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

KVCRUSH_INLINE void kv_cache::require_own(std::size_t layer, const query_view& queries) const {
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
KVCRUSH_INLINE void kv_cache::require_rows(std::size_t layer, std::size_t num_queries) const {
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

KVCRUSH_INLINE void kv_cache::observe(std::size_t layer, const query_view& queries) {
    require_own(layer, queries);
    const std::size_t seen = layers_[layer].tokens_seen();
    logs_[layer].append(queries, seen, (std::max)(remembered_, recipe_.num_queries(seen)));
}

KVCRUSH_INLINE std::size_t kv_cache::tokens_of(const compress_request& request) const {
    const layer_extent extent = shape_.extent();
    return recipe_.tokens_for(request.keep ? *request.keep : recipe_.keep,
                              {tokens_seen(), extent.key_dim, extent.value_dim},
                              shape_.num_layers * shape_.num_kv_heads);
}

KVCRUSH_INLINE bool kv_cache::is_due(const compress_request& request) const {
    const std::size_t seen = tokens_seen();
    if ((recipe_.keeps_everything() && !request.keep) || seen == 0 ||
        (compressed_at_ && seen - *compressed_at_ < recipe_.when.every) ||
        longest_head() <= recipe_.when.rows) {
        return false;
    }
    return (recipe_.rows.encodes() && !encodes_) ||
           static_cast<double>(tokens_of(request)) < mean_rows();
}

KVCRUSH_INLINE void kv_cache::require_queries() const {
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

KVCRUSH_INLINE void kv_cache::replay(const compress_request& request,
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

KVCRUSH_INLINE model_plan kv_cache::plan_layers(const compress_request& request,
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

/// A choice that was made of this cache as it is.
KVCRUSH_INLINE void kv_cache::require_own(const std::vector<layer_choice>& choice) const {
    detail::require(choice.size() == layers_.size(),
                    "kv_cache: apply is given choices of ",
                    choice.size(),
                    " layers; there are ",
                    layers_.size());
    for (std::size_t l = 0; l < choice.size(); ++l) {
        const selection& kept = choice[l].kept;
        detail::require(choice[l].tokens_seen == layers_[l].tokens_seen(),
                        "kv_cache: the choice of layer ",
                        l,
                        " was made when it had seen ",
                        choice[l].tokens_seen,
                        " tokens; it has seen ",
                        layers_[l].tokens_seen());
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

/// Queries whose rows are not side by side with the newest ones any more cannot be used again.
KVCRUSH_INLINE void kv_cache::forget_queries(std::size_t layer) {
    const sequence_access access(layers_[layer], logs_[layer]);
    std::size_t usable = 0;
    for (std::size_t head = 0; head < shape_.num_kv_heads; ++head) {
        usable = (std::max)(usable, access.queries(head, 1).num_queries());
    }
    logs_[layer].keep_last(usable);
}

KVCRUSH_INLINE std::vector<float> kv_cache::scores(std::size_t layer) const {
    const sequence_access access(layers_[checked(layer)], logs_[layer]);
    layer_judge judge(recipe_.policy(), shape_.num_q_heads);
    judge.look(access, layer, shape_.angles);
    const std::span<const float> scores = judge.scores().values();
    return {scores.begin(), scores.end()};
}

} // namespace v0
} // namespace kvcrush
