// SPDX-License-Identifier: Apache-2.0
// topk/radix: the indices of the best quarter of the scores of a head.
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/top_k.hpp>

#include "bars.hpp"
#include "baseline_scoring.hpp"
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

/// Enough different data that no branch predictor learns it.
constexpr std::size_t pool = std::size_t{1} << 20;

void measure_tokens(session& run, std::size_t tokens) {
    run.progress(fmt::format("topk tokens:{}", tokens));
    const std::size_t k = tokens / 4;
    huge_buffer<float> scores(pool);
    for (std::size_t i = 0; i < pool; ++i) {
        const float x = random_unit(41, 0, i);
        scores.data()[i] = x * x * x; // skewed, as attention is
    }
    huge_buffer<std::uint64_t> pairs(tokens);
    huge_buffer<std::uint32_t> order(tokens);
    huge_buffer<std::uint32_t> out(k);
    const auto part = [&](std::size_t turn) {
        return scores.data() + turn % (pool / tokens) * tokens;
    };
    const auto ours = [&](std::size_t turn, simd::isa rung) {
        simd::top_k(std::span<const float>(part(turn), tokens), k, out.span(), 0, rung);
    };
    const auto nth_element = [&](std::size_t turn) {
        nth_element_top_k(part(turn), tokens, k, pairs.data(), out.data());
    };
    const auto partial_sort = [&](std::size_t turn) {
        partial_sort_top_k(part(turn), tokens, k, order.data(), out.data());
    };
    // Of equal scores we take the earlier, they any: then the scores of what is taken are the same, not the tokens.
    const auto taken = [&](std::size_t turn) {
        std::vector<float> found;
        for (const std::uint32_t token : out.span()) {
            found.push_back(part(turn)[token]);
        }
        std::sort(found.begin(), found.end());
        return found;
    };
    ours(0, simd::best());
    const std::vector<float> mine = taken(0);
    nth_element(0);
    bool agree = taken(0) == mine;
    partial_sort(0);
    agree = agree && taken(0) == mine;

    std::vector<simd::isa> rungs;
    if (run.avx512) {
        rungs.push_back(simd::isa::avx512);
    }
    if (simd::best() >= simd::isa::avx2) {
        rungs.push_back(simd::isa::avx2);
    }
    round_robin turns(run.limits);
    for (const simd::isa rung : rungs) {
        turns.add(simd::name_of(rung), [&, rung](std::size_t turn) { ours(turn, rung); });
    }
    turns.add("nth_element", nth_element);
    turns.add("partial_sort", partial_sort);
    const timings times = turns.run();

    for (const simd::isa rung : rungs) {
        const std::string name = simd::name_of(rung);
        const bool widest = rung == simd::isa::avx512;
        const char* const suffix = widest ? "" : "/avx2";
        row speed{.name = fmt::format("topk/radix/ns_per_token/tokens:{}{}", tokens, suffix)};
        speed.variant = name;
        set_times(speed, times, tokens);
        speed.bar = (tokens < 16384 ? 1.0 : 0.6) * (widest ? 1.0 : 2.0);
        speed.side = better::lower;
        speed.value = speed.own_ns_per_token();
        speed.baseline = "absolute: the indices of the best quarter, ns per score";
        const row like = speed;
        run.rows.add(std::move(speed));
        const auto against = [&](const char* rival, double bar, const char* what) {
            row gain = like;
            gain.name = fmt::format("topk/{}/tokens:{}{}", rival, tokens, suffix);
            gain.bar = widest ? bar : bar / 2.0;
            gain.side = better::higher;
            gain.value = times.ratio(rival, name);
            gain.spread = times.spread(rival, name);
            gain.baseline = what;
            if (agree) {
                run.rows.add(std::move(gain));
            } else {
                run.rows.add_void(std::move(gain), "it takes other scores");
            }
        };
        against("nth_element", 8.0, "std::nth_element over pairs of score and index, -O3");
        against("partial_sort", 40.0, "std::partial_sort of indices, -O3");
    }
}

} // namespace

void measure_topk(session& run) {
    for (const std::size_t tokens :
         std::initializer_list<std::size_t>{4096, 16384, 32768, 131072}) {
        measure_tokens(run, tokens);
    }
}

} // namespace kvcrush::bench
