// SPDX-License-Identifier: Apache-2.0
/// @file
/// The families of bars. Each has a file of its own, bars_<family>.cpp.
#pragma once

#include "measure.hpp"
#include "report.hpp"

#include <string_view>
#include <vector>

namespace kvcrush::bench {

/// What a family is told, and where it reports to.
struct session {
    bool full = false;   ///< all sizes, or fewer
    bool avx512 = false; ///< rows that are about AVX-512 kernels are measured
    effort limits{};
    report& rows;

    /// Tells the user what is being measured.
    void progress(std::string_view what) const;
};

void measure_hamming(session& run);
void measure_signature(session& run);
void measure_grouping(session& run);
void measure_score(session& run);
void measure_topk(session& run);
void measure_compact(session& run);
void measure_select(session& run);
void measure_share(session& run);
void measure_stream(session& run);
void measure_threads(session& run);
void measure_attend(session& run);
void measure_tiles(session& run);
void measure_encode(session& run);

struct family {
    std::string_view name;
    std::string_view about;
    void (*measure)(session& run);
};

/// All families, in the order in which they run.
[[nodiscard]] const std::vector<family>& families();

/// The CPUs this process could use when it started.
[[nodiscard]] std::size_t num_usable_cpus();
/// Keeps the calling thread on the n-th of them, counted from the last one: the first serves most interrupts.
void pin_to_cpu(std::size_t n);

} // namespace kvcrush::bench
