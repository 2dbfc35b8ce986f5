// SPDX-License-Identifier: Apache-2.0
/// @file
/// No budget to choose: a layer keeps as many tokens as it takes to hold the norm of its attention.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scratch.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Says how many tokens a layer needs, once after prefill. Tokens are taken in an order that does not depend on the
/// attention: the first ones, then from the end backwards. So the kept set is always sinks and a recent suffix.
///
///     norm[i]  = mean over query heads of || attention row of the head, the first i tokens of the order ||
///     answer   = the smallest i with 1 - norm[i] / norm[seq_len] <= threshold
///
///     const dbudget_kv stop;
///     for each layer l:
///         attention_mass(kv, queries.last(stop.last), mass.values(), workspace);       // or the engine's own last row
///         const std::size_t kept = stop.keeps_all(l) ? seq_len : stop.tokens(mass, memory);
///         const area_sizes areas = stop.area_of(kept);
///         crush.plan(size, budget::tokens(kept, areas));                                // streaming_llm_scorer
/// @note O(num_q_heads * seq_len), a square root per head and token of the part that is searched
/// @see  DBudgetKV (ReFreeKV in its later versions), arXiv:2502.16886: 4 sinks, threshold 0.01, the last row, two full
///       layers. Deviation: `<=` as in the authors' code, `<` in the paper; they walk from the least important end and
///       have a threshold of 0.05 with another order in their example. Ordering by attention is much worse in the
///       paper's own ablation.
struct dbudget_kv {
    static constexpr std::string_view name = "dbudget_kv";
    static constexpr std::string_view about =
        "sinks and as many recent tokens as a layer's attention needs; takes no budget";

    /// Part of the norm that may be lost, in [0, 1]. `T`, 0.01 in the paper.
    double threshold = 0.01;
    /// Tokens that come first. `m`, 4 in the paper.
    std::size_t num_sink_tokens = 4;
    /// Queries whose attention is averaged, from the end. `k`, 1 in the paper.
    std::size_t last = 1;
    /// Layers at the bottom that keep everything. 2 in the authors' code.
    std::size_t full_layers = 2;

    static constexpr auto parameters() {
        return parameter_list{
            parameter{"threshold", &dbudget_kv::threshold, "part of the norm that may be lost"},
            parameter{"num_sink_tokens", &dbudget_kv::num_sink_tokens, "tokens that come first"},
            parameter{"last", &dbudget_kv::last, "queries that are averaged, from the end"},
            parameter{"full_layers", &dbudget_kv::full_layers, "first layers, which keep all"}};
    }

    /// @throws std::invalid_argument if threshold lies outside [0, 1] or last is 0
    void validate() const {
        using detail::require;
        require(threshold >= 0.0 && threshold <= 1.0,
                "dbudget_kv: threshold is ",
                threshold,
                "; it must lie in [0, 1]");
        require(last >= 1, "dbudget_kv: last is 0; one query at least must look");
    }

    [[nodiscard]] std::size_t scratch_bytes(std::size_t num_q_heads) const noexcept {
        return 2 * scratch::bytes<double>(num_q_heads);
    }

    [[nodiscard]] bool keeps_all(std::size_t layer) const noexcept { return layer < full_layers; }

    /// How many tokens every kv head of the layer keeps.
    /// @param attention  [num_q_heads, seq_len] what the last queries pay; a sum does as well as a mean
    /// @return from 1 to seq_len; seq_len where the rows hold no attention or numbers that are not finite
    [[nodiscard]] std::size_t tokens(const_head_scores attention, scratch memory) const noexcept {
        const std::size_t heads = attention.num_heads();
        const std::size_t seq_len = attention.seq_len();
        const std::span<double> done = memory.take<double>(heads);
        const std::span<double> ahead = memory.take<double>(heads);
        std::fill(ahead.begin(), ahead.end(), 0.0);
        add(attention, 0, seq_len, ahead);
        const double limit = sum_of_roots(ahead) * (1.0 - threshold);
        if (heads == 0 || !std::isfinite(limit) || !(sum_of_roots(ahead) > 0.0)) {
            return seq_len;
        }
        // Block by block, then token by token in the block that reaches the limit. Both add in the same order, so the
        // same tokens give the same norm to the last bit, and a threshold of 0 means what it says.
        std::fill(done.begin(), done.end(), 0.0);
        std::size_t taken = 0;
        while (taken < seq_len) {
            const std::size_t end = (std::min)(taken + block, seq_len);
            std::copy(done.begin(), done.end(), ahead.begin());
            add(attention, taken, end, ahead);
            if (sum_of_roots(ahead) >= limit) {
                break;
            }
            std::copy(ahead.begin(), ahead.end(), done.begin());
            taken = end;
        }
        while (taken < seq_len) {
            add(attention, taken, taken + 1, done);
            ++taken;
            if (sum_of_roots(done) >= limit) {
                break;
            }
        }
        return taken;
    }

    /// The areas that make up the answer: nothing is left to compete.
    [[nodiscard]] constexpr area_sizes area_of(std::size_t kept) const noexcept {
        const std::size_t sinks = (std::min)(num_sink_tokens, kept);
        return {sinks, kept - sinks};
    }

private:
    static constexpr std::size_t block = 64;

    /// Adds the squares of the places [first, end) of the order to each head.
    void add(const_head_scores attention,
             std::size_t first,
             std::size_t end,
             std::span<double> squares) const noexcept {
        const std::size_t sinks = (std::min)(num_sink_tokens, attention.seq_len());
        for (std::size_t head = 0; head < squares.size(); ++head) {
            const std::span<const float> row = attention.row(head);
            double sum = squares[head];
            std::size_t place = first;
            for (; place < (std::min)(end, sinks); ++place) {
                sum += static_cast<double>(row[place]) * static_cast<double>(row[place]);
            }
            for (; place < end; ++place) {
                const double paid = static_cast<double>(row[row.size() - 1 - (place - sinks)]);
                sum += paid * paid;
            }
            squares[head] = sum;
        }
    }

    [[nodiscard]] static double sum_of_roots(std::span<const double> squares) noexcept {
        double sum = 0.0;
        for (const double square : squares) {
            sum += std::sqrt(square);
        }
        return sum;
    }
};

} // namespace v0
} // namespace kvcrush
