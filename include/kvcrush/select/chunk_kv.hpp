// SPDX-License-Identifier: Apache-2.0
/// @file
/// Chunks of neighbouring tokens stay or go together.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/select/selector.hpp>
#include <kvcrush/select/token_chunks.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Keeps the chunks of tokens with the best mean scores, so that what belongs together is read together.
///
///     |<- sinks ->|<- chunk 0 ->|<- chunk 1 ->| ... |<- rest ->|<- recent ->|     counted from the end of the sinks
///     score of a chunk = mean over its tokens of the sum over kv heads of score
///
/// The budget is met exactly: chunks are taken in order of their scores, and the last one is cut to its best tokens;
/// unless `whole` says otherwise.
/// @note   Linear in tokens. Ties keep the earlier chunk; scores that are NaN are left out of the means.
/// @see    ChunkKV, arXiv:2502.00299. Deviations: the paper and kvpress keep whole chunks (whole = true). The paper uses the indices of one layer for its neighbours too: compact them with the
///         same selection. Sinks and recent tokens are kept by the areas and belong to no chunk.
struct chunk_kv_selector {
    static constexpr std::string_view name = "chunk_kv";
    static constexpr std::string_view about = "the best-scored chunks of neighbouring tokens";

    /// Tokens of a chunk. 10 in the paper, 20 in kvpress.
    std::size_t chunk_size = 10;
    /// Which heads share their chunks. per_layer in the paper.
    chunk_sets sets = chunk_sets::per_layer;
    /// Keep whole chunks alone, whatever that makes in tokens, as the paper does:
    /// max(1, floor(num_chunks * budget / tokens)) of them, the last short one like the others.
    bool whole = false;

    static constexpr auto parameters() {
        return parameter_list{
            parameter{"chunk", &chunk_kv_selector::chunk_size, "tokens of a chunk"},
            parameter{"sets", &chunk_kv_selector::sets, "which heads keep which chunks"},
            parameter{"whole", &chunk_kv_selector::whole, "no chunk is cut to meet the budget"}};
    }

    /// @throws std::invalid_argument if chunk_size is 0
    void validate() const {
        detail::require(chunk_size >= 1, "chunk_kv: chunk is 0; it must be at least 1 token");
    }

    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        return scratch::bytes<float>(size.kv.seq_len) +
               token_chunks::scratch_bytes(size.kv.seq_len, chunk_size);
    }

    /// @see Selector
    template <typename... Inputs>
    void select(const selection_request& request, selection& out, const Inputs&...) const noexcept {
        const const_head_scores scores = request.scores;
        const areas& area = request.area;
        scratch memory = request.memory;
        out.clear();
        std::span<float> sums;
        if (sets == chunk_sets::per_layer) {
            sums = memory.take<float>(area.num_middle());
            sum_middle_scores(scores, area, sums);
        }
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            scratch own = memory;
            token_chunks chunks(sets == chunk_sets::per_layer ? std::span<const float>(sums)
                                                              : area.middle(scores.row(head)),
                                chunk_size,
                                own);
            const std::size_t budget = detail::middle_budget(area, request.counts[head]);
            if (whole) {
                chunks.choose_best(num_whole(chunks.num_chunks(), budget, area.num_middle()));
            } else {
                chunks.choose_best(budget / chunk_size);
                chunks.fill(budget);
            }
            out.extend_range(0, area.middle_begin);
            chunks.write(area.middle_begin, out);
            out.extend_range(area.middle_end, area.seq_len);
            out.end_head();
        }
    }

private:
    [[nodiscard]] static std::size_t
    num_whole(std::size_t num_chunks, std::size_t budget, std::size_t tokens) noexcept {
        const std::size_t share = budget == 0 ? 0 : num_chunks * budget / tokens;
        return (std::max)(share, std::size_t{budget == 0 ? 0U : 1U});
    }
};

} // namespace v0
} // namespace kvcrush
