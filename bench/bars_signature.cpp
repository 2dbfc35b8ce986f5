// SPDX-License-Identifier: Apache-2.0
// signature/32heads: the best half of the tokens of each of 32 heads, as one code of 32 bits per token.
#include <kvcrush/core/budget.hpp>
#include <kvcrush/core/head_scores.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/core/scratch.hpp>
#include <kvcrush/signature/head_signature.hpp>

#include "bars.hpp"
#include "baseline_standard.hpp"
#include "huge_buffer.hpp"

#include <fmt/format.h>

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

namespace kvcrush::bench {
namespace {

constexpr std::size_t num_heads = 32;

void measure_tokens(session& run, std::size_t tokens) {
    run.progress(fmt::format("signature tokens:{}", tokens));
    // One matrix of 32K tokens is a million scores; the branches of nth_element shall not learn even that one.
    constexpr std::size_t num_matrices = 3;
    const std::size_t size = num_heads * tokens;
    huge_buffer<float> scores(num_matrices * size);
    for (std::size_t i = 0; i < scores.size(); ++i) {
        const float x = random_unit(5, 0, i);
        scores.data()[i] = x * x * x; // skewed, as attention is
    }
    huge_buffer<std::uint32_t> codes(tokens);
    huge_buffer<std::uint32_t> naive_codes(tokens);
    huge_buffer<float> row_copy(tokens);
    std::vector<float> thresholds(num_heads);
    const head_signature signature{};
    const areas area({0, 0}, tokens);
    std::vector<std::byte> room(signature.scratch_bytes(num_heads));
    const auto matrix = [&](std::size_t turn) {
        return scores.span().subspan(turn % num_matrices * size, size);
    };
    const auto ours = [&](std::size_t turn) {
        signature.build(const_head_scores(matrix(turn), num_heads, tokens),
                        area,
                        codes.span(),
                        scratch(std::span(room)));
    };
    const auto naive = [&](std::size_t turn) {
        nth_element_codes(matrix(turn).data(),
                          num_heads,
                          tokens,
                          thresholds.data(),
                          row_copy.data(),
                          naive_codes.data());
    };

    // nth_element marks all of several equal scores at the threshold, we the earlier ones.
    ours(0);
    naive(0);
    std::size_t different = 0;
    for (std::size_t t = 0; t < tokens; ++t) {
        different += codes.data()[t] != naive_codes.data()[t] ? 1U : 0U;
    }

    round_robin turns(run.limits);
    turns.add("ours", ours);
    turns.add("nth_element", naive);
    const timings times = turns.run();

    row speed{.name = fmt::format("signature/32heads/ns_per_token/tokens:{}", tokens)};
    speed.variant = "ours";
    speed.bits = num_heads;
    set_times(speed, times, tokens);
    speed.bar = 25.0;
    speed.side = better::lower;
    speed.value = speed.own_ns_per_token();
    speed.baseline = "absolute: thresholds and packing, ns per token";
    row gain = speed;
    gain.name = fmt::format("signature/32heads/nth_element/tokens:{}", tokens);
    gain.bar = 10.0;
    gain.side = better::higher;
    gain.value = times.ratio("nth_element", "ours");
    gain.spread = times.spread("nth_element", "ours");
    gain.baseline = "std::nth_element per head, one comparison per head and token";
    run.rows.add(std::move(speed));
    if (different > num_heads) {
        run.rows.add_void(std::move(gain), fmt::format("{} of {} codes differ", different, tokens));
    } else {
        run.rows.add(std::move(gain));
    }
}

} // namespace

void measure_signature(session& run) {
    for (const std::size_t tokens : std::initializer_list<std::size_t>{32768, 131072}) {
        measure_tokens(run, tokens);
    }
}

} // namespace kvcrush::bench
