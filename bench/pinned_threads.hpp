// SPDX-License-Identifier: Apache-2.0
/// @file
/// The executor of bars that compare one thread with several.
#pragma once

#include "bars.hpp"

#include <cstddef>
#include <thread>
#include <vector>

namespace kvcrush::bench {

/// A thread per task, each on a CPU of its own. The caller works, too, and waits for the others at the end.
struct pinned_threads {
    template <typename Task>
    void operator()(std::size_t num_tasks, const Task& task) const {
        std::vector<std::thread> others;
        for (std::size_t i = 1; i < num_tasks; ++i) {
            others.emplace_back([&task, i] {
                pin_to_cpu(i);
                task(i);
            });
        }
        task(0);
        for (std::thread& other : others) {
            other.join();
        }
    }
};

} // namespace kvcrush::bench
