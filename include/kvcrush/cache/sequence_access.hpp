// SPDX-License-Identifier: Apache-2.0
/// @file
/// How policies look at the rows of a kv_sequence as they lie.
#pragma once

#include <kvcrush/cache/query_log.hpp>
#include <kvcrush/cache/sequence.hpp>
#include <kvcrush/recipe/layer_access.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Rows are decoded when they are asked for. Which row is the i-th oldest is looked up once: 8 bytes a row for the time of
/// one compression. Threads may share one as long as each looks at heads of its own.
class sequence_access final : public layer_access {
public:
    /// @param layer, queries  must outlive this, and not change meanwhile
    sequence_access(const kv_sequence& layer, const query_log& queries)
        : layer_(&layer), queries_(&queries) {
        for (const stored_head& head : layer.heads()) {
            ages_.push_back(head.by_age());
            longest_ = (std::max)(longest_, ages_.back().size());
            room_.emplace_back(head.read_room());
        }
    }

    [[nodiscard]] kv_shape shape() const noexcept override {
        const layer_extent& extent = layer_->extent();
        return {extent.num_kv_heads, longest_, extent.key_dim, extent.value_dim};
    }
    [[nodiscard]] std::size_t rows(std::size_t head) const noexcept override {
        return ages_[head].size();
    }
    [[nodiscard]] token_index position(std::size_t head, std::size_t row) const noexcept override {
        return ages_[head][row].position;
    }
    void read_keys(std::size_t head,
                   std::size_t first,
                   std::size_t count,
                   float* out) const noexcept override {
        const std::size_t dim = layer_->extent().key_dim;
        for (std::size_t i = 0; i < count; ++i) {
            layer_->heads()[head].read_key(
                ages_[head][first + i].row, {out + i * dim, dim}, room_[head]);
        }
    }
    void read_values(std::size_t head,
                     std::size_t first,
                     std::size_t count,
                     float* out) const noexcept override {
        const std::size_t dim = layer_->extent().value_dim;
        for (std::size_t i = 0; i < count; ++i) {
            layer_->heads()[head].read_value(
                ages_[head][first + i].row, {out + i * dim, dim}, room_[head]);
        }
    }
    /// As many as have their rows side by side at the end of each of the heads: only they know which rows are older.
    [[nodiscard]] query_view queries(std::size_t first_head,
                                     std::size_t num_heads) const noexcept override {
        std::size_t usable = queries_->end() == layer_->tokens_seen() ? queries_->size() : 0;
        for (std::size_t head = first_head; head < first_head + num_heads; ++head) {
            usable = (std::min)(usable, newest_in_a_row(head));
        }
        return queries_->last(usable);
    }

private:
    [[nodiscard]] std::size_t newest_in_a_row(std::size_t head) const noexcept {
        const std::vector<stored_head::place>& ages = ages_[head];
        std::size_t count = 0;
        while (count < ages.size() &&
               ages[ages.size() - 1 - count].position + count + 1 == layer_->tokens_seen()) {
            ++count;
        }
        return count;
    }

    const kv_sequence* layer_;
    const query_log* queries_;
    std::size_t longest_ = 0;
    std::vector<std::vector<stored_head::place>> ages_;
    /// What decoding groups of rows works in, per head.
    mutable std::vector<std::vector<float>> room_;
};

} // namespace v0
} // namespace kvcrush
