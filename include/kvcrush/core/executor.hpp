// SPDX-License-Identifier: Apache-2.0
/// @file
/// How work is spread over a caller's threads. The library starts none of its own.
#pragma once

#include <kvcrush/core/error.hpp>

#include <concepts>
#include <cstddef>
#include <span>
#include <utility>

namespace kvcrush {
inline namespace v0 {

/// Runs task(0) ... task(num_tasks - 1), each once, on any threads and in any order, and returns when all are done.
///
///     auto executor = [&](std::size_t num_tasks, const auto& task) { pool.parallel_for(num_tasks, task); };
/// Tasks are noexcept and const; answers do not depend on how they are run.
template <typename E>
concept Executor = requires(E& execute, std::size_t num_tasks, void (&task)(std::size_t)) {
    execute(num_tasks, task);
};

/// One after the other, on the calling thread.
struct serial_executor {
    template <typename Task>
    void operator()(std::size_t num_tasks, const Task& task) const noexcept {
        for (std::size_t i = 0; i < num_tasks; ++i) {
            task(i);
        }
    }
};
static_assert(Executor<serial_executor>);

/// Spreads layers over lanes, each lane having its own state, such as a compressor: lane i works on the layers i,
/// i + lanes.size(), ... one after the other.
///
///     std::vector<decltype(crush)> lanes(num_threads, crush);
///     for_each_layer(executor, num_layers, std::span(lanes), [&](std::size_t layer, auto& lane) {
///         compact(kv[layer], lane.select(kv[layer], queries[layer]));
///     });
/// @param work  work(layer, lane), noexcept in effect: nobody catches what it throws
/// @throws std::invalid_argument if there are layers and no lane; what the executor throws
template <Executor E, typename Lane, typename Work>
void for_each_layer(E&& execute, std::size_t num_layers, std::span<Lane> lanes, const Work& work) {
    const std::size_t num_lanes = lanes.size();
    detail::require(num_lanes > 0 || num_layers == 0,
                    "for_each_layer: there is no lane to work on ",
                    num_layers,
                    " layers");
    const auto task = [&](std::size_t lane) noexcept {
        for (std::size_t layer = lane; layer < num_layers; layer += num_lanes) {
            work(layer, lanes[lane]);
        }
    };
    execute(num_lanes, task);
}

} // namespace v0
} // namespace kvcrush
