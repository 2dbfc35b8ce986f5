// SPDX-License-Identifier: Apache-2.0
/// @file
/// What attention-based scorers look at besides the keys: queries, or rows of attention weights.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/layout.hpp>

#include <cstddef>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// Queries of the last `num_queries` tokens of a sequence, after RoPE, fp32, [num_q_heads, num_queries, head_dim]
/// by default. Query i belongs to cache index seq_len - num_queries + i and sees the keys up to it.
/// Query head h reads kv head h / (num_q_heads / num_kv_heads).
class query_view {
public:
    /// @throws std::invalid_argument if `queries` is shorter than the extents need
    query_view(std::span<const float> queries,
               std::size_t num_q_heads,
               std::size_t num_queries,
               std::size_t head_dim)
        : query_view(
              queries, num_q_heads, num_queries, head_dim, {num_queries * head_dim, head_dim, 1}) {}

    /// Any head and token stride; head_dim must be contiguous (strides.dim == 1).
    query_view(std::span<const float> queries,
               std::size_t num_q_heads,
               std::size_t num_queries,
               std::size_t head_dim,
               const kv_strides& strides)
        : data_(queries.data()),
          num_q_heads_(num_q_heads),
          num_queries_(num_queries),
          head_dim_(head_dim),
          strides_(strides) {
        detail::require(strides.dim == 1,
                        "query_view: the stride between channels is ",
                        strides.dim,
                        "; it must be 1");
        const std::size_t needed =
            detail::required_elements(num_q_heads, num_queries, head_dim, strides, "query_view");
        detail::require(queries.size() >= needed,
                        "query_view: queries hold ",
                        queries.size(),
                        " elements; the shape needs ",
                        needed);
    }

    [[nodiscard]] std::size_t num_q_heads() const noexcept { return num_q_heads_; }
    [[nodiscard]] std::size_t num_queries() const noexcept { return num_queries_; }
    [[nodiscard]] std::size_t head_dim() const noexcept { return head_dim_; }
    /// Elements between neighbouring queries of one head.
    [[nodiscard]] std::size_t query_stride() const noexcept { return strides_.token; }
    [[nodiscard]] const float* row(std::size_t head, std::size_t query) const noexcept {
        return data_ + head * strides_.head + query * strides_.token;
    }

    /// The last min(count, num_queries) queries.
    [[nodiscard]] query_view last(std::size_t count) const noexcept {
        query_view window = *this;
        if (count < num_queries_) {
            window.data_ += (num_queries_ - count) * strides_.token;
            window.num_queries_ = count;
        }
        return window;
    }

    /// The query heads [first, first + count).
    [[nodiscard]] query_view heads(std::size_t first, std::size_t count) const noexcept {
        KVCRUSH_ASSERT(first + count <= num_q_heads_);
        query_view part = *this;
        part.data_ += count == 0 ? 0 : first * strides_.head;
        part.num_q_heads_ = count;
        return part;
    }

private:
    const float* data_;
    std::size_t num_q_heads_;
    std::size_t num_queries_;
    std::size_t head_dim_;
    kv_strides strides_;
};

/// Attention weights (after softmax) of the last `num_queries` queries, [num_q_heads, num_queries, seq_len].
/// Row i belongs to cache index seq_len - num_queries + i; entries behind it are ignored.
class attention_view {
public:
    /// @throws std::invalid_argument if `weights` is shorter than the extents need or num_queries > seq_len
    attention_view(std::span<const float> weights,
                   std::size_t num_q_heads,
                   std::size_t num_queries,
                   std::size_t seq_len)
        : data_(weights.data()),
          num_q_heads_(num_q_heads),
          num_queries_(num_queries),
          seq_len_(seq_len),
          queries_held_(num_queries) {
        detail::require(num_queries <= seq_len,
                        "attention_view: num_queries is ",
                        num_queries,
                        "; at most seq_len (",
                        seq_len,
                        ") queries can have looked");
        const std::size_t needed = detail::checked_multiply(
            detail::checked_multiply(num_q_heads, num_queries, "attention_view"),
            seq_len,
            "attention_view");
        detail::require(weights.size() >= needed,
                        "attention_view: weights hold ",
                        weights.size(),
                        " elements; the shape needs ",
                        needed);
    }

    [[nodiscard]] std::size_t num_q_heads() const noexcept { return num_q_heads_; }
    [[nodiscard]] std::size_t num_queries() const noexcept { return num_queries_; }
    [[nodiscard]] std::size_t seq_len() const noexcept { return seq_len_; }

    /// The last min(count, num_queries) queries.
    [[nodiscard]] attention_view last(std::size_t count) const noexcept {
        attention_view window = *this;
        if (count < num_queries_) {
            window.first_query_ += num_queries_ - count;
            window.num_queries_ = count;
        }
        return window;
    }

    /// The query heads [first, first + count).
    [[nodiscard]] attention_view heads(std::size_t first, std::size_t count) const noexcept {
        KVCRUSH_ASSERT(first + count <= num_q_heads_);
        attention_view part = *this;
        part.data_ += count == 0 ? 0 : first * queries_held_ * seq_len_;
        part.num_q_heads_ = count;
        return part;
    }

    /// What query `query` pays to the tokens it can see, oldest first.
    [[nodiscard]] std::span<const float> row(std::size_t head, std::size_t query) const noexcept {
        KVCRUSH_ASSERT(head < num_q_heads_ && query < num_queries_);
        return {data_ + (head * queries_held_ + first_query_ + query) * seq_len_,
                seq_len_ - num_queries_ + query + 1};
    }

private:
    const float* data_;
    std::size_t num_q_heads_;
    std::size_t num_queries_;
    std::size_t seq_len_;
    /// Rows per head in memory, and the first of them that belongs to the view.
    std::size_t queries_held_;
    std::size_t first_query_ = 0;
};

} // namespace v0
} // namespace kvcrush
