// SPDX-License-Identifier: Apache-2.0
/// @file
/// One budget for a whole model: which layers, heads and tokens share it follows from the scores.
#pragma once

#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/selection.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/retention/kvzip.hpp>
#include <kvcrush/simd/bitmap.hpp>
#include <kvcrush/simd/ordered_key.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// What competes with what.
enum class kvzip_level {
    /// Every (layer, kv head, token) with every other.
    pair,
    /// The tokens of one head with one another; all heads keep the same number.
    pair_uniform,
    /// Heads, by their best token: a head keeps all of its tokens or the protected ones alone.
    head
};

template <>
struct enum_names<kvzip_level> {
    static constexpr named_value<kvzip_level> values[] = {
        {"pair", kvzip_level::pair},
        {"pair_uniform", kvzip_level::pair_uniform},
        {"head", kvzip_level::head}};
};

/// Where the line is drawn.
enum class kvzip_cut {
    /// The budget is met exactly: ties keep the earlier one, and at head level the last head is cut to its best tokens.
    exact,
    /// As published: what scores strictly above the last score inside the budget, so one less at least, and none of
    /// those that tie with it.
    threshold
};

template <>
struct enum_names<kvzip_cut> {
    static constexpr named_value<kvzip_cut> values[] = {{"exact", kvzip_cut::exact},
                                                        {"threshold", kvzip_cut::threshold}};
};

/// Spends one number of rows on all layers and heads of a model.
/// @note Linear in scores (head level: and heads log heads). Ties keep the earlier layer, then head, then token; NaN is
///       the lowest score. Planning, not a hot path: it allocates.
/// @see  KVzip, arXiv:2505.23416: 0.3 of the rows at pair level, 0.6 at head level. Deviation: exact top-k instead of
///       the strict threshold, which is the other cut. Recent tokens may be protected too; area_sizes{n, 0} is the paper.
struct kvzip_selector {
    static constexpr std::string_view name = "kvzip";
    static constexpr std::string_view about = "the best-scored tokens of the whole model";

    kvzip_level level = kvzip_level::pair;
    kvzip_cut cut = kvzip_cut::exact;

    static constexpr auto parameters() {
        return parameter_list{parameter{"level", &kvzip_selector::level, "what competes with what"},
                              parameter{"cut", &kvzip_selector::cut, "exact, or as published"}};
    }

    /// @throws std::invalid_argument if a threshold is asked for where heads share evenly
    void validate() const {
        detail::require(level != kvzip_level::pair_uniform || cut == kvzip_cut::exact,
                        "kvzip: level=pair_uniform has no cut=threshold; allowed: exact");
    }

    /// Rows that a share of all scores stands for: the nearest whole number.
    /// @throws std::invalid_argument if keep_ratio lies outside (0, 1]
    [[nodiscard]] static std::size_t total_for(const kvzip_scores& scores, double keep_ratio) {
        detail::require(keep_ratio > 0.0 && keep_ratio <= 1.0,
                        "kvzip: keep_ratio is ",
                        keep_ratio,
                        "; it must lie in (0, 1]");
        return static_cast<std::size_t>(
            std::nearbyint(keep_ratio * static_cast<double>(scores.size())));
    }

    /// @param sizes  tokens that every head keeps
    /// @param total  rows of all layers and kv heads together, protected ones included; above scores.size() all stay
    /// @return one selection per layer; together they hold exactly `total` rows (cut = threshold: fewer)
    /// @throws std::invalid_argument from validate(), if total does not hold the protected rows, or for 2^32 scores and
    ///         more at pair level; std::bad_alloc
    [[nodiscard]] std::vector<selection>
    select(const kvzip_scores& scores, const area_sizes& sizes, std::size_t total) const {
        validate();
        const kvzip_shape& shape = scores.shape();
        const areas area(sizes, shape.seq_len);
        const std::size_t heads = shape.num_layers * shape.num_kv_heads;
        const std::size_t always = heads * area.num_protected();
        const std::size_t wanted = (std::min)(total, scores.size());
        detail::require(wanted >= always,
                        "kvzip: a total of ",
                        total,
                        " rows does not hold the protected ones of ",
                        heads,
                        " heads; at least ",
                        always,
                        " are needed");
        const std::vector<simd::rank_cut> cuts = find_cuts(scores, area, wanted - always);
        std::vector<selection> kept(shape.num_layers);
        const std::size_t words = simd::bitmap_words(area.num_middle());
        std::vector<std::uint64_t> marks(shape.num_kv_heads * words);
        for (std::size_t layer = 0; layer < shape.num_layers; ++layer) {
            std::vector<std::size_t> counts(shape.num_kv_heads);
            for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
                const auto own = std::span(marks).subspan(head * words, words);
                simd::mark_inside(area.middle(scores.layer(layer).row(head)),
                                  cuts[layer * shape.num_kv_heads + head],
                                  own);
                for (const std::uint64_t word : own) {
                    counts[head] += static_cast<std::size_t>(std::popcount(word));
                }
            }
            selection& out = kept[layer];
            out.reserve(shape.num_kv_heads,
                        std::accumulate(counts.begin(),
                                        counts.end(),
                                        shape.num_kv_heads * area.num_protected()));
            for (std::size_t head = 0; head < shape.num_kv_heads; ++head) {
                out.extend_range(0, area.middle_begin);
                simd::write_marked(std::span(marks).subspan(head * words, words),
                                   out.extend(counts[head]),
                                   static_cast<token_index>(area.middle_begin));
                out.extend_range(area.middle_end, area.seq_len);
                out.end_head();
            }
        }
        return kept;
    }

private:
    static constexpr simd::rank_cut nothing{simd::no_key, 0};

    /// The cut of the middle tokens of each head that together holds `budget` rows.
    [[nodiscard]] std::vector<simd::rank_cut>
    find_cuts(const kvzip_scores& scores, const areas& area, std::size_t budget) const {
        const std::size_t heads = scores.shape().num_layers * scores.shape().num_kv_heads;
        const std::size_t middle = area.num_middle();
        std::vector<simd::rank_cut> cuts(heads, nothing);
        if (heads == 0 || middle == 0) {
            return cuts;
        }
        switch (level) {
        case kvzip_level::pair: cut_pairs(scores, area, budget, cuts); break;
        case kvzip_level::pair_uniform:
            for (std::size_t i = 0; i < heads; ++i) {
                const std::size_t share = budget / heads + (i < budget % heads ? 1U : 0U);
                cuts[i] = simd::find_rank_cut(middle_of(scores, area, i), share);
            }
            break;
        case kvzip_level::head: cut_heads(scores, area, budget, cuts); break;
        }
        return cuts;
    }

    void cut_pairs(const kvzip_scores& scores,
                   const areas& area,
                   std::size_t budget,
                   std::span<simd::rank_cut> cuts) const {
        const std::size_t middle = area.num_middle();
        const std::size_t count = cuts.size() * middle;
        detail::require(count <= (std::numeric_limits<std::uint32_t>::max)(),
                        "kvzip: ",
                        count,
                        " scores compete; at pair level there must be fewer than 2^32");
        std::span<const float> all = scores.values();
        std::vector<float> packed;
        if (middle < area.seq_len) {
            packed.reserve(count);
            for (std::size_t i = 0; i < cuts.size(); ++i) {
                const std::span<const float> own = middle_of(scores, area, i);
                packed.insert(packed.end(), own.begin(), own.end());
            }
            all = packed;
        }
        simd::rank_cut whole = simd::find_rank_cut(all, budget);
        if (cut == kvzip_cut::threshold) {
            whole = {last_key_inside(all, (std::max)(budget, std::size_t{1})), 0};
        }
        for (std::size_t i = 0; i < cuts.size(); ++i) {
            const std::size_t begin = i * middle;
            const std::size_t ties = whole.tie_end - (std::min)(whole.tie_end, begin);
            cuts[i] = {whole.key, (std::min)(ties, middle)};
        }
    }

    /// The key of the k-th best score.
    [[nodiscard]] static std::uint32_t last_key_inside(std::span<const float> scores,
                                                       std::size_t k) noexcept {
        if (k < scores.size()) {
            return simd::find_rank_cut(scores, k).key;
        }
        std::uint32_t lowest = simd::no_key;
        for (const float score : scores) {
            lowest = (std::min)(lowest, simd::ordered_key(score));
        }
        return lowest;
    }

    void cut_heads(const kvzip_scores& scores,
                   const areas& area,
                   std::size_t budget,
                   std::span<simd::rank_cut> cuts) const {
        const std::size_t middle = area.num_middle();
        std::vector<std::uint32_t> best(cuts.size());
        for (std::size_t i = 0; i < cuts.size(); ++i) {
            for (const float score : middle_of(scores, area, i)) {
                best[i] = (std::max)(best[i], simd::ordered_key(score));
            }
        }
        std::vector<std::size_t> order(cuts.size());
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
            return best[a] > best[b];
        });
        if (cut == kvzip_cut::threshold) {
            // Every token of a head has the score of the head: this is the head of the last one inside the budget.
            const std::size_t last = ((std::max)(budget, std::size_t{1}) - 1) / middle;
            for (const std::size_t i : order) {
                cuts[i] = best[i] > best[order[last]] ? simd::rank_cut{0, middle} : nothing;
            }
            return;
        }
        std::size_t left = budget;
        for (const std::size_t i : order) {
            const std::size_t own = (std::min)(left, middle);
            cuts[i] = simd::find_rank_cut(middle_of(scores, area, i), own);
            left -= own;
        }
    }

    /// Middle tokens of head `i`, counted over all layers.
    [[nodiscard]] static std::span<const float>
    middle_of(const kvzip_scores& scores, const areas& area, std::size_t i) noexcept {
        return area.middle(scores.values().subspan(i * area.seq_len, area.seq_len));
    }
};

} // namespace v0
} // namespace kvcrush
