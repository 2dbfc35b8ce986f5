// SPDX-License-Identifier: Apache-2.0
/// @file
/// Heads with spread attention get tokens from heads whose attention sits on few.
#pragma once

#include <kvcrush/allocation/allocator.hpp>
#include <kvcrush/allocation/largest_remainder.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/simd/bitmap.hpp>
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

namespace kvcrush {
inline namespace v0 {

enum class ada_kv_form {
    /// Each head's best floor(floor * budget) tokens are safe; the rest goes to the best of all other tokens.
    pooled,
    /// A mixture of the pooled count and the even one, rounded by largest remainder.
    mixed,
    /// The same rounded as in the authors' code: the sum may miss the budget by about a token per head.
    published
};

template <>
struct enum_names<ada_kv_form> {
    static constexpr named_value<ada_kv_form> values[] = {{"pooled", ada_kv_form::pooled},
                                                          {"mixed", ada_kv_form::mixed},
                                                          {"published", ada_kv_form::published}};
};

/// Divides the middle tokens of a layer by one contest over all its heads. With b middle tokens per head on average:
///
///     pooled     safe = floor(floor * b); counts = safe + those among the num_kv_heads * (b - safe) best of all tokens
///                that are not safe
///     mixed      c = those among the num_kv_heads * b best of all tokens
///                counts = c * (1 - floor) + b * floor, rounded to the exact total, ceil(floor * b) at least
///     published  counts = round half to even(c * (1 - floor) + floor(b * floor))
///
/// Ties keep the token of the earlier head, then the earlier token; NaN is the lowest score.
/// @note  Linear in seq_len: the pool is cut once, and again without the heads that fell below their safe tokens, as
///        long as there are more of them.
///        Scores of different heads are compared with each other, so they must be on one scale, as
///        attention is; norms of keys are not. Layers that are to stay even take uniform_allocator.
/// @see   Ada-KV, arXiv:2407.11550. `pooled` is the form of NVIDIA kvpress, with real counts instead of masks. The
///        authors' code has `published`; with an exact total that is `mixed`. Their base capacity, as b here, leaves
///        the window out; kvpress counts it in and protects it by its scores.
struct ada_kv_allocator {
    static constexpr std::string_view name = "ada_kv";
    static constexpr std::string_view about =
        "what its base says, with more tokens in heads that need more of them";

    ada_kv_form form = ada_kv_form::pooled;
    /// Part of the even share that every head keeps at least, in [0, 1]. `alpha`, 0.2 in the authors' code and kvpress,
    /// 0.5 in the authors' example.
    double floor = 0.2;
    /// Whether the scores of a head are weighted, for the contest alone, by the part of them that its best b tokens
    /// hold. For scores that are not negative. Off in kvpress, a switch in the authors' code.
    bool normalise = false;

    static constexpr auto parameters() {
        return parameter_list{
            parameter{"form", &ada_kv_allocator::form, "pooled, mixed or published rounding"},
            parameter{"floor", &ada_kv_allocator::floor, "part of the even share that is safe"},
            parameter{"normalise",
                      &ada_kv_allocator::normalise,
                      "weight heads by the part of the score that their best tokens hold"}};
    }

    /// @throws std::invalid_argument if floor lies outside [0, 1]
    void validate() const {
        detail::require(
            floor >= 0.0 && floor <= 1.0, "ada_kv: floor is ", floor, "; it must lie in [0, 1]");
    }

    /// @throws std::invalid_argument if a layer has 2^32 scores or more
    void validate_for(const problem_size& size) const {
        constexpr std::size_t most = (std::numeric_limits<std::uint32_t>::max)();
        detail::require(size.kv.num_kv_heads == 0 || size.kv.seq_len <= most / size.kv.num_kv_heads,
                        "ada_kv: ",
                        size.kv.num_kv_heads,
                        " kv heads of ",
                        size.kv.seq_len,
                        " tokens; together they must be fewer than 2^32");
    }

    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        const std::size_t heads = size.kv.num_kv_heads;
        return scratch::bytes<float>(heads * size.kv.seq_len) +
               scratch::bytes<std::uint64_t>(simd::bitmap_words(size.kv.seq_len)) +
               scratch::bytes<std::uint64_t>(heads) + scratch::bytes<detail::token_fraction>(heads);
    }

    /// @param[in]  scores  [num_kv_heads, seq_len]
    /// @param[out] counts  [num_kv_heads]
    void allocate(const_head_scores scores,
                  const areas& area,
                  std::size_t tokens,
                  std::span<std::size_t> counts,
                  scratch memory) const noexcept {
        const std::size_t heads = scores.num_heads();
        const std::size_t width = area.num_middle();
        const std::size_t always = area.num_protected();
        const std::size_t even = tokens <= always ? 0 : (std::min)(tokens - always, width);
        if (even == 0 || even == width) { // nothing to move from head to head
            std::fill(counts.begin(), counts.end(), always + even);
            return;
        }
        const std::span<float> pool = memory.take<float>(heads * width);
        const std::span<std::uint64_t> words =
            memory.take<std::uint64_t>(simd::bitmap_words(width));
        for (std::size_t head = 0; head < heads; ++head) {
            write_pool(area.middle(scores.row(head)), even, pool.subspan(head * width, width));
        }
        count_pool(pool, width, heads * even, counts, words);
        if (form == ada_kv_form::pooled) {
            hold_floor(pool, width, even, counts, words, memory);
        } else {
            mix(even, counts, memory);
        }
        for (std::size_t& count : counts) {
            count += always;
        }
    }

private:
    void
    write_pool(std::span<const float> row, std::size_t even, std::span<float> out) const noexcept {
        if (!normalise) {
            std::copy(row.begin(), row.end(), out.begin());
            return;
        }
        const simd::rank_cut cut = simd::find_rank_cut(row, even);
        double all = 0.0;
        double best = 0.0;
        for (std::size_t i = 0; i < row.size(); ++i) {
            const double score = static_cast<double>(row[i]);
            all += score;
            best += cut.contains(row[i], i) ? score : 0.0;
        }
        const double part = best / all;
        // Sums that are not numbers, or whose signs differ, say nothing about the head.
        const auto weight = part >= 0.0 && part <= 1.0 ? static_cast<float>(part) : 1.0F;
        std::transform(
            row.begin(), row.end(), out.begin(), [weight](float score) { return score * weight; });
    }

    /// How many of the `best` best scores of the pool each head has. A head has `width` of them.
    static void count_pool(std::span<const float> pool,
                           std::size_t width,
                           std::size_t best,
                           std::span<std::size_t> counts,
                           std::span<std::uint64_t> words) noexcept {
        const simd::rank_cut cut = simd::find_rank_cut(pool, best);
        const std::span<std::uint64_t> marks = words.first(simd::bitmap_words(width));
        for (std::size_t head = 0; head < counts.size(); ++head) {
            const std::size_t begin = head * width;
            const std::size_t ties = cut.tie_end > begin ? cut.tie_end - begin : 0;
            simd::mark_inside(
                pool.subspan(begin, width), {cut.key, (std::min)(ties, width)}, marks);
            std::size_t count = 0;
            for (const std::uint64_t word : marks) {
                count += static_cast<std::size_t>(std::popcount(word));
            }
            counts[head] = count;
        }
    }

    /// Heads below their safe tokens get just these, and leave the contest with them; the others go on with what is
    /// left, until none is below. None of a leaving head's other tokens could win later: the boundary only rises.
    void hold_floor(std::span<float> pool,
                    std::size_t width,
                    std::size_t even,
                    std::span<std::size_t> counts,
                    std::span<std::uint64_t> words,
                    scratch memory) const noexcept {
        const auto safe = static_cast<std::size_t>(floor * static_cast<double>(even));
        const std::span<std::uint32_t> active = memory.take<std::uint32_t>(counts.size());
        const std::span<std::size_t> now = memory.take<std::size_t>(counts.size());
        std::iota(active.begin(), active.end(), 0U);
        std::copy(counts.begin(), counts.end(), now.begin());
        std::size_t num_active = counts.size();
        std::size_t left = counts.size() * even;
        while (true) {
            std::size_t stay = 0;
            for (std::size_t i = 0; i < num_active; ++i) {
                counts[active[i]] = (std::max)(now[i], safe);
                if (now[i] < safe) {
                    left -= safe;
                } else {
                    if (stay < i) {
                        std::copy_n(pool.data() + i * width, width, pool.data() + stay * width);
                    }
                    active[stay++] = active[i];
                }
            }
            if (stay == num_active) {
                return;
            }
            num_active = stay;
            count_pool(pool.first(stay * width), width, left, now.first(stay), words);
        }
    }

    void mix(std::size_t even, std::span<std::size_t> counts, scratch memory) const noexcept {
        const double base = static_cast<double>(even);
        if (form == ada_kv_form::published) {
            const double safe = std::floor(base * floor);
            for (std::size_t& count : counts) {
                count = static_cast<std::size_t>(
                    std::nearbyint(static_cast<double>(count) * (1.0 - floor) + safe));
            }
            return;
        }
        // ceil(floor * base) each, and of what is left a part as large as the share above it.
        const std::size_t total = counts.size() * even;
        const std::span<double> ideal = memory.take<double>(counts.size());
        const auto lowest = (std::min)(static_cast<std::size_t>(std::ceil(base * floor)), even);
        const std::size_t rest = total - counts.size() * lowest;
        for (std::size_t head = 0; head < counts.size(); ++head) {
            ideal[head] = static_cast<double>(counts[head]) *
                          (static_cast<double>(rest) / static_cast<double>(total));
        }
        detail::round_to_total(
            ideal, rest, counts, memory.take<detail::token_fraction>(counts.size()));
        for (std::size_t& count : counts) {
            count += lowest;
        }
    }
};
static_assert(ScratchAllocator<ada_kv_allocator>);

} // namespace v0
} // namespace kvcrush
