// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a recipe has to see of a cache to compress it, whoever keeps it.
#pragma once

#include <kvcrush/core/kv_shape.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/math/any_source.hpp>

#include <cstddef>

namespace kvcrush {
inline namespace v0 {

/// One layer of a cache, whose kv heads may hold different tokens. Rows of a head are numbered by age.
class layer_access {
public:
    layer_access() = default;
    layer_access(const layer_access&) = delete;
    layer_access& operator=(const layer_access&) = delete;
    virtual ~layer_access() = default;

    /// seq_len is the number of rows of the head that holds most.
    [[nodiscard]] virtual kv_shape shape() const noexcept = 0;
    [[nodiscard]] virtual std::size_t rows(std::size_t head) const noexcept = 0;
    /// The place in the text of a row.
    [[nodiscard]] virtual token_index position(std::size_t head, std::size_t row) const noexcept = 0;
    /// @see RowReader
    virtual void read_keys(std::size_t head,
                           std::size_t first,
                           std::size_t count,
                           float* out) const noexcept = 0;
    virtual void read_values(std::size_t head,
                             std::size_t first,
                             std::size_t count,
                             float* out) const noexcept = 0;
    /// Queries of all query heads that have their rows at the end of each of the kv heads
    /// [first_head, first_head + num_heads): the last query belongs to the last row, the one before to the row before.
    [[nodiscard]] virtual query_view queries(std::size_t first_head,
                                             std::size_t num_heads) const noexcept = 0;

    [[nodiscard]] bool heads_are_even() const noexcept {
        const kv_shape all = shape();
        for (std::size_t head = 0; head < all.num_kv_heads; ++head) {
            if (rows(head) != all.seq_len) {
                return false;
            }
        }
        return true;
    }
};

/// Some kv heads of a layer that hold as many rows each: what any_source reads.
class heads_reader {
public:
    /// @pre the heads [first_head, first_head + num_heads) of `layer`, which must outlive this, hold `rows` rows each
    heads_reader(const layer_access& layer,
                 std::size_t first_head,
                 std::size_t num_heads,
                 std::size_t rows) noexcept
        : layer_(&layer), first_head_(first_head), num_heads_(num_heads), rows_(rows) {}

    [[nodiscard]] kv_shape shape() const noexcept {
        kv_shape own = layer_->shape();
        own.num_kv_heads = num_heads_;
        own.seq_len = rows_;
        return own;
    }
    void read_keys(std::size_t head,
                   std::size_t first,
                   std::size_t count,
                   float* out) const noexcept {
        layer_->read_keys(first_head_ + head, first, count, out);
    }
    void read_values(std::size_t head,
                     std::size_t first,
                     std::size_t count,
                     float* out) const noexcept {
        layer_->read_values(first_head_ + head, first, count, out);
    }

private:
    const layer_access* layer_;
    std::size_t first_head_;
    std::size_t num_heads_;
    std::size_t rows_;
};
static_assert(RowReader<heads_reader>);

} // namespace v0
} // namespace kvcrush
