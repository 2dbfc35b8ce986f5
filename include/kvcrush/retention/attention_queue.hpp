// SPDX-License-Identifier: Apache-2.0
/// @file
/// What the cached tokens were paid by the last few queries, one row per query, compacted together with K and V.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/compact_values.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/layout.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/retention/detail/observed_heads.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// What the last queries' weights of a token become.
enum class queue_fold {
    sum,
    /// Over those of the last queries that could see the token.
    mean,
    maximum
};

/// The weights of the last `num_queries` queries, per head and token. Unlike an accumulator it forgets: what nobody
/// looked at lately scores low whatever its past.
///
/// Lengths and `first_head` are those of attention_accumulator.
/// @note Memory per head and token: 4 bytes, and 4 for every query of the queue.
/// @see  SnapKV's window (arXiv:2404.14469) while decoding; the queue of OpenVINO GenAI's adaptive R-KV
class attention_queue {
public:
    /// @throws std::invalid_argument if num_queries is 0
    explicit attention_queue(std::size_t num_queries, queue_fold fold = queue_fold::mean)
        : num_queries_(num_queries), fold_(fold) {
        detail::require(num_queries > 0,
                        "attention_queue: num_queries is 0; it must be at least 1 query");
    }

    /// Makes room and forgets everything.
    /// @throws std::invalid_argument if num_queries * num_heads * max_tokens overflows; std::bad_alloc
    void plan(std::size_t num_heads, std::size_t max_tokens) {
        const std::size_t total = heads_.plan(num_heads, max_tokens, "attention_queue");
        weights_.assign(detail::checked_multiply(num_queries_, total, "attention_queue"), 0.0F);
        scores_.assign(total, 0.0F);
    }

    /// Forgets all tokens and queries, keeps the memory.
    void clear() noexcept { heads_.clear(); }

    /// Takes the rows of new queries; the oldest ones leave.
    /// @param[in] attention   [some heads, num_queries, tokens held + new ones], after softmax, not negative. NaN counts
    ///                        as 0
    /// @param     first_head  the head that the first one of `attention` is
    /// @pre  length(head) <= attention.seq_len() <= max_tokens() for these heads
    /// @note O(heads * queries of the queue * seq_len), allocates nothing
    void add(const attention_view& attention, std::size_t first_head = 0) noexcept {
        const attention_view last = attention.last(num_queries_);
        const std::size_t seq_len = last.seq_len();
        KVCRUSH_ASSERT(first_head + last.num_q_heads() <= heads_.num_heads());
        for (std::size_t i = 0; i < last.num_q_heads(); ++i) {
            const std::size_t head = first_head + i;
            const std::size_t before = heads_.length(head);
            const std::size_t asked = heads_.queries(head);
            heads_.grow(head, last.num_queries(), seq_len);
            for (std::size_t slot = 0; slot < num_queries_; ++slot) {
                const std::span<float> added = row(slot, head).subspan(before);
                std::fill(added.begin(), added.end(), unseen);
            }
            for (std::size_t query = 0; query < last.num_queries(); ++query) {
                const std::span<const float> from = last.row(i, query);
                const std::span<float> to = row((asked + query) % num_queries_, head);
                for (std::size_t t = 0; t < from.size(); ++t) {
                    to[t] = from[t] == from[t] ? from[t] : 0.0F;
                }
                std::fill(to.begin() + static_cast<std::ptrdiff_t>(from.size()), to.end(), unseen);
            }
        }
    }

    /// Importance of the tokens of all heads, [num_heads, length]; valid until the next call of this object.
    /// @pre all heads hold equally many tokens
    [[nodiscard]] const_head_scores scores() noexcept { return scores(0, num_heads()); }

    /// Importance of the tokens of the heads [first_head, first_head + count), [count, length].
    /// @pre these heads hold equally many tokens
    [[nodiscard]] const_head_scores scores(std::size_t first_head, std::size_t count) noexcept {
        const std::size_t length = heads_.common_length(first_head, count);
        const std::span<float> out = std::span(scores_).first(count * length);
        for (std::size_t i = 0; i < count; ++i) {
            fold_head(first_head + i, out.subspan(i * length, length));
        }
        return {out, count, length};
    }

    /// Keeps what K and V keep. Head h follows kv head h / (num_heads() / kept.num_kv_heads()).
    /// @pre num_heads() is a multiple of kept.num_kv_heads() (or that is 0: nothing is dropped), indices are below
    ///      length(head)
    void compact(const selection& kept) noexcept {
        heads_.compact(kept, [this](std::size_t head, std::span<const token_index> tokens) {
            for (std::size_t slot = 0; slot < num_queries_; ++slot) {
                compact_values(row(slot, head), tokens);
            }
        });
    }

    [[nodiscard]] std::size_t num_heads() const noexcept { return heads_.num_heads(); }
    [[nodiscard]] std::size_t max_tokens() const noexcept { return heads_.max_tokens(); }
    /// Queries that the queue remembers.
    [[nodiscard]] std::size_t num_queries() const noexcept { return num_queries_; }
    /// Tokens that the head holds.
    [[nodiscard]] std::size_t length(std::size_t head) const noexcept {
        return heads_.length(head);
    }

private:
    /// Stands where a query came before the token.
    static constexpr float unseen = std::numeric_limits<float>::quiet_NaN();

    [[nodiscard]] std::span<float> row(std::size_t slot, std::size_t head) noexcept {
        const std::size_t layer = heads_.num_heads() * heads_.max_tokens();
        return heads_.row(std::span(weights_).subspan(slot * layer, layer), head);
    }

    /// Oldest query first, so that the order of additions does not depend on where the queue begins.
    void fold_head(std::size_t head, std::span<float> out) noexcept {
        std::fill(out.begin(), out.end(), 0.0F);
        const std::size_t asked = heads_.queries(head);
        const std::size_t held = (std::min)(asked, num_queries_);
        for (std::size_t query = asked - held; query < asked; ++query) {
            const std::span<const float> weights = row(query % num_queries_, head);
            for (std::size_t t = 0; t < out.size(); ++t) {
                const float weight = weights[t] == weights[t] ? weights[t] : 0.0F;
                out[t] = fold_ != queue_fold::maximum ? out[t] + weight
                         : weight > out[t]            ? weight
                                                      : out[t];
            }
        }
        if (fold_ != queue_fold::mean) {
            return;
        }
        for (std::size_t t = 0; t < out.size(); ++t) {
            std::size_t reach = 0;
            for (std::size_t slot = 0; slot < held; ++slot) {
                const float weight = row(slot, head)[t];
                reach += weight == weight ? 1U : 0U;
            }
            out[t] /= static_cast<float>((std::max)(reach, std::size_t{1}));
        }
    }

    std::size_t num_queries_;
    queue_fold fold_;
    detail::observed_heads heads_;
    /// [num_queries, num_heads, max_tokens]; query q of a head lies in slot q % num_queries.
    std::vector<float> weights_;
    std::vector<float> scores_;
};

} // namespace v0
} // namespace kvcrush
