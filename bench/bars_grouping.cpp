// SPDX-License-Identifier: Apache-2.0
// grouping/order: the tokens that are not taken, by (distance, index). grouping/representatives: some of that order,
// found without making it. Distances of 32-bit codes, so 33 different ones.
#include <kvcrush/core/random.hpp>
#include <kvcrush/grouping/distance_order.hpp>
#include <kvcrush/grouping/linspace.hpp>
#include <kvcrush/simd/bitmap.hpp>
#include <kvcrush/simd/key_ranks.hpp>

#include "bars.hpp"
#include "baseline_standard.hpp"
#include "huge_buffer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

namespace kvcrush::bench {
namespace {

constexpr std::size_t num_keys = 33;
/// Enough different data that no branch predictor learns it.
constexpr std::size_t pool = std::size_t{1} << 20;

/// Distances and sets of a million tokens, of which each call takes the next piece.
struct tokens_of {
    tokens_of(std::size_t piece, std::size_t taken_of_16)
        : tokens(piece), distances(pool), taken(simd::bitmap_words(pool)) {
        for (std::size_t t = 0; t < pool; ++t) {
            // Heads agree more often than not: a token that one of them likes, others like, too.
            const float liking = random_unit(7, 0, t);
            unsigned distance = 0;
            for (std::uint64_t bits = random_bits(8, 0, t), i = 0; i < 2; ++i) {
                for (std::size_t head = 0; head < 16; ++head, bits >>= 4) {
                    distance += static_cast<float>(bits & 15U) < 16.0F * liking ? 1U : 0U;
                }
                bits = random_bits(9, 0, t);
            }
            distances.data()[t] = static_cast<std::uint8_t>(distance);
            const bool is_taken = random_bits(10, 0, t) % 16 < taken_of_16;
            taken.data()[t / 64] |= std::uint64_t{is_taken} << (t % 64);
        }
    }
    [[nodiscard]] std::size_t begin(std::size_t turn) const noexcept {
        return turn % (pool / tokens) * tokens;
    }
    [[nodiscard]] std::span<const std::uint8_t> distances_of(std::size_t turn) const noexcept {
        return distances.span().subspan(begin(turn), tokens);
    }
    [[nodiscard]] std::span<const std::uint64_t> taken_of(std::size_t turn) const noexcept {
        return taken.span().subspan(begin(turn) / 64, simd::bitmap_words(tokens));
    }

    std::size_t tokens;
    huge_buffer<std::uint8_t> distances;
    huge_buffer<std::uint64_t> taken;
};

/// The two rows of one measurement: absolute, and against std::stable_sort.
void report_both(session& run,
                 const timings& times,
                 const std::string& what,
                 const std::string& arguments,
                 double bar,
                 std::size_t tokens,
                 const std::string& problem) {
    row speed{.name = fmt::format("grouping/{}/ns_per_token/{}", what, arguments)};
    speed.variant = "ours";
    set_times(speed, times, tokens);
    speed.bar = bar;
    speed.side = better::lower;
    speed.value = speed.own_ns_per_token();
    speed.baseline = "absolute: ns per token";
    row gain = speed;
    gain.name = fmt::format("grouping/{}/stable_sort/{}", what, arguments);
    gain.bar = 30.0;
    gain.side = better::higher;
    gain.value = times.ratio("stable_sort", "ours");
    gain.spread = times.spread("stable_sort", "ours");
    gain.baseline = "std::stable_sort of token indices by distance";
    for (row* one : {&speed, &gain}) {
        if (problem.empty()) {
            run.rows.add(std::move(*one));
        } else {
            run.rows.add_void(std::move(*one), problem);
        }
    }
}

void measure_tokens(session& run, std::size_t tokens, std::size_t taken_of_16) {
    run.progress(fmt::format("grouping tokens:{} taken:{}/16", tokens, taken_of_16));
    const tokens_of data(tokens, taken_of_16);
    huge_buffer<std::uint32_t> order(tokens);
    huge_buffer<std::uint32_t> expected(tokens);
    std::vector<std::uint32_t> counts(num_keys);
    std::vector<std::uint32_t> begins(num_keys);
    const auto sort = [&](std::size_t turn) {
        stable_sort_order(
            data.distances_of(turn).data(), data.taken_of(turn).data(), tokens, expected.data());
    };
    const auto ours = [&](std::size_t turn) {
        order_by_distance(data.distances_of(turn),
                          data.taken_of(turn),
                          distance_sort::ascending,
                          std::span(counts),
                          order.span());
    };
    const std::string taken =
        fmt::format("taken:{:.0f}%", 100.0 / 16.0 * static_cast<double>(taken_of_16));

    const std::size_t candidates = stable_sort_order(
        data.distances_of(0).data(), data.taken_of(0).data(), tokens, expected.data());
    ours(0);
    std::string problem;
    if (!std::equal(expected.data(), expected.data() + candidates, order.data())) {
        problem = "the order differs from that of std::stable_sort";
    }
    {
        round_robin turns(run.limits);
        turns.add("ours", ours);
        turns.add("stable_sort", sort);
        report_both(run,
                    turns.run(),
                    "order",
                    fmt::format("tokens:{}/{}", tokens, taken),
                    1.2,
                    tokens,
                    problem);
    }

    for (const std::size_t picks : {std::size_t{64}, tokens / 16}) {
        if (taken_of_16 == 0) {
            break; // there is always something more important
        }
        huge_buffer<std::uint32_t> ranks(picks);
        huge_buffer<std::uint64_t> marked(simd::bitmap_words(tokens));
        const auto pick = [&](std::size_t turn) {
            simd::count_keys(data.distances_of(turn), data.taken_of(turn), std::span(counts));
            const std::size_t num = distance_begins(
                std::span<const std::uint32_t>(counts), distance_sort::ascending, begins);
            for (std::size_t i = 0; i < picks; ++i) {
                ranks.data()[i] = static_cast<std::uint32_t>(linspace_picker{}.rank(i, num, picks));
            }
            std::fill_n(marked.data(), marked.size(), std::uint64_t{0});
            simd::mark_ranks(data.distances_of(turn),
                             data.taken_of(turn),
                             std::span<const std::uint32_t>(begins),
                             std::span<const std::uint32_t>(counts),
                             std::span<const std::uint32_t>(ranks.span()),
                             marked.span());
        };
        sort(0);
        pick(0);
        std::size_t found = 0;
        for (std::size_t i = 0; i < picks; ++i) {
            const std::uint32_t token =
                expected.data()[linspace_picker{}.rank(i, candidates, picks)];
            found += marked.data()[token / 64] >> (token % 64) & 1U;
        }
        round_robin turns(run.limits);
        turns.add("ours", pick);
        turns.add("stable_sort", sort);
        report_both(run,
                    turns.run(),
                    "representatives",
                    fmt::format("tokens:{}/picks:{}", tokens, picks),
                    0.6,
                    tokens,
                    found == picks ? "" : "other tokens than std::stable_sort finds");
    }
}

} // namespace

void measure_grouping(session& run) {
    for (const std::size_t tokens : run.full ? std::vector<std::size_t>{4096, 32768, 131072}
                                             : std::vector<std::size_t>{32768, 131072}) {
        measure_tokens(run, tokens, 0);
        measure_tokens(run, tokens, 3); // three quarters of a budget of a quarter
    }
}

} // namespace kvcrush::bench
