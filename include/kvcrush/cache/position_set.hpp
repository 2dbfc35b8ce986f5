// SPDX-License-Identifier: Apache-2.0
/// @file
/// Which tokens rows belong to, in a bit per token of the span that they cover: beside rows of a few bits per channel, four
/// bytes a row would be felt.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Ascending positions.
class position_set {
public:
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    /// One more than the largest position, 0 if there is none.
    [[nodiscard]] std::size_t end() const noexcept {
        std::size_t words = size_ == 0 ? 0 : words_.size();
        while (words > 0 && words_[words - 1] == 0) {
            --words;
        }
        return words == 0 ? 0
                          : (first_word_ + words - 1) * word_bits +
                                static_cast<std::size_t>(std::bit_width(words_[words - 1]));
    }

    /// @pre above all positions held
    void push(token_index position) {
        if (size_ == 0) {
            words_.clear();
            first_word_ = position / word_bits;
        }
        KVCRUSH_ASSERT(position >= end());
        const std::size_t word = position / word_bits - first_word_;
        if (word >= words_.size()) {
            words_.resize(word + 1, 0);
        }
        words_[word] |= std::uint64_t{1} << (position % word_bits);
        ++size_;
    }

    /// Takes back the largest `count`.
    void pop(std::size_t count) noexcept {
        KVCRUSH_ASSERT(count <= size_);
        size_ -= count;
        while (count > 0) {
            while (words_.back() == 0) {
                words_.pop_back();
            }
            words_.back() &= ~std::bit_floor(words_.back());
            --count;
        }
    }

    /// All of them, ascending.
    [[nodiscard]] std::vector<token_index> values() const {
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

    /// Drops all but the kept ones.
    /// @param kept  their places in the ascending order, ascending
    void keep(std::span<const token_index> kept) {
        const std::vector<token_index> all = values();
        position_set rest;
        for (const token_index i : kept) {
            KVCRUSH_ASSERT(i < all.size());
            rest.push(all[i]);
        }
        *this = std::move(rest);
    }

    [[nodiscard]] std::size_t bytes_held() const noexcept {
        return words_.capacity() * sizeof(std::uint64_t);
    }
    void shrink_to_fit() {
        if (words_.capacity() > words_.size()) {
            words_ = std::vector<std::uint64_t>(words_.begin(), words_.end());
        }
    }

private:
    static constexpr std::size_t word_bits = 64;

    std::size_t first_word_ = 0;
    std::size_t size_ = 0;
    /// Bit b of word w stands for position (first_word_ + w) * 64 + b.
    std::vector<std::uint64_t> words_;
};

} // namespace v0
} // namespace kvcrush
