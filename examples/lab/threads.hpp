// SPDX-License-Identifier: Apache-2.0
/// @file
/// How many threads share the work (OpenMP's number, or one in a build without OpenMP), and how they wait.
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

/// Sees to it that threads which wait for the others spin for some 50 microseconds and then sleep; to be called before
/// any work. Starts the program anew once, since OpenMP reads its environment before main(); a user's own choice there
/// (OMP_WAIT_POLICY, GOMP_SPINCOUNT, KMP_...) stands.
///
/// By default GNU's OpenMP spins for milliseconds. Each of the some 200 waits per token then takes a core from a thread
/// that has work: on two cores that were busy otherwise too, tokens fell from 15 to 25 a second to 0.1 to 0.7. Sleeping
/// at once makes decoding a third slower.
/// @param argv  of main()
void wait_briefly(char** argv);

/// 0 to max_threads() - 1, inside a parallel loop.
[[nodiscard]] inline std::size_t this_thread() noexcept {
#ifdef _OPENMP
    return static_cast<std::size_t>(omp_get_thread_num());
#else
    return 0;
#endif
}

} // namespace lab
