// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/simd/isa.hpp>

#include "bars.hpp"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <malloc.h>
#include <sched.h>
#include <string>
#include <vector>

namespace kvcrush::bench {

namespace {

double started = 0.0;

std::vector<int> find_usable_cpus() {
    cpu_set_t set;
    CPU_ZERO(&set);
    std::vector<int> cpus;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        for (int cpu = CPU_SETSIZE - 1; cpu >= 0; --cpu) {
            if (CPU_ISSET(cpu, &set)) {
                cpus.push_back(cpu);
            }
        }
    }
    return cpus;
}

const std::vector<int>& usable_cpus() {
    static const std::vector<int> cpus = find_usable_cpus(); // before anything is pinned
    return cpus;
}

} // namespace

std::size_t num_usable_cpus() { return (std::max)(usable_cpus().size(), std::size_t{1}); }

void pin_to_cpu(std::size_t n) {
    if (usable_cpus().empty()) {
        return;
    }
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(usable_cpus()[n % usable_cpus().size()], &set);
    sched_setaffinity(0, sizeof set, &set); // without it the figures are noisier, not wrong
}

void session::progress(std::string_view what) const {
    fmt::print(stderr, "[{:6.1f} s] {}\n", wall_seconds() - started, what);
}

const std::vector<family>& families() {
    static const std::vector<family> all{
        {"hamming",
         "distances of many codes: against the bandwidth of the machine, compiled loops, FAISS",
         measure_hamming},
        {"signature", "32 heads become 32-bit codes: thresholds and packing", measure_signature},
        {"grouping", "tokens in the order of their distances; representatives", measure_grouping},
        {"score",
         "scoring by the last queries and by keys alone: products, softmax, pooling, norms",
         measure_score},
        {"topk", "the best quarter of the scores", measure_topk},
        {"compact", "kept rows moved together", measure_compact},
        {"select",
         "whole selections: growth with the tokens, the published block-level algorithm",
         measure_select},
        {"share", "scoring, selecting and compacting a layer, over its prefill", measure_share},
        {"stream", "a decode step after a page was appended", measure_stream},
        {"threads", "the layers of a model on two threads", measure_threads},
        {"attend",
         "a decode step over dense and encoded rows: bandwidth, codecs, eviction, growth, threads",
         measure_attend},
        {"tiles", "a decode step over tiles of codes, on every rung", measure_tiles},
        {"encode", "rows become int8, q4_0 and the other codecs, in cache", measure_encode}};
    return all;
}

namespace {

constexpr const char* about =
    R"(Measures kvcrush against its bars, and prints one row per bar, size and width.

Everything runs in one process on one CPU. What is compared takes turns: each contestant warms up with one call and is
then timed, again and again, and a row shows the ratio of the medians of their CPU times. So a row means the same on a
busy machine, while ns/token do not. "+-" is half the distance between the quartiles of single rounds. A row that could
not be measured is void, does not hold and says why. Progress goes to stderr, the table to stdout.

Examples:
  kvcrush_bars --quick
  kvcrush_bars --full --json bars.json && bench/plot.py bars.json bars.svg
  kvcrush_bars --quick --family hamming,grouping)";

int run(int argc, char** argv) {
    CLI::App app(about, "kvcrush_bars");
    bool quick = false;
    bool full = false;
    bool without_avx512 = false;
    std::string json;
    std::vector<std::string> wanted;
    std::string names;
    for (const family& one : families()) {
        names += fmt::format("\n  {:<10} {}", one.name, one.about);
    }
    auto* quick_flag =
        app.add_flag("--quick",
                     quick,
                     "fewer sizes and rounds, under two minutes: does everything run, how fast?");
    app.add_flag("--full", full, "all sizes, under forty minutes: figures to publish")
        ->excludes(quick_flag);
    app.add_option("--json", json, "write the rows to this file, too, as a list of objects");
    app.add_option("--family", wanted, "measure only these:" + names)
        ->delimiter(',')
        ->check([](const std::string& name) {
            std::string known;
            for (const family& one : families()) {
                if (one.name == name) {
                    return std::string();
                }
                known += fmt::format(" {}", one.name);
            }
            return fmt::format("there is no family '{}', but{}", name, known);
        });
    app.add_flag("--without-avx512",
                 without_avx512,
                 "skip the rows about AVX-512 kernels, as on machines that have none");
    try {
        app.parse(argc, argv);
        if (!quick && !full) {
            throw CLI::RequiredError("--quick or --full");
        }
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }

    std::ofstream file;
    if (!json.empty()) {
        file.open(json, std::ios::binary);
        if (!file) {
            fmt::print(stderr, "kvcrush_bars: cannot write '{}': {}\n", json, std::strerror(errno));
            return 2;
        }
    }

    started = wall_seconds();
    pin_to_cpu(0);
#ifdef M_MMAP_THRESHOLD
    // Vectors of competitors get their memory back from call to call, not from the system.
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
    report rows;
    session now{.full = full,
                .avx512 = !without_avx512 && simd::best() == simd::isa::avx512,
                .limits = full ? effort{.min_rounds = 11,
                                        .max_rounds = 101,
                                        .seconds = 4.0,
                                        .sample_seconds = 200e-6}
                               : effort{},
                .rows = rows};
    fmt::print("kernels: {}{}\n",
               simd::name_of(simd::best()),
               now.avx512 ? "" : ", rows about AVX-512 are skipped");
    for (const family& one : families()) {
        if (wanted.empty() || std::find(wanted.begin(), wanted.end(), one.name) != wanted.end()) {
            const std::size_t begin = rows.size();
            one.measure(now);
            rows.group(begin);
            rows.print(stdout, begin);
            std::fflush(stdout);
        }
    }
    rows.print_summary(stdout);

    if (file.is_open()) {
        file << rows.to_json();
        file.close();
        if (!file) {
            fmt::print(stderr, "kvcrush_bars: could not write all of '{}'\n", json);
            return 2;
        }
    }
    return 0;
}

} // namespace
} // namespace kvcrush::bench

int main(int argc, char** argv) {
    try {
        return kvcrush::bench::run(argc, argv);
    } catch (const std::exception& error) {
        fmt::print(stderr, "kvcrush_bars: {}\n", error.what());
        return 1;
    }
}
