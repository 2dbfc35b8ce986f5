// SPDX-License-Identifier: Apache-2.0
/// @file
/// The answer of every selector: which tokens each kv head keeps.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Kept token indices per kv head, ascending and unique, in CSR form. Counts may differ between heads.
/// Memory is taken by reserve() alone; building and reading allocate nothing.
class selection {
public:
    selection() = default;

    /// Makes room for `num_kv_heads` heads with `total` kept tokens together, and empties the selection.
    void reserve(std::size_t num_kv_heads, std::size_t total) {
        indptr_.reserve(num_kv_heads + 1);
        indices_.reserve(total);
        clear();
    }

    /// Forgets all heads, keeps the memory.
    void clear() noexcept {
        indptr_.clear();
        indices_.clear();
    }

    /// Room for `count` more tokens of the head being built; the caller writes them, ascending.
    /// @pre reserve() made enough room
    [[nodiscard]] std::span<token_index> extend(std::size_t count) noexcept {
        KVCRUSH_ASSERT(indices_.size() + count <= indices_.capacity());
        const std::size_t begin = indices_.size();
        indices_.resize(begin + count);
        return std::span(indices_).subspan(begin);
    }

    /// Appends the tokens [first, last) to the head being built.
    void extend_range(std::size_t first, std::size_t last) noexcept {
        const std::span<token_index> room = extend(last - first);
        for (std::size_t i = 0; i < room.size(); ++i) {
            room[i] = static_cast<token_index>(first + i);
        }
    }

    /// Closes the head being built.
    void end_head() noexcept {
        if (indptr_.empty()) {
            indptr_.push_back(0);
        }
        KVCRUSH_ASSERT(indptr_.size() < indptr_.capacity());
        indptr_.push_back(indices_.size());
    }

    [[nodiscard]] std::size_t num_kv_heads() const noexcept {
        return indptr_.empty() ? 0 : indptr_.size() - 1;
    }
    /// Kept tokens of all heads together.
    [[nodiscard]] std::size_t total() const noexcept { return indices_.size(); }
    /// Tokens that head `head` keeps, ascending; none of a head that the selection does not have.
    [[nodiscard]] std::span<const token_index> kept(std::size_t head) const noexcept {
        if (head >= num_kv_heads()) {
            return {};
        }
        return std::span(indices_).subspan(indptr_[head], indptr_[head + 1] - indptr_[head]);
    }
    /// The largest number of tokens that a head keeps.
    [[nodiscard]] std::size_t longest() const noexcept {
        std::size_t count = 0;
        for (std::size_t head = 0; head < num_kv_heads(); ++head) {
            count = kept(head).size() > count ? kept(head).size() : count;
        }
        return count;
    }
    /// [num_kv_heads + 1] offsets into indices(); empty before the first head.
    [[nodiscard]] std::span<const std::size_t> indptr() const noexcept { return indptr_; }
    [[nodiscard]] std::span<const token_index> indices() const noexcept { return indices_; }

    friend bool operator==(const selection&, const selection&) = default;

private:
    std::vector<std::size_t> indptr_;
    std::vector<token_index> indices_;
};

namespace detail {

/// A selection whose copies have the same room, so that a copy of a planned compressor needs no memory either. What was
/// selected stays with the original.
class selection_room {
public:
    selection_room() = default;
    selection_room(const selection_room& other) { reserve(other.num_kv_heads_, other.total_); }
    selection_room(selection_room&&) noexcept = default;
    selection_room& operator=(const selection_room& other) {
        reserve(other.num_kv_heads_, other.total_);
        return *this;
    }
    selection_room& operator=(selection_room&&) noexcept = default;
    ~selection_room() = default;

    void reserve(std::size_t num_kv_heads, std::size_t total) {
        value.reserve(num_kv_heads, total);
        num_kv_heads_ = num_kv_heads;
        total_ = total;
    }

    selection value;

private:
    std::size_t num_kv_heads_ = 0;
    std::size_t total_ = 0;
};

} // namespace detail
} // namespace v0
} // namespace kvcrush
