// SPDX-License-Identifier: Apache-2.0
/// @file
/// Which tokens rows belong to, in a bit per token of the span that they cover: beside rows of a few bits per channel, four
/// bytes a row would be felt. Where few rows are left of a long span, a list is the smaller form.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Ascending positions, each once. bytes_held() is at most 4 bytes per position, and an eighth of a byte per token of the
/// span, but for rounding and memory kept for growth.
class position_set {
public:
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    /// One more than the largest position, 0 if there is none.
    [[nodiscard]] std::size_t end() const noexcept {
        if (size_ == 0) {
            return 0;
        }
        if (!list_.empty()) {
            return std::size_t{list_.back()} + 1;
        }
        std::size_t words = words_.size();
        while (words_[words - 1] == 0) {
            --words;
        }
        return (first_word_ + words - 1) * word_bits +
               static_cast<std::size_t>(64 - std::countl_zero(words_[words - 1]));
    }

    /// Whether the largest `count` lie side by side: [end() - count, end()).
    [[nodiscard]] bool holds_last(std::size_t count) const noexcept {
        if (count == 0 || count > size_) {
            return count == 0;
        }
        const std::size_t last = end();
        if (!list_.empty()) {
            return list_[size_ - count] + count == last;
        }
        std::size_t found = 0;
        while (found < count) {
            const std::size_t position = last - 1 - found;
            if ((words_[position / word_bits - first_word_] >> (position % word_bits) & 1U) == 0) {
                return false;
            }
            ++found;
        }
        return true;
    }

    /// @pre above all positions held
    void push(token_index position) {
        KVCRUSH_ASSERT(position >= end());
        if (size_ == 0) {
            words_.clear();
            list_.clear();
            first_word_ = position / word_bits;
        }
        if (list_.empty() && is_sparse(size_ + 1, position / word_bits - first_word_ + 1)) {
            list_ = values();
            words_ = {};
        }
        if (list_.empty()) {
            const std::size_t word = position / word_bits - first_word_;
            words_.resize((std::max)(words_.size(), word + 1), 0);
            words_[word] |= std::uint64_t{1} << (position % word_bits);
        } else {
            list_.push_back(position);
        }
        ++size_;
    }

    /// Takes back the largest `count`.
    void pop(std::size_t count) noexcept {
        KVCRUSH_ASSERT(count <= size_);
        size_ -= count;
        if (!list_.empty()) {
            list_.resize(list_.size() - count);
            return;
        }
        while (count > 0) {
            while (words_.back() == 0) {
                words_.pop_back();
            }
            words_.back() &= ~std::bit_floor(words_.back());
            --count;
        }
        if (size_ == 0) {
            words_.clear();
        }
    }

    /// All of them, ascending.
    [[nodiscard]] std::vector<token_index> values() const {
        if (!list_.empty()) {
            return list_;
        }
        std::vector<token_index> result;
        result.reserve(size_);
        for (std::size_t w = 0; w < words_.size(); ++w) {
            for (std::uint64_t left = words_[w]; left != 0; left &= left - 1) {
                result.push_back(
                    static_cast<token_index>((first_word_ + w) * word_bits +
                                             static_cast<std::size_t>(std::countr_zero(left))));
            }
        }
        return result;
    }

    /// Holds these and no others, in the smaller of the two forms.
    /// @param positions  ascending, each once
    void assign(std::span<const token_index> positions) {
        *this = {};
        if (positions.empty()) {
            return;
        }
        const std::size_t first = positions.front() / word_bits;
        const std::size_t words = positions.back() / word_bits - first + 1;
        size_ = positions.size();
        if (is_sparse(size_, words)) {
            list_.assign(positions.begin(), positions.end());
            return;
        }
        first_word_ = first;
        words_.assign(words, 0);
        for (const token_index position : positions) {
            words_[position / word_bits - first] |= std::uint64_t{1} << (position % word_bits);
        }
    }

    /// Drops all but the kept ones.
    /// @param kept  their places in the ascending order, ascending
    void keep(std::span<const token_index> kept) {
        std::vector<token_index> all = values();
        for (std::size_t i = 0; i < kept.size(); ++i) {
            KVCRUSH_ASSERT(kept[i] < all.size());
            all[i] = all[kept[i]];
        }
        assign(std::span(all).first(kept.size()));
    }

    [[nodiscard]] std::size_t bytes_held() const noexcept {
        return words_.capacity() * sizeof(std::uint64_t) + list_.capacity() * sizeof(token_index);
    }
    void shrink_to_fit() {
        if (words_.capacity() > words_.size()) {
            words_ = std::vector<std::uint64_t>(words_.begin(), words_.end());
        }
        if (list_.capacity() > list_.size()) {
            list_ = std::vector<token_index>(list_.begin(), list_.end());
        }
    }

private:
    static constexpr std::size_t word_bits = 64;
    /// A span that small is held in words, however few positions are in it.
    static constexpr std::size_t few_words = 16;

    [[nodiscard]] static constexpr bool is_sparse(std::size_t count, std::size_t words) noexcept {
        return words > few_words && words * sizeof(std::uint64_t) > count * sizeof(token_index);
    }

    std::size_t first_word_ = 0;
    std::size_t size_ = 0;
    /// Bit b of word w stands for position (first_word_ + w) * 64 + b; empty where there is a list.
    std::vector<std::uint64_t> words_;
    std::vector<token_index> list_;
};

} // namespace v0
} // namespace kvcrush
