// SPDX-License-Identifier: Apache-2.0
/// @file
/// A sequence that is read, decoded and compressed now and then, for tests of observers.
#pragma once

#include <kvcrush/core/query_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/selection.hpp>

#include "../reference/observed_attention.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvcrush::test {

/// Feeds an observer and the reference with the same weights. Kv heads have lengths of their own.
class observed_sequence {
public:
    observed_sequence(std::size_t num_kv_heads, std::size_t group_size, std::uint64_t seed)
        : group_size_(group_size), seed_(seed), heads_(num_kv_heads * group_size) {}

    [[nodiscard]] std::size_t num_heads() const { return heads_.size(); }
    [[nodiscard]] std::size_t num_kv_heads() const { return heads_.size() / group_size_; }
    [[nodiscard]] std::size_t group_size() const { return group_size_; }
    [[nodiscard]] const reference::observed_attention& head(std::size_t i) const {
        return heads_[i];
    }
    [[nodiscard]] std::size_t length(std::size_t kv_head) const {
        return heads_[kv_head * group_size_].length();
    }

    /// The last `num_queries` of `num_tokens` new tokens look at what is held.
    template <typename Observer>
    void read(Observer& observer, std::size_t num_tokens, std::size_t num_queries) {
        for (std::size_t kv_head = 0; kv_head < num_kv_heads(); ++kv_head) {
            const std::size_t seq_len = length(kv_head) + num_tokens;
            std::vector<float> weights(group_size_ * num_queries * seq_len);
            for (float& weight : weights) {
                weight = random_unit(seed_, 1, drawn_++);
            }
            const attention_view view(weights, group_size_, num_queries, seq_len);
            observer.add(view, kv_head * group_size_);
            for (std::size_t i = 0; i < group_size_; ++i) {
                for (std::size_t query = 0; query < num_queries; ++query) {
                    heads_[kv_head * group_size_ + i].add(view.row(i, query));
                }
            }
        }
    }

    /// Keeps about one token of two, another number of them per kv head.
    template <typename Observer>
    void compress(Observer& observer) {
        selection kept;
        std::size_t total = 0;
        for (std::size_t kv_head = 0; kv_head < num_kv_heads(); ++kv_head) {
            total += length(kv_head);
        }
        kept.reserve(num_kv_heads(), total);
        for (std::size_t kv_head = 0; kv_head < num_kv_heads(); ++kv_head) {
            for (std::size_t token = 0; token < length(kv_head); ++token) {
                if (random_bits(seed_, 2, drawn_++) % 2 == 0) {
                    kept.extend(1)[0] = static_cast<token_index>(token);
                }
            }
            kept.end_head();
        }
        observer.compact(kept);
        for (std::size_t i = 0; i < heads_.size(); ++i) {
            heads_[i].keep(kept.kept(i / group_size_));
        }
    }

private:
    std::size_t group_size_;
    std::uint64_t seed_;
    std::uint64_t drawn_ = 0;
    std::vector<reference::observed_attention> heads_;
};

} // namespace kvcrush::test
