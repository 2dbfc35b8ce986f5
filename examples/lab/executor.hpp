// SPDX-License-Identifier: Apache-2.0
/// @file
/// Lends the library the threads of OpenMP.
#pragma once

#include "threads.hpp"

#include <algorithm>
#include <cstddef>

namespace lab {

struct openmp_executor {
    template <typename Task>
    void operator()(std::size_t num_tasks, const Task& task) const noexcept {
#ifdef _OPENMP
#    pragma omp parallel for schedule(static, 1) if (num_tasks > 1)
#endif
        for (std::size_t i = 0; i < num_tasks; ++i) {
            task(i);
        }
    }
};

/// Threads that attending to so many rows pays for: waking one takes as long as some thousand rows.
[[nodiscard]] inline std::size_t lanes_for(std::size_t num_rows) noexcept {
    constexpr std::size_t rows_per_thread = 8192;
    return (std::min)(max_threads(), 1 + num_rows / rows_per_thread);
}

} // namespace lab
