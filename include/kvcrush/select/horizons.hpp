// SPDX-License-Identifier: Apache-2.0
/// @file
/// Three judges with three horizons share out the budget.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/math/score_ranks.hpp>
#include <kvcrush/retention/glob.hpp>
#include <kvcrush/retention/key_diff.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/select/detail/cache_of.hpp>
#include <kvcrush/select/second_opinion.hpp>
#include <kvcrush/select/selector.hpp>
#include <kvcrush/simd/pool.hpp>
#include <kvcrush/simd/top_k.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Keeps what one of three judges puts high:
///
///     near    what the last query attends to, smoothed over neighbours, one list for all heads:
///             snapkv with a window of 1, shared
///     unlike  keys unlike the others, summed over the kv heads and smoothed, one list for all heads: what no head looks
///             at now, but a question may ask for. They stand for the rest, as representatives of KVCrush do
///     far     what the last 32 queries attend to, plus what the last 256 did: glob, a list per kv head
///
///     place[t] = min over the judges of (rank of t in the list + 1) / share of the judge
///     the tokens in the first places are kept, as many as the kv head may
///
/// So each judge gets its share of the middle budget at least: the best share * budget of its list are kept, and what
/// several judges agree on is paid for once, which lets all lists reach deeper.
///
/// The scores of the compressor's scorer are not looked at: they are there for the allocator, and are not made where that
/// looks at none either. kvcrush_auto() puts snapkv and ada_kv there, which gives more tokens to the heads whose attention
/// needs them.
/// @note   Needs keys and the last 256 queries. Linear in tokens. Ties keep the earlier token.
/// @note   On the reference model at a quarter of the tokens: KLD 0.78 of snapkv's, needles found whether the question
///         was known at compression or not. The shares were chosen there, on the development texts;
///         near_share = 0.35, unlike_share = 0.1 predicts text a little better and loses needles.
/// @see    kvcrush's own; made of SnapKV (arXiv:2404.14469), H2O (arXiv:2306.14048) and KeyDiff (arXiv:2504.15364)
struct horizons_selector {
    static constexpr std::string_view name = "horizons";
    static constexpr bool reads_scores = false;
    static constexpr bool needs_attention = true;
    static constexpr std::string_view about =
        "what the last query attends to, what many did, and keys unlike the others";

    /// Part of the middle budget for what the last query attends to.
    double near_share = 0.4;
    /// Part of the middle budget for keys unlike the others; the rest is for `far`.
    double unlike_share = 0.2;
    /// Width of the max pool over both of them, odd [tokens].
    std::size_t pooling_kernel_size = 7;

    static constexpr auto parameters() {
        using self = horizons_selector;
        return parameter_list{
            parameter{"near", &self::near_share, "part of the middle budget for the last query"},
            parameter{"unlike", &self::unlike_share, "part for keys unlike the others"},
            parameter{"kernel", &self::pooling_kernel_size, "width of their pool, odd [tokens]"}};
    }

    /// @throws std::invalid_argument if a share is negative, both are more than 1, or the kernel is even
    void validate() const {
        detail::require(near_share >= 0.0 && near_share <= 1.0,
                        "horizons: near is ",
                        near_share,
                        "; it must lie in [0, 1]");
        detail::require(unlike_share >= 0.0 && near_share + unlike_share <= 1.0,
                        "horizons: unlike is ",
                        unlike_share,
                        "; it must lie in [0, 1 - near], near is ",
                        near_share);
        detail::require(pooling_kernel_size % 2 == 1,
                        "horizons: kernel is ",
                        pooling_kernel_size,
                        "; it must be odd");
    }

    /// Queries to hand over for a sequence of this length.
    [[nodiscard]] std::size_t num_queries(std::size_t seq_len) const noexcept {
        return (std::max)(far_judge().num_queries(seq_len), near_judge().num_queries(seq_len));
    }

    [[nodiscard]] std::size_t scratch_bytes(const problem_size& size) const noexcept {
        const std::size_t tokens = size.kv.seq_len;
        const std::size_t judging =
            (std::max)({second_opinion_scratch_bytes(near_judge(), size),
                        second_opinion_scratch_bytes(key_diff_scorer{}, size) +
                            2 * scratch::bytes<float>(tokens),
                        second_opinion_scratch_bytes(far_judge(), size)});
        return 3 * scratch::bytes<std::uint32_t>(tokens) + scratch::bytes<float>(tokens) + judging +
               score_ranks_bytes(tokens);
    }

    /// @see Selector
    template <typename... Inputs>
    void select(const selection_request& request,
                selection& out,
                const Inputs&... inputs) const noexcept {
        static_assert(detail::HasCache<Inputs...> && sizeof...(Inputs) == 2,
                      "kvcrush: horizons reads keys and queries: call select(kv, queries)");
        if constexpr (detail::HasCache<Inputs...> && sizeof...(Inputs) == 2) {
            select_from(request, out, inputs...);
        }
    }

private:
    [[nodiscard]] constexpr snapkv_scorer near_judge() const noexcept {
        return {
            .observation_window = 1, .pooling_kernel_size = pooling_kernel_size, .shared = true};
    }
    [[nodiscard]] static constexpr glob_scorer far_judge() noexcept { return {.last = 256}; }

    template <KvSource Kv>
    void select_from(const selection_request& request,
                     selection& out,
                     const Kv& kv,
                     const query_view& queries) const noexcept {
        out.clear();
        const std::size_t num_heads = request.scores.num_heads();
        if (num_heads == 0) {
            return;
        }
        const areas& area = request.area;
        scratch memory = request.memory;
        const problem_size size{kv.shape(), queries.num_q_heads()};
        const std::size_t middle = area.num_middle();
        const std::span<std::uint32_t> near_ranks = memory.take<std::uint32_t>(middle);
        const std::span<std::uint32_t> unlike_ranks = memory.take<std::uint32_t>(middle);
        const std::span<std::uint32_t> far_ranks = memory.take<std::uint32_t>(middle);
        const std::span<float> places = memory.take<float>(middle);
        rank_near(size, area, near_ranks, memory, kv, queries);
        rank_unlike(size, area, unlike_ranks, memory, kv);
        const second_opinion opinion(far_judge(), size, memory, kv, queries);
        for (std::size_t head = 0; head < num_heads; ++head) {
            score_ranks(area.middle(opinion.row(head)), far_ranks, memory);
            for (std::size_t t = 0; t < middle; ++t) {
                const double place =
                    (std::min)({place_of(near_ranks[t], near_share),
                                place_of(unlike_ranks[t], unlike_share),
                                place_of(far_ranks[t], 1.0 - near_share - unlike_share)});
                places[t] = static_cast<float>(-place);
            }
            const std::size_t count = detail::middle_budget(area, request.counts[head]);
            out.extend_range(0, area.middle_begin);
            simd::top_k(
                places, count, out.extend(count), static_cast<token_index>(area.middle_begin));
            out.extend_range(area.middle_end, area.seq_len);
            out.end_head();
        }
    }

    /// Where a share of 0 is as good as no list.
    [[nodiscard]] static double place_of(std::uint32_t rank, double share) noexcept {
        return share > 0.0 ? (static_cast<double>(rank) + 1.0) / share
                           : static_cast<double>((std::numeric_limits<float>::max)());
    }

    template <KvSource Kv>
    void rank_near(const problem_size& size,
                   const areas& area,
                   std::span<std::uint32_t> ranks,
                   scratch memory,
                   const Kv& kv,
                   const query_view& queries) const noexcept {
        const second_opinion opinion(near_judge(), size, memory, kv, queries);
        score_ranks(area.middle(opinion.row(0)), ranks, memory);
    }

    template <KvSource Kv>
    void rank_unlike(const problem_size& size,
                     const areas& area,
                     std::span<std::uint32_t> ranks,
                     scratch memory,
                     const Kv& kv) const noexcept {
        const second_opinion opinion(key_diff_scorer{}, size, memory, kv);
        const std::span<float> total = memory.take<float>(area.num_middle());
        const std::span<float> pooled = memory.take<float>(area.num_middle());
        std::fill(total.begin(), total.end(), 0.0F);
        for (std::size_t head = 0; head < size.kv.num_kv_heads; ++head) {
            const std::span<const float> row = area.middle(opinion.row(head));
            for (std::size_t t = 0; t < total.size(); ++t) {
                total[t] += row[t];
            }
        }
        simd::max_pool(total, pooled, pooling_kernel_size);
        score_ranks(pooled, ranks, memory);
    }
};

} // namespace v0
} // namespace kvcrush
