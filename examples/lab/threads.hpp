// SPDX-License-Identifier: Apache-2.0
/// @file
/// How many threads share the work: OpenMP's number, or one in a build without OpenMP.
#pragma once

#include <cstddef>

#ifdef _OPENMP
#    include <omp.h>
#endif

namespace lab {

[[nodiscard]] inline std::size_t max_threads() noexcept {
#ifdef _OPENMP
    return static_cast<std::size_t>(omp_get_max_threads());
#else
    return 1;
#endif
}

/// 0 to max_threads() - 1, inside a parallel loop.
[[nodiscard]] inline std::size_t this_thread() noexcept {
#ifdef _OPENMP
    return static_cast<std::size_t>(omp_get_thread_num());
#else
    return 0;
#endif
}

} // namespace lab
