// SPDX-License-Identifier: Apache-2.0
/// @file
/// The KV cache of a model: rows and queries go in, attention comes out, and a recipe says what it may hold.
#pragma once

#include <kvcrush/attend/attend.hpp>
#include <kvcrush/cache/compression.hpp>
#include <kvcrush/cache/query_log.hpp>
#include <kvcrush/cache/sequence.hpp>
#include <kvcrush/cache/sequence_access.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/executor.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/rope.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/recipe/recipe.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// What a cache has to know of its model.
struct model_shape {
    std::size_t num_layers = 0;
    std::size_t num_q_heads = 0;
    std::size_t num_kv_heads = 0;
    std::size_t head_dim = 0;
    /// Channels of values; 0 stands for head_dim.
    std::size_t value_dim = 0;
    /// How keys were turned, for policies that turn them back.
    rope angles{};

    [[nodiscard]] layer_extent extent() const noexcept {
        return {num_kv_heads, head_dim, value_dim == 0 ? head_dim : value_dim};
    }
    /// @throws std::invalid_argument if an extent is 0 or 2^32 and more, or num_q_heads no multiple of num_kv_heads, or angles
    ///         that no head of that width has
    void validate() const {
        constexpr std::size_t most = (std::numeric_limits<std::uint32_t>::max)();
        detail::require((std::min)({num_layers, num_q_heads, num_kv_heads, head_dim}) > 0 &&
                            (std::max)({num_layers, num_q_heads, num_kv_heads, head_dim, value_dim}) <= most,
                        "model_shape: num_layers, num_q_heads, num_kv_heads, head_dim and value_dim are ",
                        num_layers,
                        ", ",
                        num_q_heads,
                        ", ",
                        num_kv_heads,
                        ", ",
                        head_dim,
                        " and ",
                        value_dim,
                        "; each must be at least 1 and below 2^32, value_dim may be 0");
        detail::require(num_q_heads % num_kv_heads == 0,
                        "model_shape: num_q_heads is ",
                        num_q_heads,
                        "; it must be a multiple of num_kv_heads (",
                        num_kv_heads,
                        ")");
        angles.validate_for(head_dim);
    }
};

/// One sequence, all layers.
///
///     kv_cache cache({.num_layers = 32, .num_q_heads = 32, .num_kv_heads = 8, .head_dim = 128}, four_times());
///     cache.append(layer, keys, values);      // the prompt in chunks, then every token, layer by layer
///     cache.attend(layer, queries, output);   // or cache.observe(layer, queries) where the engine attends by itself
///     cache.compress();                       // after the prompt, and again whenever the engine likes
///
/// Rows are dense until the first compression; from then on those that leave the recipe's window are encoded as they come.
/// Every call checks its arguments in every build, and throws before anything has changed.
/// Not to be used from several threads at once; attend() and compress() may be given an executor. A copy is a snapshot.
class kv_cache {
public:
    /// @throws std::invalid_argument if the shape or the recipe makes no sense, or they do not fit each other
    explicit kv_cache(const model_shape& shape, recipe how = {});

    [[nodiscard]] const model_shape& shape() const noexcept { return shape_; }
    [[nodiscard]] const recipe& how() const noexcept { return recipe_; }
    /// Goes on with another recipe. Dense rows stay as they are until it compresses them.
    /// @throws std::invalid_argument as the constructor, or if rows are encoded already
    void use(recipe how);
    /// Remembers the queries of that many of the newest tokens at least, for recipes to come; a recipe's own needs are
    /// seen to anyway.
    void remember_queries(std::size_t count) noexcept { remembered_ = count; }

    /// Tokens that all layers have seen, evicted ones included: the position of the next.
    [[nodiscard]] std::size_t tokens_seen() const noexcept;
    [[nodiscard]] std::size_t num_layers() const noexcept { return layers_.size(); }
    [[nodiscard]] const kv_sequence& layer(std::size_t index) const {
        return layers_[checked(index)];
    }
    [[nodiscard]] kv_sequence& layer(std::size_t index) { return layers_[checked(index)]; }
    /// The queries of the newest tokens that a layer remembers.
    [[nodiscard]] const query_log& queries(std::size_t index) const {
        return logs_[checked(index)];
    }
    /// Rows that the longest head holds.
    [[nodiscard]] std::size_t longest_head() const noexcept;
    /// Rows of a kv head, on average over layers and heads.
    [[nodiscard]] double mean_rows() const noexcept;
    /// What is allocated for rows: codes, metadata, positions [bytes].
    [[nodiscard]] std::size_t bytes_held() const noexcept;
    /// What is allocated for queries that the recipe looks at [bytes].
    [[nodiscard]] std::size_t query_bytes_held() const noexcept;

    /// Adds the keys and values of one token or many to a layer.
    /// @param keys    [tokens, num_kv_heads, head_dim], after RoPE
    /// @param values  [tokens, num_kv_heads, value_dim]
    /// @return false, with nothing added, if a number is NaN, infinite or too large for the dense codec
    /// @throws std::invalid_argument for another layer or width
    [[nodiscard]] bool
    append(std::size_t layer, std::span<const float> keys, std::span<const float> values);

    /// Attention of the newest tokens of a layer, whose rows are there already, causal; their queries are remembered as
    /// far as the recipe will want them.
    /// @param queries  [tokens, num_q_heads, head_dim], after RoPE
    /// @param output   [tokens, num_q_heads, value_dim]
    /// @throws std::invalid_argument for another layer or width, or if a row of a token behind the first was evicted or
    ///         encoded already
    template <Executor E = serial_executor>
    void attend(std::size_t layer,
                std::span<const float> queries,
                std::span<float> output,
                std::size_t num_lanes = 1,
                E&& execute = {});
    /// The same for queries and outputs of any strides, with all that kvcrush::attend can be asked for.
    template <Executor E = serial_executor>
    void attend(std::size_t layer,
                const query_view& queries,
                std::span<float> output,
                const attend_options& options = {},
                E&& execute = {});

    /// Remembers the queries of the newest tokens of a layer, for engines whose own attention does the prompt.
    /// @param queries  as above
    void observe(std::size_t layer, std::span<const float> queries) {
        observe(layer, view_of(queries));
    }
    void observe(std::size_t layer, const query_view& queries);

    /// Says what compression would keep, without changing anything.
    /// @param execute  runs request.num_lanes tasks
    /// @throws std::invalid_argument if the budget does not hold sinks and recent tokens, if layers have seen different
    ///         numbers of tokens, or if the recipe needs queries or callbacks that were not given; std::bad_alloc
    template <Executor E = serial_executor>
    [[nodiscard]] std::vector<layer_choice> choose(const compress_request& request = {},
                                                   E&& execute = {}) const;
    /// Does what was chosen: evicts, moves rows to their tiers, gives memory back.
    /// @throws std::invalid_argument if the choice is not of this cache as it is
    template <Executor E = serial_executor>
    compression
    apply(const std::vector<layer_choice>& choice, std::size_t num_lanes = 1, E&& execute = {});
    /// Both. May be called any number of times.
    template <Executor E = serial_executor>
    compression compress(const compress_request& request = {}, E&& execute = {}) {
        const std::vector<layer_choice> choice = choose(request, execute);
        return apply(choice, request.num_lanes, execute);
    }
    /// The same if the recipe's trigger says so and it would change anything.
    template <Executor E = serial_executor>
    std::optional<compression> compress_if_due(const compress_request& request = {},
                                               E&& execute = {}) {
        if (!is_due(request)) {
            return std::nullopt;
        }
        return compress(request, execute);
    }
    /// Whether compress_if_due() would compress.
    [[nodiscard]] bool is_due(const compress_request& request = {}) const;

    /// What the recipe's scorer says of the rows of a layer, [num_kv_heads, longest head], see layer_judge::scores.
    /// @throws std::invalid_argument if it looks at queries and was shown none
    [[nodiscard]] std::vector<float> scores(std::size_t layer) const;

private:
    [[nodiscard]] std::size_t checked(std::size_t layer) const;
    [[nodiscard]] problem_size size_for(std::size_t rows) const noexcept {
        const layer_extent extent = shape_.extent();
        return {{extent.num_kv_heads, rows, extent.key_dim, extent.value_dim}, shape_.num_q_heads};
    }
    [[nodiscard]] query_view view_of(std::span<const float> queries) const;
    void require_own(std::size_t layer, const query_view& queries) const;
    void require_rows(std::size_t layer, std::size_t num_queries) const;
    void require_own(const std::vector<layer_choice>& choice) const;
    static void encode_old_rows(kv_sequence& layer, std::size_t added);
    void forget_queries(std::size_t layer);
    [[nodiscard]] std::size_t tokens_of(const compress_request& request) const;
    void require_queries() const;
    [[nodiscard]] model_plan plan_layers(const compress_request& request,
                                         std::size_t tokens,
                                         std::span<const layer_access* const> layers) const;
    void replay(const compress_request& request,
                std::span<const std::int32_t> tokens,
                const replay_observer& observe) const;

    model_shape shape_;
    recipe recipe_;
    std::vector<kv_sequence> layers_;
    std::vector<query_log> logs_;
    std::vector<float> workspace_;
    std::size_t remembered_ = 0;
    /// Whether rows that leave the window are encoded: from the first compression on.
    bool encodes_ = false;
    /// Tokens seen at the last compression.
    std::optional<std::size_t> compressed_at_{};
};

} // namespace v0
} // namespace kvcrush

#include <kvcrush/cache/detail/kv_cache_templates.hpp>
#if KVCRUSH_DEFINES_INSTANCES
#    include <kvcrush/cache/detail/kv_cache.hpp>
#endif
