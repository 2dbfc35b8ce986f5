// SPDX-License-Identifier: Apache-2.0
/// @file
/// Most of the budget for the important groups of tokens, the rest for groups that resemble none of those kept.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/math/row_norm.hpp>
#include <kvcrush/select/detail/cache_of.hpp>
#include <kvcrush/select/selector.hpp>
#include <kvcrush/select/token_chunks.hpp>
#include <kvcrush/simd/logits.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Keeps groups of tokens by score, and others by how little their keys resemble what is kept already.
///
///     important    = the groups with the best mean scores, (1 - share) of the middle budget
///     diverse      = again and again the group with the smallest mean similarity to the important and diverse groups
///     similarity   = mean over tokens i of one group and j of the other of cos(key_i, key_j)
///     what is left = the next best group by score, cut to its best tokens, so that the budget is met exactly
///
/// With u(G) the mean of the normalised keys of a group, that similarity is u(G) . u(H), and the mean similarity to a
/// set of groups is u(G) . sum of u(H) / their number: no pair of tokens is ever looked at.
/// @note   Reads the keys of the middle once. At most `rounds` rounds compare all groups with the set, each taking its
///         share of the groups: the work is linear in tokens, O(seq_len * head_dim * (1 + rounds / group_size)) per kv
///         head. Keys of length zero, infinite or NaN resemble nothing. Ties keep the earlier group.
/// @see    DiverseKV in openvino_contrib, genai_optimizations. Deviations: the authors compare with the important
///         tokens alone, in one round (rounds = 1 here), by a matrix of all token pairs, in which similarities below
///         the mean of their head count as 0; sizes follow their defaults (512 middle tokens, 64 of them refined).
struct diverse_kv_selector {
    static constexpr std::string_view name = "diverse_kv";
    static constexpr std::string_view about =
        "important groups of tokens, and the groups least like them";

    /// Tokens of a group. 32 in the authors' code.
    std::size_t group_size = 32;
    /// Part of the middle budget for diverse groups, in [0, 1]; one group at least unless it is 0. 64 of 512 there.
    double share = 0.125;
    /// Most rounds of picking; fewer than the groups to pick take several in a round. 1 in the authors' code.
    std::size_t rounds = 64;
    /// Which heads share their groups; similarities are then means over heads. per_layer there.
    chunk_sets sets = chunk_sets::per_layer;

    static constexpr auto parameters() {
        using self = diverse_kv_selector;
        return parameter_list{
            parameter{"group", &self::group_size, "tokens of a group"},
            parameter{"share", &self::share, "part of the middle budget for diverse groups"},
            parameter{"rounds", &self::rounds, "most rounds of picking"},
            parameter{"sets", &self::sets, "which heads keep which groups"}};
    }

    /// @throws std::invalid_argument if group_size or rounds is 0 or share lies outside [0, 1]
    void validate() const {
        using detail::require;
        require(group_size >= 1, "diverse_kv: group is 0; it must be at least 1 token");
        require(share >= 0.0 && share <= 1.0,
                "diverse_kv: share is ",
                share,
                "; it must lie in [0, 1]");
        require(rounds >= 1, "diverse_kv: rounds is 0; it must be at least 1");
    }

    /// How many groups a budget of `tokens` middle tokens gives to diversity.
    [[nodiscard]] std::size_t num_diverse(std::size_t tokens) const noexcept {
        const std::size_t all = tokens / group_size;
        const auto wanted =
            static_cast<std::size_t>(share * static_cast<double>(tokens)) / group_size;
        return (std::min)(all, (std::max)(wanted, std::size_t{share > 0.0 ? 1U : 0U}));
    }

    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        const std::size_t tokens = size.kv.seq_len;
        const std::size_t groups = token_chunks::count(tokens, group_size);
        const std::size_t width = means_width(size.kv.num_kv_heads, size.kv.key_dim);
        return scratch::bytes<float>(tokens) + token_chunks::scratch_bytes(tokens, group_size) +
               scratch::bytes<float>(tiles(groups) * width * simd::key_tile) +
               scratch::bytes<float>(width * simd::key_tile) +
               2 * scratch::bytes<float>((std::max)(width, size.kv.key_dim)) +
               scratch::bytes<float>(tiles(groups) * simd::key_tile);
    }

    /// @see Selector
    template <typename... Inputs>
    void select(const selection_request& request,
                selection& out,
                const Inputs&... inputs) const noexcept {
        static_assert(detail::HasCache<Inputs...>,
                      "kvcrush: diverse_kv reads keys: call select(kv) or select(kv, queries)");
        if constexpr (detail::HasCache<Inputs...>) {
            select_from(request, out, detail::cache_of(inputs...));
        }
    }

private:
    [[nodiscard]] static constexpr std::size_t tiles(std::size_t groups) noexcept {
        return (groups + simd::key_tile - 1) / simd::key_tile;
    }
    [[nodiscard]] std::size_t means_width(std::size_t heads, std::size_t dim) const noexcept {
        return sets == chunk_sets::per_layer ? heads * dim : dim;
    }

    template <typename Kv>
    void
    select_from(const selection_request& request, selection& out, const Kv& kv) const noexcept {
        const const_head_scores scores = request.scores;
        const areas& area = request.area;
        scratch memory = request.memory;
        const bool shared = sets == chunk_sets::per_layer;
        const std::size_t heads = scores.num_heads();
        const std::size_t groups = token_chunks::count(area.num_middle(), group_size);
        const std::size_t width = means_width(heads, kv.shape().key_dim);
        const std::span<float> means = memory.take<float>(tiles(groups) * width * simd::key_tile);
        std::span<float> sums;
        if (shared) {
            sums = memory.take<float>(area.num_middle());
            sum_middle_scores(scores, area, sums);
        }
        out.clear();
        std::size_t means_of = heads; // the first head whose means are at hand
        for (std::size_t head = 0; head < heads; ++head) {
            scratch own = memory;
            token_chunks chosen(shared ? std::span<const float>(sums)
                                       : area.middle(scores.row(head)),
                                group_size,
                                own);
            const std::size_t budget = detail::middle_budget(area, request.counts[head]);
            const std::size_t diverse = num_diverse(budget);
            chosen.choose_best(budget / group_size - diverse);
            if (diverse > 0 && budget < area.num_middle()) {
                const std::size_t first = shared ? 0 : head;
                if (means_of != first) {
                    mean_keys(kv, first, shared ? heads : 1, area, groups, means, own);
                    means_of = first;
                }
                pick(diverse, width, means, chosen, own);
            }
            chosen.fill(budget);
            out.extend_range(0, area.middle_begin);
            chosen.write(area.middle_begin, out);
            out.extend_range(area.middle_end, area.seq_len);
            out.end_head();
        }
    }

    /// Means of the normalised keys of each group, the heads side by side, in tiles of 64 groups.
    template <typename Kv>
    void mean_keys(const Kv& kv,
                   std::size_t first_head,
                   std::size_t num_heads,
                   const areas& area,
                   std::size_t groups,
                   std::span<float> means,
                   scratch memory) const noexcept {
        const std::size_t dim = kv.shape().key_dim;
        const std::size_t width = num_heads * dim;
        const std::span<float> rows = memory.take<float>(width * simd::key_tile);
        // Each head takes its part of the mean, so that one dot product is the mean over heads.
        const float head_weight =
            num_heads == 0 ? 0.0F : 1.0F / std::sqrt(static_cast<float>(num_heads));
        for (std::size_t tile = 0; tile < tiles(groups); ++tile) {
            const std::size_t first = tile * simd::key_tile;
            const std::size_t count = (std::min)(simd::key_tile, groups - first);
            std::fill(rows.begin(), rows.end(), 0.0F);
            for (std::size_t h = 0; h < num_heads; ++h) {
                for (std::size_t g = 0; g < count; ++g) {
                    const std::size_t begin = area.middle_begin + (first + g) * group_size;
                    const std::size_t end = (std::min)(begin + group_size, area.middle_end);
                    const std::span<float> mean = rows.subspan(g * width + h * dim, dim);
                    for (std::size_t t = begin; t < end; ++t) {
                        const auto key = kv.key(first_head + h, t);
                        const float length = std::sqrt(squared_norm(key));
                        if (length > 0.0F && std::isfinite(length)) {
                            add(key,
                                head_weight / (length * static_cast<float>(end - begin)),
                                mean);
                        }
                    }
                }
            }
            simd::pack_key_tile(
                rows.data(), width, count, width, means.data() + tile * width * simd::key_tile);
        }
    }

    /// out += factor * key
    template <Element T>
    static void add(const row_view<T>& key, float factor, std::span<float> out) noexcept {
        constexpr std::size_t step = 16; // a fixed count, so that -O2 makes vectors of it
        std::size_t k = 0;
        if (key.contiguous()) {
            for (; k + step <= out.size(); k += step) {
                for (std::size_t i = 0; i < step; ++i) {
                    out[k + i] += factor * to_float(key.data()[k + i]);
                }
            }
        }
        for (; k < out.size(); ++k) {
            out[k] += factor * to_float(key[k]);
        }
    }

    /// Takes `count` groups that resemble the chosen ones least. Where none is chosen yet, the best one is the first.
    void pick(std::size_t count,
              std::size_t width,
              std::span<const float> means,
              token_chunks& chosen,
              scratch memory) const noexcept {
        const std::size_t groups = chosen.num_chunks();
        const std::span<float> set =
            memory.take<float>(width); // sum of the means of what is chosen
        const std::span<float> likeness = memory.take<float>(tiles(groups) * simd::key_tile);
        std::fill(set.begin(), set.end(), 0.0F);
        std::size_t left = count;
        if (chosen.num_chosen_tokens() == 0) {
            chosen.choose_best(1);
            --left;
        }
        for (std::size_t g = 0; g < groups; ++g) {
            if (chosen.is_chosen(g)) {
                add_mean(means, width, g, set);
            }
        }
        for (std::size_t round = (std::min)(rounds, left); left > 0; --round) {
            for (std::size_t tile = 0; tile < tiles(groups); ++tile) {
                simd::tile_logits(set.data(),
                                  width,
                                  1,
                                  means.data() + tile * width * simd::key_tile,
                                  width,
                                  -1.0F,
                                  likeness.data() + tile * simd::key_tile,
                                  simd::key_tile,
                                  simd::key_tile);
            }
            const std::span<float> unlike = likeness.first(groups);
            for (std::size_t g = 0; g < groups; ++g) {
                // Nothing that is chosen comes before a candidate, whose value is finite.
                unlike[g] =
                    chosen.is_chosen(g) ? -std::numeric_limits<float>::infinity() : unlike[g];
            }
            const std::size_t now = (left + round - 1) / round;
            const simd::rank_cut cut = simd::find_rank_cut(unlike, now);
            for (std::size_t g = 0; g < groups; ++g) {
                if (cut.contains(unlike[g], g)) {
                    chosen.choose(g);
                    add_mean(means, width, g, set);
                }
            }
            left -= now;
        }
    }

    static void add_mean(std::span<const float> means,
                         std::size_t width,
                         std::size_t group,
                         std::span<float> set) noexcept {
        const float* const tile =
            means.data() + group / simd::key_tile * width * simd::key_tile + group % simd::key_tile;
        for (std::size_t k = 0; k < set.size(); ++k) {
            set[k] += tile[k * simd::key_tile];
        }
    }
};

} // namespace v0
} // namespace kvcrush
