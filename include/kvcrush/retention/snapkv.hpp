// SPDX-License-Identifier: Apache-2.0
/// @file
/// The tokens that the end of the prompt looks at.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/math/attention_mass.hpp>
#include <kvcrush/math/attention_rows.hpp>
#include <kvcrush/math/fold_heads.hpp>
#include <kvcrush/simd/pool.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// How scores are smoothed along the sequence.
enum class pooling { max, avg, none };

template <>
struct enum_names<pooling> {
    static constexpr named_value<pooling> values[] = {
        {"max", pooling::max}, {"avg", pooling::avg}, {"none", pooling::none}};
};

/// Whether query heads are folded into kv heads before or after pooling. They differ for max pooling only.
enum class pooling_order { reduce_first, pool_first };

template <>
struct enum_names<pooling_order> {
    static constexpr named_value<pooling_order> values[] = {
        {"reduce_first", pooling_order::reduce_first}, {"pool_first", pooling_order::pool_first}};
};

/// Scores a token by what the last queries attend to, smoothed over its neighbours.
///
///     mass[h, j]       = mean over the last `window` queries of softmax(q k / sqrt(head_dim))[h, i, j]
///     importance[k, j] = pool over j of mean of mass over the query heads of kv head k
///
/// The tokens of the window itself are not pooled; they score as high as the best token before them, so that a window
/// longer than the recent area is still kept first.
/// @note A window longer than the question that ends the prompt loses the question: 8 to 16 for answering, 32 for
///       continuing text.
/// @note O(num_q_heads * window * seq_len * head_dim)
/// @see  SnapKV, arXiv:2404.14469. Deviations: means over the window (the authors sum, which ranks alike); one set per kv head (the authors repeat kv heads and keep one set per
///       query head); max pooling of 7 as in the authors' LongBench runs (their class default is avg 5, window 64).
struct snapkv_scorer {
    static constexpr std::string_view name = "snapkv";
    static constexpr std::string_view about =
        "what the last queries attend to, smoothed over neighbours";
    static constexpr bool needs_attention = true;
    static constexpr bool observes_heads_alone = true;

    /// Last queries whose attention decides. 32 in the authors' runs.
    std::size_t observation_window = 32;
    pooling pool = pooling::max;
    /// Width of the pool, odd [tokens].
    std::size_t pooling_kernel_size = 7;
    head_reduction reduce_heads = head_reduction::mean;
    pooling_order order = pooling_order::reduce_first;
    /// One set for all kv heads of the layer.
    bool shared = false;

    static constexpr auto parameters() {
        using self = snapkv_scorer;
        return parameter_list{
            parameter{"window", &self::observation_window, "last queries whose attention decides"},
            parameter{"pool", &self::pool, "smoothing along the sequence"},
            parameter{"kernel", &self::pooling_kernel_size, "width of the pool, odd [tokens]"},
            parameter{"reduce", &self::reduce_heads, "query heads of one kv head become their"},
            parameter{"order", &self::order, "fold query heads before or after pooling"},
            parameter{"shared", &self::shared, "one set for all kv heads"}};
    }

    /// @throws std::invalid_argument if window is 0 or the kernel is even
    void validate() const {
        detail::require(observation_window > 0, "snapkv: window is 0; it must be at least 1 query");
        detail::require(pooling_kernel_size % 2 == 1,
                        "snapkv: kernel is ",
                        pooling_kernel_size,
                        "; it must be odd");
    }

    /// Queries to hand over for a sequence of this length.
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return (std::min)(observation_window, seq_len);
    }
    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        // observe() and reduce() run one after the other; reduce() pools the heads of a group at
        // most: all of them where the kv heads share a set.
        return (std::max)(
            scratch::bytes<float>(
                attention_mass_workspace(size.kv, size.num_q_heads, num_queries(size.kv.seq_len))),
            scratch::bytes<float>((std::max)(size.num_q_heads, std::size_t{1}) * size.kv.seq_len));
    }

    /// @param[in]  kv       [num_kv_heads, seq_len, head_dim]
    /// @param[in]  queries  [num_q_heads, >= window, head_dim], after RoPE, the last ones of the sequence
    /// @param[out] mass     [num_q_heads, seq_len]
    template <KvSource Kv>
    void observe(const Kv& kv,
                 const query_view& queries,
                 head_scores mass,
                 scratch memory) const noexcept {
        const query_view window = queries.last(observation_window);
        attention_mass(kv,
                       window,
                       mass.values(),
                       memory.take<float>(attention_mass_workspace(
                           kv.shape(), window.num_q_heads(), window.num_queries())));
        divide(mass, window.num_queries());
    }

    /// @param[in]  attention  [num_q_heads, >= window, seq_len] weights of the last queries
    /// @param[out] mass       [num_q_heads, seq_len]
    void observe(const attention_view& attention, head_scores mass, scratch) const noexcept {
        const attention_view window = attention.last(observation_window);
        attention_mass(window, mass);
        divide(mass, window.num_queries());
    }

    /// @param[out] scores  [num_kv_heads, seq_len]
    void reduce(const_head_scores mass, head_scores scores, scratch memory) const noexcept {
        const std::size_t num_rows =
            shared ? (std::min)(scores.num_heads(), std::size_t{1}) : scores.num_heads();
        const std::size_t group_size = num_rows == 0 ? 0 : mass.num_heads() / num_rows;
        const bool pool_first = order == pooling_order::pool_first && pool != pooling::none;
        const std::size_t seq_len = mass.seq_len();
        const std::size_t num_rows_taken = pool_first ? group_size : 1;
        const head_scores taken(
            memory.take<float>(num_rows_taken * seq_len), num_rows_taken, seq_len);
        for (std::size_t row = 0; row < num_rows; ++row) {
            const std::size_t first = row * group_size;
            const std::span<float> out = scores.row(row);
            if (pool_first) {
                for (std::size_t i = 0; i < group_size; ++i) {
                    smooth(mass.row(first + i), taken.row(i));
                    keep_window(taken.row(i));
                }
                fold_heads(taken, 0, group_size, reduce_heads, out);
            } else {
                fold_heads(mass, first, group_size, reduce_heads, taken.row(0));
                smooth(taken.row(0), out);
            }
            keep_window(out);
        }
        for (std::size_t row = num_rows; row < scores.num_heads(); ++row) {
            std::copy(scores.row(0).begin(), scores.row(0).end(), scores.row(row).begin());
        }
    }

private:
    static void divide(head_scores mass, std::size_t num_queries) noexcept {
        const auto count = static_cast<float>((std::max)(num_queries, std::size_t{1}));
        for (float& value : mass.values()) {
            value /= count;
        }
    }

    [[nodiscard]] std::size_t prefix(std::size_t seq_len) const noexcept {
        return seq_len - num_queries(seq_len);
    }

    void smooth(std::span<const float> in, std::span<float> out) const noexcept {
        const std::size_t length = prefix(in.size());
        switch (pool) {
        case pooling::max:
            simd::max_pool(in.first(length), out.first(length), pooling_kernel_size);
            break;
        case pooling::avg:
            simd::avg_pool(in.first(length), out.first(length), pooling_kernel_size);
            break;
        case pooling::none: std::copy_n(in.begin(), length, out.begin()); break;
        }
    }

    void keep_window(std::span<float> row) const noexcept {
        float best = 0.0F; // masses are not negative
        for (const float value : row.first(prefix(row.size()))) {
            best = value > best ? value : best;
        }
        const std::span<float> window = row.subspan(prefix(row.size()));
        std::fill(window.begin(), window.end(), best);
    }
};

} // namespace v0
} // namespace kvcrush
