// SPDX-License-Identifier: Apache-2.0
// Whole selections from given scores.
//     select/linear    KVCrush at 128K tokens over 32K tokens
//     select/blocks    the block-level form against its published algorithm
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/select/block_refinement.hpp>

#include "bars.hpp"
#include "baseline_blocks.hpp"
#include "huge_buffer.hpp"
#include "layer_scores.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace kvcrush::bench {
namespace {

void measure_linear(session& run) {
    run.progress("select/linear");
    constexpr std::size_t few = 32768;
    constexpr std::size_t many = 131072;
    const layer_scores small(few, 8); // as much memory as the large ones
    const layer_scores large(many, 2);
    selecting_lane small_lane(few);
    selecting_lane large_lane(many);
    round_robin turns(run.limits);
    turns.add("tokens:32768", [&](std::size_t turn) { small_lane.select(small, turn % 8); });
    turns.add("tokens:131072", [&](std::size_t turn) { large_lane.select(large, turn % 2); });
    const timings times = turns.run();
    row one{.name = "select/linear/tokens:131072"};
    one.variant = "tokens:131072";
    one.bits = layer_scores::num_observed_heads;
    one.bar = 4.4;
    one.side = better::lower;
    one.value = times.ratio("tokens:131072", "tokens:32768");
    one.spread = times.spread("tokens:131072", "tokens:32768");
    one.baseline = "the same with 32768 tokens; 8 kv heads, 32 heads make the bits";
    one.tokens = many;
    one.ns_per_token = {
        {"tokens:32768", times.median("tokens:32768") / static_cast<double>(few)},
        {"tokens:131072", times.median("tokens:131072") / static_cast<double>(many)}};
    run.rows.add(std::move(one));
}

/// Scores of a million tokens, and which three quarters of their blocks a policy would evict.
class block_problems {
public:
    static constexpr std::size_t block_size = 16;
    static constexpr std::size_t pool = std::size_t{1} << 20;

    explicit block_problems(std::size_t tokens)
        : tokens_(tokens),
          scores_(pool),
          doubles_(pool),
          evicted_(count()),
          sorted_(count()),
          room_(refinement_.scratch_bytes(tokens)),
          kept_(budget()) {
        for (std::size_t t = 0; t < pool; ++t) {
            const float x = random_unit(12, 0, t) * random_unit(13, 0, t);
            scores_.data()[t] = x * x;
            doubles_.data()[t] = static_cast<double>(scores_.data()[t]);
        }
        const std::size_t blocks = tokens / block_size;
        for (std::size_t problem = 0; problem < count(); ++problem) {
            const float* from = scores_.data() + problem * tokens;
            std::vector<float> sums(blocks);
            for (std::size_t t = 0; t < tokens; ++t) {
                sums[t / block_size] += from[t];
            }
            std::vector<std::size_t>& lowest = evicted_[problem];
            lowest.resize(blocks);
            std::iota(lowest.begin(), lowest.end(), std::size_t{0});
            std::sort(lowest.begin(), lowest.end(), [&](std::size_t a, std::size_t b) {
                return sums[a] < sums[b];
            });
            lowest.resize(blocks / 4 * 3);
            for (const std::size_t block : lowest) {
                sorted_[problem].push_back(static_cast<std::uint32_t>(block));
            }
            std::sort(sorted_[problem].begin(), sorted_[problem].end());
        }
    }

    [[nodiscard]] std::size_t count() const noexcept { return pool / tokens_; }
    [[nodiscard]] std::size_t budget() const noexcept { return tokens_ / block_size / 16; }

    template <typename Score>
    std::span<const std::uint32_t> ours(const huge_buffer<Score>& scores, std::size_t turn) {
        const std::size_t problem = turn % count();
        const std::size_t num = refinement_.retain(
            std::span<const Score>(scores.span().subspan(problem * tokens_, tokens_)),
            std::span<const std::uint32_t>(sorted_[problem]),
            budget(),
            std::span(kept_),
            scratch(room_.span()));
        return std::span(kept_).first(num);
    }
    std::span<const std::uint32_t> ours_f32(std::size_t turn) { return ours(scores_, turn); }
    std::span<const std::uint32_t> ours_f64(std::size_t turn) { return ours(doubles_, turn); }

    std::vector<std::size_t> published(std::size_t turn) const {
        const std::size_t problem = turn % count();
        return port_.retain(
            doubles_.data() + problem * tokens_, tokens_, evicted_[problem], budget());
    }

    /// Whether the chosen blocks have the same distances. Which of several blocks of one distance is chosen is open
    /// in the published algorithm.
    bool agree(std::size_t turn) {
        const std::vector<std::size_t> distances =
            port_.distances(doubles_.data() + turn % count() * tokens_, tokens_);
        const auto sorted = [&](const auto& blocks) {
            std::vector<std::size_t> found;
            for (const std::size_t block : blocks) {
                found.push_back(distances[block]);
            }
            std::sort(found.begin(), found.end());
            return found;
        };
        const std::vector<std::size_t> expected = sorted(published(turn));
        return sorted(ours_f32(turn)) == expected && sorted(ours_f64(turn)) == expected;
    }

private:
    std::size_t tokens_;
    huge_buffer<float> scores_;
    huge_buffer<double> doubles_;
    std::vector<std::vector<std::size_t>> evicted_; ///< lowest score first
    std::vector<std::vector<std::uint32_t>> sorted_;
    block_refinement refinement_{.block_size = block_size, .anchor = {.kind = anchor_kind::mean}};
    published_blocks port_{block_size};
    huge_buffer<std::byte> room_;
    std::vector<std::uint32_t> kept_;
};

/// @param microseconds  that the published code takes, measured once on a Zen 5 core
void measure_blocks(session& run, std::size_t tokens, double bar, double microseconds) {
    run.progress(fmt::format("select/blocks tokens:{}", tokens));
    block_problems problems(tokens);
    bool agree = true;
    for (std::size_t turn = 0; turn < (std::min)(problems.count(), std::size_t{16}); ++turn) {
        agree = agree && problems.agree(turn);
    }
    round_robin turns(run.limits);
    turns.add("ours", [&](std::size_t turn) { problems.ours_f32(turn); });
    turns.add("ours_f64", [&](std::size_t turn) { problems.ours_f64(turn); });
    turns.add("published", [&](std::size_t turn) { static_cast<void>(problems.published(turn)); });
    const timings times = turns.run();

    row one{.name = fmt::format("select/blocks/tokens:{}", tokens)};
    one.variant = "ours";
    one.bits = block_problems::block_size;
    set_times(one, times, tokens);
    one.bar = bar;
    one.value = times.ratio("published", "ours");
    one.spread = times.spread("published", "ours");
    const double took = times.median("published") / 1000.0;
    one.baseline = fmt::format(
        "port of the published algorithm, {:.0f} us; we {:.1f} us, {:.1f} us with f64 scores",
        took,
        times.median("ours") / 1000.0,
        times.median("ours_f64") / 1000.0);
    if (!agree) {
        run.rows.add_void(std::move(one), "the chosen blocks have other distances than the port's");
    } else if (took < 0.5 * microseconds || took > 2.0 * microseconds) {
        run.rows.add_void(
            std::move(one),
            fmt::format(
                "the port takes {:.0f} us, not 0.5 to 2 times {:.0f}: it or this machine is "
                "another one than was measured before",
                took,
                microseconds));
    } else {
        run.rows.add(std::move(one));
    }
}

} // namespace

void measure_select(session& run) {
    measure_linear(run);
    measure_blocks(run, 4096, 10.0, 322.0);
    measure_blocks(run, 32768, 50.0, 3747.0);
    measure_blocks(run, 131072, 100.0, 23022.0);
}

} // namespace kvcrush::bench
