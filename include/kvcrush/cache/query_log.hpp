// SPDX-License-Identifier: Apache-2.0
/// @file
/// The queries of the newest tokens of a layer, kept for scorers that look at attention.
#pragma once

#include <kvcrush/core/query_view.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Copies share what they hold until one of them goes on.
class query_log {
public:
    query_log(std::size_t num_q_heads, std::size_t head_dim)
        : num_q_heads_(num_q_heads), head_dim_(head_dim) {}

    /// Queries held.
    [[nodiscard]] std::size_t size() const noexcept {
        return rows_ == nullptr ? 0 : rows_->size() / width();
    }
    /// One more than the position of the newest token whose query is held.
    [[nodiscard]] std::size_t end() const noexcept { return end_; }

    /// Adds the queries of the tokens up to `end`; older ones than the newest `at_least` may go.
    /// @param queries  [num_q_heads, num_queries, head_dim]
    /// @param end      one more than the position of the last of them. Where they do not follow those that are held, the
    ///                 latter go.
    void append(const query_view& queries, std::size_t end, std::size_t at_least) {
        if (end == end_) { // shown once more: these take the places of those
            take_back(queries.num_queries());
        }
        const std::size_t added = (std::min)(queries.num_queries(), at_least);
        std::size_t old = end_ + queries.num_queries() == end ? size() : 0;
        end_ = end;
        if (at_least == 0) {
            rows_.reset();
            return;
        }
        old = (std::min)(old, at_least - added);
        // Moving rows to the front each time would cost more than the room of some more.
        const bool trims =
            (at_least < size() && size() - at_least > at_least + 64) || old == 0;
        if (rows_ == nullptr || rows_.use_count() > 1 || trims) {
            auto fresh = std::make_shared<std::vector<float>>();
            fresh->reserve((old + added) * width());
            if (old > 0) {
                fresh->assign(rows_->end() - static_cast<std::ptrdiff_t>(old * width()), rows_->end());
            }
            rows_ = std::move(fresh);
        }
        for (std::size_t q = queries.num_queries() - added; q < queries.num_queries(); ++q) {
            for (std::size_t head = 0; head < num_q_heads_; ++head) {
                const float* const row = queries.row(head, q);
                rows_->insert(rows_->end(), row, row + head_dim_);
            }
        }
    }

    /// The newest `count` queries, or all of them; valid until the next append().
    [[nodiscard]] query_view last(std::size_t count) const {
        const std::span<const float> rows =
            rows_ == nullptr ? std::span<const float>{} : std::span<const float>(*rows_);
        return query_view(rows, num_q_heads_, size(), head_dim_, {head_dim_, width(), 1}).last(count);
    }

    /// Forgets all but the newest `count`, and gives their memory back.
    void keep_last(std::size_t count) {
        if (count == 0) {
            rows_.reset();
        } else if (count < size()) {
            rows_ = std::make_shared<std::vector<float>>(
                rows_->end() - static_cast<std::ptrdiff_t>(count * width()), rows_->end());
        }
    }
    [[nodiscard]] std::size_t bytes_held() const noexcept {
        return rows_ == nullptr ? 0 : rows_->capacity() * sizeof(float);
    }

private:
    /// Forgets the newest `count`.
    void take_back(std::size_t count) {
        const std::size_t left = size() - (std::min)(size(), count);
        if (left < size()) {
            rows_ = std::make_shared<std::vector<float>>(
                rows_->begin(), rows_->begin() + static_cast<std::ptrdiff_t>(left * width()));
        }
        end_ -= (std::min)(end_, count);
    }

    [[nodiscard]] std::size_t width() const noexcept { return num_q_heads_ * head_dim_; }

    std::size_t num_q_heads_;
    std::size_t head_dim_;
    std::size_t end_ = 0;
    std::shared_ptr<std::vector<float>> rows_; ///< [queries, num_q_heads, head_dim]
};

} // namespace v0
} // namespace kvcrush
