// SPDX-License-Identifier: Apache-2.0
/// @file
/// Importance less redundancy: for text that repeats itself.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/math/key_redundancy.hpp>
#include <kvcrush/math/window_logits.hpp>
#include <kvcrush/simd/pool.hpp>
#include <kvcrush/simd/softmax.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Scores a token by what the last queries attend to, less how much its key is like the other keys.
///
///     |<- older: scored ->|<- window ->|
///     logit[k, i, j]      = max over the query heads of kv head k of q k / sqrt(head_dim)
///     importance[k, j]    = max pool over j of mean over the last `window` queries i of softmax over older j of logit
///     likeness[k, j]      = mean over all keys i of cosine(i, j), without those that key i forgives
///     redundancy[k, j]    = softmax over all j of likeness
///     score[k, j]         = lambda * importance - (1 - lambda) * redundancy
///
/// Each key forgives the newest keys that are like it (cosine above `threshold`), so that the newest copy of a repeated
/// passage stays. Tokens of the window score as high as the best older one; keys that are not finite are NaN, the lowest.
/// Meant for long generations: call it whenever some 128 tokens have come in, with a cache of about the budget.
/// @note O(num_q_heads * window * seq_len * head_dim) and O(seq_len * search * head_dim) per kv head at most, as a rule
///       far less: the search for what to forgive ends where it finds. Nothing is quadratic in the sequence; with
///       seq_len <= search the result is that of the full [seq_len, seq_len] matrix.
/// @note redundancy is about 1 / seq_len, importance pooled mass: what lambda weighs depends on the length.
/// @see  R-KV, arXiv:2505.24133. Deviations: keys that have no similar one forgive none (the authors' code then takes
///       back entry (i, 0), which moves the score of token 0: published = true); beyond `search` tokens only the newest
///       of them can be forgiven; any number of keys can be (the paper's beta; the authors' code takes 1). lambda is
///       0.1 as in the paper, 0.07 in the authors' class.
struct r_kv_scorer {
    static constexpr std::string_view name = "r_kv";
    static constexpr std::string_view about =
        "what the last queries attend to, less what repeats itself";
    static constexpr bool needs_attention = true;
    static constexpr bool scores_directly = true;

    /// Share of importance in the score. 0.1 in the paper.
    double lambda = 0.1;
    /// Last queries whose attention decides. 8 in the paper (alpha).
    std::size_t observation_window = 8;
    /// Width of the max pool, odd [tokens]. 7 in the paper.
    std::size_t pooling_kernel_size = 7;
    /// Cosine above which two keys are alike. 0.5 in the authors' code.
    double threshold = 0.5;
    /// Similar keys that each key forgives, the newest first. 1 in the authors' code (beta in the paper).
    std::size_t num_forgiven = 1;
    /// Newest tokens among which the keys to forgive are looked for. The paper compresses caches of up to 1.5 K.
    std::size_t search = 2048;
    /// The authors' code to the letter, where it forgives key 0 by accident.
    bool published = false;

    static constexpr auto parameters() {
        using self = r_kv_scorer;
        return parameter_list{
            parameter{"lambda", &self::lambda, "share of importance; the rest is redundancy"},
            parameter{"window", &self::observation_window, "last queries whose attention decides"},
            parameter{"kernel", &self::pooling_kernel_size, "width of the pool, odd [tokens]"},
            parameter{"threshold", &self::threshold, "cosine above which keys are alike"},
            parameter{"forgiven", &self::num_forgiven, "similar keys that each key forgives"},
            parameter{"search", &self::search, "newest tokens that can be forgiven"},
            parameter{"published", &self::published, "forgive key 0 as the authors' code does"}};
    }

    /// @throws std::invalid_argument if lambda is outside [0, 1], the threshold outside [-1, 1], the window or the
    ///         search 0 or the kernel even
    void validate() const {
        detail::require(
            lambda >= 0.0 && lambda <= 1.0, "r_kv: lambda is ", lambda, "; it must lie in [0, 1]");
        detail::require(observation_window > 0, "r_kv: window is 0; it must be at least 1 query");
        detail::require(pooling_kernel_size % 2 == 1,
                        "r_kv: kernel is ",
                        pooling_kernel_size,
                        "; it must be odd");
        detail::require(threshold >= -1.0 && threshold <= 1.0,
                        "r_kv: threshold is ",
                        threshold,
                        "; it must lie in [-1, 1]");
        detail::require(search > 0, "r_kv: search is 0; it must be at least 1 token");
    }

    /// Queries to hand over for a sequence of this length.
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return (std::min)(observation_window, seq_len);
    }
    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        const std::size_t group_size =
            size.kv.num_kv_heads == 0 ? 0 : size.num_q_heads / size.kv.num_kv_heads;
        const std::size_t rows = group_size * queries_at_once(group_size, size.kv.seq_len);
        // importance and redundancy run one after the other.
        return scratch::bytes<float>(size.kv.seq_len) +
               (std::max)(scratch::bytes<float>(window_logits_workspace(size.kv.key_dim)) +
                              scratch::bytes<float>(rows * size.kv.seq_len) +
                              scratch::bytes<float>(size.kv.seq_len),
                          key_redundancy_bytes(size.kv, search));
    }

    /// @param[in]  kv       [num_kv_heads, seq_len, head_dim]
    /// @param[in]  queries  [num_q_heads, >= window, head_dim], after RoPE, the last ones of the sequence
    /// @param[out] scores   [num_kv_heads, seq_len]
    template <KvSource Kv>
    void score(const Kv& kv,
               const query_view& queries,
               head_scores scores,
               scratch memory) const noexcept {
        const std::span<float> redundant = memory.take<float>(scores.seq_len());
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            importance(kv, queries, head, scores.row(head), memory);
            redundancy(kv, head, redundant, memory);
            mix(scores.row(head), redundant);
        }
    }

    /// First term of one kv head.
    /// @param[out] out  [seq_len], 0 for the tokens of the window
    template <KvSource Kv>
    void importance(const Kv& kv,
                    const query_view& queries,
                    std::size_t kv_head,
                    std::span<float> out,
                    scratch memory) const noexcept {
        const kv_shape shape = kv.shape();
        const query_view window = queries.last(observation_window);
        const std::size_t asking = window.num_queries();
        const std::size_t older = num_older(shape.seq_len);
        const std::size_t group_size =
            shape.num_kv_heads == 0 ? 0 : queries.num_q_heads() / shape.num_kv_heads;
        std::fill(out.begin(), out.end(), 0.0F);
        if (older == 0 || asking == 0 || group_size == 0) {
            return;
        }
        const std::size_t step = queries_at_once(group_size, shape.seq_len);
        const float scale = 1.0F / std::sqrt(static_cast<float>(shape.key_dim));
        const std::span<float> workspace =
            memory.take<float>(window_logits_workspace(shape.key_dim));
        const std::span<float> rows = memory.take<float>(group_size * step * older);
        const std::span<float> mass = memory.take<float>(older);
        std::fill(mass.begin(), mass.end(), 0.0F);
        for (std::size_t first = 0; first < asking; first += step) {
            const logits_block block{.kv_head = kv_head,
                                     .head = kv_head * group_size,
                                     .num_heads = group_size,
                                     .query = first,
                                     .num_queries = (std::min)(step, asking - first),
                                     .num_keys = older};
            const std::size_t head_size = block.num_queries * older;
            const std::span<float> logits = rows.first(group_size * head_size);
            window_logits(kv, window, block, scale, logits, workspace);
            for (std::size_t g = 1; g < group_size; ++g) {
                const std::span<const float> other = logits.subspan(g * head_size, head_size);
                for (std::size_t i = 0; i < head_size; ++i) {
                    logits[i] = larger(logits[i], other[i]);
                }
            }
            for (std::size_t i = 0; i < block.num_queries; ++i) {
                simd::softmax_add(logits.subspan(i * older, older), mass);
            }
        }
        for (float& value : mass) {
            value /= static_cast<float>(asking);
        }
        simd::max_pool(mass, out.first(older), pooling_kernel_size);
    }

    /// Second term of one kv head.
    /// @param[out] out  [seq_len]; NaN where a key is not finite
    template <KvSource Kv>
    void redundancy(const Kv& kv,
                    std::size_t kv_head,
                    std::span<float> out,
                    scratch memory) const noexcept {
        key_redundancy(kv,
                       kv_head,
                       {.threshold = static_cast<float>(threshold),
                        .num_forgiven = num_forgiven,
                        .search = search,
                        .else_forgive_first = published},
                       out,
                       memory);
        // The softmax gives NaN a weight of 0, the score of a key unlike any other.
        constexpr float nan = std::numeric_limits<float>::quiet_NaN();
        const std::span<float> forgotten = memory.take<float>(out.size());
        std::copy(out.begin(), out.end(), forgotten.begin());
        simd::softmax(out);
        for (std::size_t j = 0; j < out.size(); ++j) {
            out[j] = std::isnan(forgotten[j]) ? nan : out[j];
        }
    }

    /// Puts both terms together; window tokens get the best older score.
    /// @param[in,out] row        importance, becomes the score, [seq_len]
    /// @param[in]     redundant  [seq_len]
    void mix(std::span<float> row, std::span<const float> redundant) const noexcept {
        const auto gain = static_cast<float>(lambda);
        const auto loss = static_cast<float>(1.0 - lambda);
        const std::size_t older = num_older(row.size());
        float best = -std::numeric_limits<float>::infinity();
        for (std::size_t j = 0; j < older; ++j) {
            row[j] = gain * row[j] - loss * redundant[j];
            best = larger(best, row[j]);
        }
        const bool known = best > -std::numeric_limits<float>::infinity();
        std::fill(row.begin() + static_cast<std::ptrdiff_t>(older), row.end(), known ? best : 0.0F);
    }

private:
    [[nodiscard]] std::size_t num_older(std::size_t seq_len) const noexcept {
        return seq_len - num_queries(seq_len);
    }
    /// Queries whose logits are under way at a time: 128 rows, or those of one query.
    [[nodiscard]] std::size_t queries_at_once(std::size_t group_size,
                                              std::size_t seq_len) const noexcept {
        const std::size_t fitting =
            (std::max)(128 / (std::max)(group_size, std::size_t{1}), std::size_t{1});
        return (std::min)(fitting, num_queries(seq_len));
    }
    /// The larger one; NaN only where both are.
    [[nodiscard]] static float larger(float a, float b) noexcept {
        return b > a || std::isnan(a) ? b : a;
    }
};

} // namespace v0
} // namespace kvcrush
