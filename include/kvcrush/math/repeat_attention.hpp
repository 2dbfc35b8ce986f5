// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a model looks at in a part of its context while it repeats that part.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/concepts.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/row_view.hpp>
#include <kvcrush/math/attention_mass.hpp>
#include <kvcrush/simd/exp.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/logits.hpp>
#include <kvcrush/simd/max_tile.hpp>
#include <kvcrush/simd/softmax.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {

/// The rows that take part in one repeat pass.
///
///     |<- sinks [0, num_sinks) ->|  ...  |<- chunk [begin, end) ->|  ...  |<- num_repeats rows of the pass ->|
struct repeat_span {
    std::size_t num_sinks = 0;
    std::size_t begin = 0;
    std::size_t end = 0;
    std::size_t num_repeats = 0;

    [[nodiscard]] constexpr std::size_t chunk_length() const noexcept { return end - begin; }
    [[nodiscard]] constexpr std::size_t num_rows() const noexcept {
        return num_sinks + chunk_length() + num_repeats;
    }
};

namespace detail {

/// Sinks, chunk and repeat rows as one cache, of which the repeat rows are the last tokens.
template <KvSource Context, KvSource Repeat>
class repeat_rows {
public:
    using element = const std::remove_const_t<key_element_t<Context>>;
    static_assert(std::same_as<element, const std::remove_const_t<key_element_t<Repeat>>>,
                  "kvcrush: keys of the context and of the repeat pass must have one element type");

    /// @param first_repeat  row of `repeat` that holds the first token of the pass
    repeat_rows(const Context& context,
                const Repeat& repeat,
                std::size_t first_repeat,
                const repeat_span& span) noexcept
        : context_(&context), repeat_(&repeat), first_repeat_(first_repeat), span_(span) {}

    [[nodiscard]] kv_shape shape() const noexcept {
        kv_shape joined = context_->shape();
        joined.seq_len = span_.num_rows();
        return joined;
    }
    [[nodiscard]] row_view<element> key(std::size_t head, std::size_t token) const noexcept {
        const std::size_t in_chunk = token - (std::min)(token, span_.num_sinks);
        if (token < span_.num_sinks) {
            return constant(context_->key(head, token));
        }
        if (in_chunk < span_.chunk_length()) {
            return constant(context_->key(head, span_.begin + in_chunk));
        }
        return constant(repeat_->key(head, first_repeat_ + (in_chunk - span_.chunk_length())));
    }
    /// Nobody asks for values.
    [[nodiscard]] row_view<element> value(std::size_t head, std::size_t token) const noexcept {
        return key(head, token);
    }

private:
    template <typename Row>
    [[nodiscard]] static row_view<element> constant(const Row& row) noexcept {
        return {row.data(), row.size(), row.stride()};
    }

    const Context* context_;
    const Repeat* repeat_;
    std::size_t first_repeat_;
    repeat_span span_;
};

/// Second pass over the weights: scales them and keeps the largest of each chunk token.
/// @param[in,out] largest  [chunk_length]
inline void max_weights(const attention_block& block,
                        const attention_buffers& buffers,
                        tile_factors& scaled,
                        const repeat_span& span,
                        std::span<float> largest,
                        simd::isa rung) noexcept {
    const std::size_t rows = block.rows();
    const std::size_t chunk_end = span.num_sinks + span.chunk_length();
    for (std::size_t t = span.num_sinks / simd::key_tile; t * simd::key_tile < chunk_end; ++t) {
        std::array<float, simd::key_tile> best{};
        simd::max_tile(buffers.weights + t * rows * simd::key_tile, scaled.of(t), best, rung);
        const std::size_t first = (std::max)(t * simd::key_tile, span.num_sinks);
        const std::size_t last = (std::min)((t + 1) * simd::key_tile, chunk_end);
        for (std::size_t column = first; column < last; ++column) {
            float& out = largest[column - span.num_sinks];
            out = (std::max)(out, (std::min)(best[column % simd::key_tile], 1.0F));
        }
    }
}

} // namespace detail

/// Floats of scratch memory that repeat_attention needs.
/// @param shape  of the context; its seq_len is not used
[[nodiscard]] constexpr std::size_t repeat_attention_workspace(const kv_shape& shape,
                                                               std::size_t num_q_heads,
                                                               const repeat_span& span) noexcept {
    kv_shape joined = shape;
    joined.seq_len = span.num_rows();
    return attention_mass_workspace(joined, num_q_heads, span.num_repeats);
}

/// The largest weight that any query of a repeat pass pays to each token of the chunk, in fp32.
///
///     scores[k, j] = max over the query heads h of kv head k and all queries i of
///                    softmax(scale * q[h, i] k[sinks, chunk, repeat rows 0 .. i])[j]
///
/// The rest of the context has no part in the softmax. Scores lie in [0, 1]; they are 0 where nobody looks, where the
/// logits of a query are not numbers too.
/// @param[in]  context       cache with the rows of sinks and chunk
/// @param[in]  repeat        cache with the rows of the repeat pass, from `first_repeat` on; may be the same
/// @param[in]  queries       [num_q_heads, num_repeats, key_dim], after RoPE, one per repeat row
/// @param[out] scores        [num_kv_heads, >= end]; columns [begin, end) are written
/// @param      workspace     repeat_attention_workspace() floats
/// @note  O(num_q_heads * num_repeats * span.num_rows() * head_dim); a block of 128 rows of weights is all that exists
template <KvSource Context, KvSource Repeat>
void repeat_attention(const Context& context,
                      const Repeat& repeat,
                      std::size_t first_repeat,
                      const query_view& queries,
                      const repeat_span& span,
                      head_scores scores,
                      std::span<float> workspace,
                      float scale,
                      simd::isa at_most = simd::best()) noexcept {
    const detail::repeat_rows<Context, Repeat> rows(context, repeat, first_repeat, span);
    KVCRUSH_ASSERT(queries.num_queries() == span.num_repeats && span.end <= scores.seq_len() &&
                   scores.num_heads() == rows.shape().num_kv_heads);
    const auto chunk_of = [&](std::size_t kv_head) noexcept {
        return scores.row(kv_head).subspan(span.begin, span.chunk_length());
    };
    for (std::size_t kv_head = 0; kv_head < scores.num_heads(); ++kv_head) {
        const std::span<float> chunk = chunk_of(kv_head);
        std::fill(chunk.begin(), chunk.end(), 0.0F);
    }
    detail::for_each_attention_block(
        rows,
        queries,
        workspace,
        scale,
        at_most,
        [&](const detail::attention_block& block,
            const detail::attention_buffers& buffers,
            detail::tile_factors& factors) noexcept {
            detail::max_weights(block, buffers, factors, span, chunk_of(block.kv_head), at_most);
        });
}

} // namespace v0
} // namespace kvcrush
