// SPDX-License-Identifier: Apache-2.0
/// @file
/// What every observer of attention has to know: how many tokens each head holds, and which of them stay.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/layout.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Tokens held and queries counted per head. The values themselves lie in [num_heads, max_tokens] arrays of the
/// observer; a head uses the first length(head) of its row.
class observed_heads {
public:
    /// @return num_heads * max_tokens
    /// @throws std::invalid_argument if that overflows or tokens do not fit their index; std::bad_alloc
    std::size_t plan(std::size_t num_heads, std::size_t max_tokens, const char* what) {
        require(max_tokens < (std::numeric_limits<token_index>::max)(),
                what,
                ": max_tokens is ",
                max_tokens,
                "; at most 4294967294 tokens are supported");
        const std::size_t total = checked_multiply(num_heads, max_tokens, what);
        lengths_.assign(num_heads, 0);
        queries_.assign(num_heads, 0);
        max_tokens_ = max_tokens;
        return total;
    }

    void clear() noexcept {
        std::fill(lengths_.begin(), lengths_.end(), std::size_t{0});
        std::fill(queries_.begin(), queries_.end(), std::size_t{0});
    }

    [[nodiscard]] std::size_t num_heads() const noexcept { return lengths_.size(); }
    [[nodiscard]] std::size_t max_tokens() const noexcept { return max_tokens_; }
    [[nodiscard]] std::size_t length(std::size_t head) const noexcept {
        KVCRUSH_ASSERT(head < lengths_.size());
        return lengths_[head];
    }
    /// Queries counted so far.
    [[nodiscard]] std::size_t queries(std::size_t head) const noexcept {
        KVCRUSH_ASSERT(head < queries_.size());
        return queries_[head];
    }

    /// Tokens of each of these heads.
    /// @pre all of them hold as many
    [[nodiscard]] std::size_t common_length(std::size_t first, std::size_t count) const noexcept {
        KVCRUSH_ASSERT(first + count <= lengths_.size());
        const std::size_t common = count == 0 ? 0 : lengths_[first];
        for (std::size_t head = first; head < first + count; ++head) {
            KVCRUSH_ASSERT(lengths_[head] == common);
        }
        return common;
    }

    /// The head saw `num_queries` more queries and holds `length` tokens now.
    void grow(std::size_t head, std::size_t num_queries, std::size_t length) noexcept {
        KVCRUSH_ASSERT(length >= lengths_[head] && length <= max_tokens_);
        queries_[head] += num_queries;
        lengths_[head] = length;
    }

    /// The used part of a head's row.
    template <typename T>
    [[nodiscard]] std::span<T> row(std::span<T> values, std::size_t head) const noexcept {
        return values.subspan(head * max_tokens_, length(head));
    }

    /// Calls move(head, kept) for every head, and notes its new length.
    template <typename Move>
    void compact(const selection& kept, const Move& move) noexcept {
        const std::size_t num_kv_heads = kept.num_kv_heads();
        if (num_kv_heads == 0) {
            return;
        }
        KVCRUSH_ASSERT(num_heads() % num_kv_heads == 0);
        const std::size_t group_size = num_heads() / num_kv_heads;
        for (std::size_t head = 0; head < num_heads(); ++head) {
            const std::span<const token_index> tokens = kept.kept(head / group_size);
            move(head, tokens);
            lengths_[head] = tokens.size();
        }
    }

private:
    std::vector<std::size_t> lengths_;
    std::vector<std::size_t> queries_;
    std::size_t max_tokens_ = 0;
};

} // namespace detail
} // namespace v0
} // namespace kvcrush
