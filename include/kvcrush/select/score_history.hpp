// SPDX-License-Identifier: Apache-2.0
/// @file
/// Attention that the cached tokens of one layer received so far, kept as OpenVINO GenAI keeps it.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/select/best_tokens.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// How tokens of a block add up.
enum class block_aggregation {
    /// Scores.
    sum,
    /// Scores over the number of queries that could see the token.
    norm_sum
};

template <>
struct enum_names<block_aggregation> {
    static constexpr named_value<block_aggregation> values[] = {
        {"sum", block_aggregation::sum}, {"norm_sum", block_aggregation::norm_sum}};
};

/// Accumulated score and reach of every tracked token of one layer.
///
/// Each pass adds the maximum of a token's own score and those of the next six (pooling_kernel_size - 1): a token
/// inherits from its successors, never from its predecessors (SnapKV's own pool looks both ways).
///
/// Reach is the number of queries that could see a token, as counted there: with n tokens tracked after a pass,
///
///     first pass, no window      min(n, n - t)            as if tokens had come one by one
///     first pass, window         min(k, n - t)            k = scored queries of the pass
///     later, window not full     min(seen, n - t)         seen = scored queries of all passes
///     later                      reach + new tokens; new ones count down to 1
/// @see OpenVINO GenAI, cache eviction. Deviation: where fewer tokens than scored queries are tracked, it aborts.
class score_history {
public:
    static constexpr std::size_t max_pooling_kernel_size = 64;

    /// @param capacity             tokens that can be tracked
    /// @param pooling_kernel_size  1 to 64; 7 there
    /// @throws std::invalid_argument if the kernel lies outside its range; std::bad_alloc
    explicit score_history(std::size_t capacity, std::size_t pooling_kernel_size = 7)
        : scores_(capacity), reach_(capacity), kernel_(pooling_kernel_size) {
        detail::require(kernel_ >= 1 && kernel_ <= max_pooling_kernel_size,
                        "score_history: pooling_kernel_size is ",
                        kernel_,
                        "; it must lie in [1, ",
                        max_pooling_kernel_size,
                        "]");
    }

    /// Adds the scores of one pass.
    /// @param[in] scores              of the tracked tokens and the new ones behind them: sums over heads and queries.
    ///                                NaN counts as -infinity
    /// @param[in] num_scored_queries  whose attention stands in `scores`
    /// @param[in] window              scored queries of a prompt; 0 where all of them are
    /// @pre  num_tracked() <= scores.size() <= capacity
    /// @note O(scores.size()), allocates nothing
    template <ScoreValue Score>
    void add(std::span<const Score> scores,
             std::size_t num_scored_queries,
             std::size_t window) noexcept {
        note_queries(num_scored_queries, window);
        if (scores.empty() || (size_ == 0 && window != 0 && num_scored_queries == 0)) {
            return; // no query that counts has been asked yet
        }
        KVCRUSH_ASSERT(scores.size() >= size_ && scores.size() <= scores_.size());
        const std::size_t before = size_;
        size_ = scores.size();
        std::fill(scores_.begin() + offset(before), scores_.begin() + offset(size_), 0.0);
        add_pooled(scores);
        if (before == 0) {
            count_down(window == 0 ? size_ : num_scored_queries);
        } else if (window == 0 || seen_ == window) {
            const auto added = static_cast<std::uint32_t>(size_ - before);
            for (std::size_t t = 0; t < before; ++t) {
                reach_[t] += added;
            }
            for (std::size_t t = before; t < size_; ++t) {
                reach_[t] = static_cast<std::uint32_t>(size_ - t);
            }
        } else {
            count_down(seen_);
        }
    }

    /// What add() does with the queries of a pass that scored no tracked token.
    void note_queries(std::size_t num_scored_queries, std::size_t window) noexcept {
        if (seen_ < window) {
            seen_ = (std::min)(window, seen_ + num_scored_queries);
        }
    }

    [[nodiscard]] std::size_t num_tracked() const noexcept { return size_; }
    /// Accumulated, [num_tracked()].
    [[nodiscard]] std::span<const double> scores() const noexcept {
        return std::span(scores_).first(size_);
    }
    [[nodiscard]] std::span<const std::uint32_t> reach() const noexcept {
        return std::span(reach_).first(size_);
    }

    /// Sums up the first out.size() blocks.
    /// @pre out.size() * block_size <= num_tracked()
    void block_scores(block_aggregation aggregation,
                      std::size_t block_size,
                      std::span<double> out) const noexcept {
        KVCRUSH_ASSERT(out.size() * block_size <= size_);
        std::size_t t = 0;
        for (double& block : out) {
            block = 0.0;
            for (const std::size_t end = t + block_size; t < end; ++t) {
                block += aggregation == block_aggregation::norm_sum
                             ? scores_[t] / static_cast<double>(reach_[t])
                             : scores_[t];
            }
        }
    }

    /// Forgets the tokens of whole blocks; those behind them move up.
    /// @param[in] blocks  ascending, each once
    /// @pre each block is tracked as a whole
    void remove_blocks(std::span<const std::uint32_t> blocks, std::size_t block_size) noexcept {
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            const std::size_t begin = (std::size_t{blocks[i]} + 1) * block_size;
            const std::size_t end = i + 1 < blocks.size() ? blocks[i + 1] * block_size : size_;
            const std::size_t to = begin - (i + 1) * block_size;
            KVCRUSH_ASSERT(begin <= end && end <= size_);
            std::copy(scores_.begin() + offset(begin),
                      scores_.begin() + offset(end),
                      scores_.begin() + offset(to));
            std::copy(reach_.begin() + offset(begin),
                      reach_.begin() + offset(end),
                      reach_.begin() + offset(to));
        }
        size_ -= blocks.size() * block_size;
    }

private:
    [[nodiscard]] static std::ptrdiff_t offset(std::size_t token) noexcept {
        return static_cast<std::ptrdiff_t>(token);
    }

    /// The newest `limit` tokens were seen by fewer and fewer queries, all others by `limit`.
    void count_down(std::size_t limit) noexcept {
        for (std::size_t t = 0; t < size_; ++t) {
            reach_[t] = static_cast<std::uint32_t>((std::min)(limit, size_ - t));
        }
    }

    /// Tile by tile: passes double the window, and two of the largest power of two make up the kernel. Counts are fixed
    /// and the arrays distinct, so that -O2 makes vectors of it.
    template <typename Score>
    void add_pooled(std::span<const Score> scores) noexcept {
        std::array<Score, padded + max_pooling_kernel_size> window;
        for (std::size_t begin = 0; begin < scores.size(); begin += tile) {
            const std::size_t held = (std::min)(scores.size() - begin, tile + kernel_ - 1);
            std::copy_n(scores.data() + begin, held, window.data());
            std::fill(window.begin() + offset(held),
                      window.end(),
                      -std::numeric_limits<Score>::infinity());
            raise(window, 0); // NaN becomes -infinity
            std::size_t covered = 1;
            for (; 2 * covered <= kernel_; covered *= 2) {
                raise(window, covered);
            }
            if (covered < kernel_) {
                raise(window, kernel_ - covered);
            }
            const std::size_t count = (std::min)(scores.size() - begin, tile);
            double* const sums = scores_.data() + begin;
            for (std::size_t i = 0; i < count; ++i) {
                sums[i] += static_cast<double>(window[i]);
            }
        }
    }

    static constexpr std::size_t tile = 256;
    static constexpr std::size_t padded = tile + max_pooling_kernel_size;

    /// window[i] = max(window[i], window[i + shift]), -infinity for NaN.
    template <typename Score>
    static void raise(std::array<Score, padded + max_pooling_kernel_size>& window,
                      std::size_t shift) noexcept {
        constexpr Score lowest = -std::numeric_limits<Score>::infinity();
        std::array<Score, padded> shifted;
        std::copy_n(window.begin() + offset(shift), padded, shifted.begin());
        for (std::size_t i = 0; i < padded; ++i) {
            const Score other = shifted[i] > lowest ? shifted[i] : lowest;
            window[i] = window[i] > other ? window[i] : other;
        }
    }

    std::vector<double> scores_;
    std::vector<std::uint32_t> reach_;
    std::size_t kernel_;
    std::size_t size_ = 0;
    std::size_t seen_ = 0;
};

} // namespace v0
} // namespace kvcrush
