// SPDX-License-Identifier: Apache-2.0
// select/threads2: the layers of a model on two threads, against one.
#include <kvcrush/core/executor.hpp>

#include "bars.hpp"
#include "layer_scores.hpp"
#include "pinned_threads.hpp"

#include <fmt/format.h>

#include <atomic>
#include <deque>
#include <span>
#include <vector>

namespace kvcrush::bench {

void measure_threads(session& run) {
    constexpr std::size_t tokens = 32768;
    constexpr std::size_t num_layers = 32;
    row one{.name = fmt::format("select/threads2/tokens:{}", tokens)};
    one.variant = "two";
    one.bar = 1.8;
    one.baseline =
        fmt::format("{} layers of {} tokens on one thread, time on the wall", num_layers, tokens);
    run.progress(one.name);
    if (num_usable_cpus() < 2) {
        run.rows.add_void(std::move(one), "this process may use one CPU only");
        return;
    }
    const layer_scores scores(tokens, num_layers);
    std::deque<selecting_lane> lanes; // a lane cannot move: others point into its memory
    lanes.emplace_back(tokens);
    lanes.emplace_back(tokens);
    std::vector<selecting_lane*> both{&lanes[0], &lanes[1]};
    std::atomic<std::size_t> kept{0};
    const auto select = [&](std::size_t num_threads) {
        for_each_layer(pinned_threads{},
                       num_layers,
                       std::span(both).first(num_threads),
                       [&](std::size_t layer, selecting_lane* lane) {
                           kept += lane->select(scores, layer).total();
                       });
    };
    round_robin turns(run.limits, wall_seconds);
    turns.add("one", [&](std::size_t) { select(1); });
    turns.add("two", [&](std::size_t) { select(2); });
    const timings times = turns.run();
    set_times(one, times, num_layers * tokens);
    one.value = times.ratio("one", "two");
    one.spread = times.spread("one", "two");
    run.rows.add(std::move(one));
}

} // namespace kvcrush::bench
