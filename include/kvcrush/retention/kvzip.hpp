// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a model needs in order to repeat its context: scores that serve any later question.
///
///     kvzip_scores scores({.num_layers = 30, .num_kv_heads = 3, .seq_len = n});
///     kvzip_reconstruction{}.score(context, prompt, engine, scores);       // a few forward passes
///     std::vector<selection> kept = kvzip_selector{}.select(scores, area_sizes{4, 0}, total);
///
/// The engine runs the model; the library says which tokens to feed and reads what each layer saw.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/layout.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/math/repeat_attention.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Extents of the scores of a whole model.
struct kvzip_shape {
    std::size_t num_layers = 0;
    std::size_t num_kv_heads = 0;
    /// Rows of the context, the system prompt included.
    std::size_t seq_len = 0;

    friend constexpr bool operator==(const kvzip_shape&, const kvzip_shape&) = default;
};

/// Scores [num_layers, num_kv_heads, seq_len] of one context, each in [0, 1].
class kvzip_scores {
public:
    kvzip_scores() = default;

    /// All scores are 0.
    /// @throws std::invalid_argument if sizes overflow or there are 2^32 tokens or more; std::bad_alloc
    explicit kvzip_scores(const kvzip_shape& shape) : shape_(shape) {
        constexpr std::size_t most = (std::numeric_limits<std::uint32_t>::max)();
        detail::require(
            shape.seq_len <= most, "kvzip: seq_len is ", shape.seq_len, "; it must be below 2^32");
        values_.resize(detail::checked_multiply(
            detail::checked_multiply(shape.num_layers, shape.num_kv_heads, "kvzip"),
            shape.seq_len,
            "kvzip"));
    }

    [[nodiscard]] const kvzip_shape& shape() const noexcept { return shape_; }
    /// Number of (layer, kv head, token) triples.
    [[nodiscard]] std::size_t size() const noexcept { return values_.size(); }
    [[nodiscard]] std::span<const float> values() const noexcept { return values_; }
    /// [num_kv_heads, seq_len], what a selector takes.
    [[nodiscard]] const_head_scores layer(std::size_t index) const noexcept {
        KVCRUSH_ASSERT(index < shape_.num_layers);
        const std::size_t size = shape_.num_kv_heads * shape_.seq_len;
        return {
            std::span(values_).subspan(index * size, size), shape_.num_kv_heads, shape_.seq_len};
    }
    [[nodiscard]] head_scores layer(std::size_t index) noexcept {
        KVCRUSH_ASSERT(index < shape_.num_layers);
        const std::size_t size = shape_.num_kv_heads * shape_.seq_len;
        return {
            std::span(values_).subspan(index * size, size), shape_.num_kv_heads, shape_.seq_len};
    }

private:
    kvzip_shape shape_{};
    std::vector<float> values_;
};

/// Token ids of the request to repeat; texts are the engine's choice. The authors ask to repeat the previous context
/// exactly, and from the second chunk on to repeat the part of it that starts with the last tokens of the chunk before.
struct kvzip_prompt {
    /// The request for the first chunk.
    std::span<const std::int32_t> first{};
    /// The request for later chunks; the last tokens of the chunk before follow it.
    std::span<const std::int32_t> next{};
    /// What closes the user's turn and opens the assistant's in the chat template, or a newline.
    std::span<const std::int32_t> suffix{};
};

/// One forward pass that the engine is asked for.
struct kvzip_pass {
    std::size_t index = 0;
    /// Rows [begin, end) of the cache are scored.
    std::size_t begin = 0;
    std::size_t end = 0;
    /// What to feed behind the whole context, positions going on: request, suffix, and the tokens of the chunk
    /// themselves. Empty where score() got no token ids: the engine then builds this sequence.
    std::span<const std::int32_t> tokens{};
};

/// Takes what the layers of one pass saw. The engine calls it once per layer, in any order.
class kvzip_observer {
public:
    /// @param kv       the layer's cache: the context, and behind it the rows of the pass
    /// @param queries  [num_q_heads, tokens of the pass, head_dim], after RoPE
    /// @throws std::invalid_argument if a size does not fit the pass or the layer was shown before; std::bad_alloc
    template <KvSource Kv>
    void operator()(std::size_t layer, const Kv& kv, const query_view& queries) {
        require_layer(layer, queries);
        const kv_shape shape = kv.shape();
        const std::size_t context = scores_->shape().seq_len;
        detail::require(shape.seq_len == context + queries.num_queries(),
                        "kvzip: pass ",
                        pass_.index,
                        ", layer ",
                        layer,
                        ": the cache holds ",
                        shape.seq_len,
                        " rows; context and repeated tokens are ",
                        context,
                        " + ",
                        queries.num_queries());
        take(layer, kv, kv, context, queries);
    }

    /// The same for engines that keep the rows of the pass apart from the context.
    /// @param context  at least the rows of the context
    /// @param repeat   the rows of the pass, of the same element type
    template <KvSource Context, KvSource Repeat>
    void operator()(std::size_t layer,
                    const Context& context,
                    const Repeat& repeat,
                    const query_view& queries) {
        require_layer(layer, queries);
        const kv_shape held = context.shape();
        const kv_shape added = repeat.shape();
        detail::require(held.seq_len == scores_->shape().seq_len,
                        "kvzip: pass ",
                        pass_.index,
                        ", layer ",
                        layer,
                        ": the cache holds ",
                        held.seq_len,
                        " rows; the context has ",
                        scores_->shape().seq_len);
        detail::require(added.seq_len == queries.num_queries() &&
                            added.num_kv_heads == held.num_kv_heads &&
                            added.key_dim == held.key_dim,
                        "kvzip: pass ",
                        pass_.index,
                        ", layer ",
                        layer,
                        ": the repeated rows are [",
                        added.num_kv_heads,
                        ", ",
                        added.seq_len,
                        ", ",
                        added.key_dim,
                        "]; [",
                        held.num_kv_heads,
                        ", ",
                        queries.num_queries(),
                        ", ",
                        held.key_dim,
                        "] are needed");
        take(layer, context, repeat, 0, queries);
    }

private:
    friend struct kvzip_reconstruction;

    kvzip_observer(std::size_t num_sinks, kvzip_scores& scores)
        : num_sinks_(num_sinks), scores_(&scores), seen_(scores.shape().num_layers) {}

    void begin_pass(const kvzip_pass& pass) noexcept {
        pass_ = pass;
        num_repeats_ = pass.tokens.size();
        num_seen_ = 0;
        std::fill(seen_.begin(), seen_.end(), char{0});
    }

    void end_pass() const {
        detail::require(num_seen_ == seen_.size(),
                        "kvzip: pass ",
                        pass_.index,
                        ": the engine showed ",
                        num_seen_,
                        " of ",
                        seen_.size(),
                        " layers");
    }

    void require_layer(std::size_t layer, const query_view& queries) {
        using detail::require;
        require(layer < seen_.size(),
                "kvzip: pass ",
                pass_.index,
                ": there is no layer ",
                layer,
                "; the scores have ",
                seen_.size());
        require(
            seen_[layer] == 0, "kvzip: pass ", pass_.index, ": layer ", layer, " was shown twice");
        if (num_repeats_ == 0) { // the engine's own sequence, as long as its first layer says
            num_repeats_ = queries.num_queries();
        }
        require(num_repeats_ > 0 && queries.num_queries() == num_repeats_,
                "kvzip: pass ",
                pass_.index,
                ", layer ",
                layer,
                ": ",
                queries.num_queries(),
                " queries; the pass has ",
                num_repeats_,
                " tokens");
    }

    template <KvSource Context, KvSource Repeat>
    void take(std::size_t layer,
              const Context& context,
              const Repeat& repeat,
              std::size_t first_repeat,
              const query_view& queries) {
        const kv_shape shape = context.shape();
        detail::require(shape.num_kv_heads == scores_->shape().num_kv_heads,
                        "kvzip: pass ",
                        pass_.index,
                        ", layer ",
                        layer,
                        ": the cache has ",
                        shape.num_kv_heads,
                        " kv heads; the scores have ",
                        scores_->shape().num_kv_heads);
        detail::require(
            queries.head_dim() == shape.key_dim &&
                (shape.num_kv_heads == 0 ||
                 (queries.num_q_heads() > 0 && queries.num_q_heads() % shape.num_kv_heads == 0)),
            "kvzip: pass ",
            pass_.index,
            ", layer ",
            layer,
            ": queries of ",
            queries.num_q_heads(),
            " heads and ",
            queries.head_dim(),
            " channels do not fit ",
            shape.num_kv_heads,
            " kv heads of ",
            shape.key_dim);
        const repeat_span span{num_sinks_, pass_.begin, pass_.end, num_repeats_};
        workspace_.resize((std::max)(
            workspace_.size(), repeat_attention_workspace(shape, queries.num_q_heads(), span)));
        const float scale =
            shape.key_dim == 0 ? 1.0F : 1.0F / std::sqrt(static_cast<float>(shape.key_dim));
        repeat_attention(
            context, repeat, first_repeat, queries, span, scores_->layer(layer), workspace_, scale);
        seen_[layer] = 1;
        ++num_seen_;
    }

    std::size_t num_sinks_;
    kvzip_scores* scores_;
    kvzip_pass pass_{};
    std::size_t num_repeats_ = 0;
    std::size_t num_seen_ = 0;
    std::vector<char> seen_; ///< per layer, whether this pass has shown it
    std::vector<float> workspace_;
};

/// Runs the model over its own context: engine(pass, observe) feeds pass.tokens behind the uncompressed cache, calls
/// observe(layer, kv, queries) for each layer, and drops the rows it appended.
template <typename E>
concept RepeatEngine = std::invocable<E&, const kvzip_pass&, kvzip_observer&>;

/// Scores every row of a context by the largest attention it gets while the model repeats its part of the context.
///
///     |<- sinks ->|<- chunk 0 ->|<- chunk 1 ->| ... |      a pass per chunk
///     score[l, k, j] = max over the query heads of kv head k and all queries of the pass of
///                      softmax(q k / sqrt(head_dim))[j], over sinks, chunk and the pass itself, causal there
///
/// The sinks, which every pass looks at, score as high as the best row behind them, so that they stay first.
/// @note   seq_len / chunk_size passes of about chunk_size tokens; the scores cost O(chunk_size) per row, head and
///         channel, so O(chunk_size * seq_len) in all. Memory: 128 rows of weights over one chunk and its pass.
/// @note   Planning, not a hot path: it allocates, and throws where the engine hands back something else than the pass.
/// @see    KVzip, arXiv:2505.23416. Deviations: softmax in fp32 (the authors use the model's type); sinks score as the
///         best row (1.0 in kvpress). Not built: KVzip+ (needs W_o and hidden states) and the variant without softmax.
struct kvzip_reconstruction {
    static constexpr std::string_view name = "kvzip";
    static constexpr std::string_view about = "what the model looks at to repeat its context";

    /// Rows scored per pass. 2000 in the authors' code, 2048 in kvpress.
    std::size_t chunk_size = 2000;
    /// Rows at the start that every pass sees: the system prompt. 4 in kvpress.
    std::size_t num_sink_tokens = 4;
    /// Tokens of the chunk before that end the request for a later one. 8 there.
    std::size_t num_lead_tokens = 8;

    static constexpr auto parameters() {
        using self = kvzip_reconstruction;
        return parameter_list{
            parameter{"chunk", &self::chunk_size, "rows scored per pass"},
            parameter{"prefix", &self::num_sink_tokens, "rows at the start that every pass sees"},
            parameter{"lead", &self::num_lead_tokens, "tokens that a later request ends with"}};
    }

    /// @throws std::invalid_argument if chunk_size is 0
    void validate() const {
        detail::require(chunk_size >= 1, "kvzip: chunk is 0; it must be at least 1 row");
    }

    /// Forward passes that a context takes.
    [[nodiscard]] std::size_t num_passes(std::size_t seq_len) const noexcept {
        const std::size_t rows = seq_len - (std::min)(num_sink_tokens, seq_len);
        return rows / chunk_size + (rows % chunk_size != 0 ? 1U : 0U);
    }

    /// @param[in]  context  token ids of all rows of the cache; may be empty if the engine builds the passes itself
    /// @param[in]  prompt   token ids of the request
    /// @param      engine   engine(pass, observe), one call per pass
    /// @param[out] scores   of the extents of the model and the context; written whole
    /// @throws std::invalid_argument from validate(), if context has another length than the scores, and if the engine
    ///         shows other layers or sizes than the pass asks for; what the engine throws; std::bad_alloc
    template <RepeatEngine Engine>
    void score(std::span<const std::int32_t> context,
               const kvzip_prompt& prompt,
               Engine&& engine,
               kvzip_scores& scores) const {
        validate();
        const std::size_t length = scores.shape().seq_len;
        detail::require(context.empty() || context.size() == length,
                        "kvzip: the context has ",
                        context.size(),
                        " token ids; the scores have ",
                        length,
                        " tokens");
        const std::size_t sinks = (std::min)(num_sink_tokens, length);
        kvzip_observer observe(sinks, scores);
        std::vector<std::int32_t> tokens;
        for (std::size_t index = 0; index < num_passes(length); ++index) {
            kvzip_pass pass;
            pass.index = index;
            pass.begin = sinks + index * chunk_size;
            pass.end = pass.begin + (std::min)(chunk_size, length - pass.begin);
            if (!context.empty()) {
                write_request(context, prompt, pass, tokens);
                pass.tokens = tokens;
            }
            observe.begin_pass(pass);
            engine(std::as_const(pass), observe);
            observe.end_pass();
        }
        for (std::size_t layer = 0; layer < scores.shape().num_layers; ++layer) {
            for (std::size_t head = 0; head < scores.shape().num_kv_heads; ++head) {
                const std::span<float> row = scores.layer(layer).row(head);
                float best = 0.0F;
                for (const float value : row.subspan(sinks)) {
                    best = (std::max)(best, value);
                }
                std::fill_n(row.begin(), sinks, best);
            }
        }
    }

private:
    void write_request(std::span<const std::int32_t> context,
                       const kvzip_prompt& prompt,
                       const kvzip_pass& pass,
                       std::vector<std::int32_t>& tokens) const {
        const auto append = [&](std::span<const std::int32_t> part) {
            tokens.insert(tokens.end(), part.begin(), part.end());
        };
        tokens.clear();
        append(pass.index == 0 ? prompt.first : prompt.next);
        if (pass.index > 0) {
            const std::size_t lead = (std::min)(num_lead_tokens, chunk_size);
            append(context.subspan(pass.begin - lead, lead));
        }
        append(prompt.suffix);
        append(context.subspan(pass.begin, pass.end - pass.begin));
    }
};

} // namespace v0
} // namespace kvcrush
