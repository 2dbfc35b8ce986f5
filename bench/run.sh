#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds and runs the benchmarks. See --help.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../.ci/common.sh
. "$here/../.ci/common.sh"

usage() {
    cat <<'END'
usage: bench/run.sh [--quick | --full] [--json FILE] [OPTION OF Google Benchmark]...

  (nothing)     each case for at least 0.2 s
  --quick       five repetitions of 0.005 s, in random order, under two minutes: does everything run, roughly how fast?
  --full        five repetitions of 0.5 s, in random order; mean, median and spread are reported: figures to publish
  --json FILE   writes the results to FILE, too
  --help        this text

Further options go to the program, for example --benchmark_filter=hamming. The library is compiled with -O2 and no
-march, in build/bench, and runs on one CPU.
END
}

amount=(--benchmark_min_time=0.2)
json=''
extra=()
while [[ $# -gt 0 ]]; do
    case $1 in
    --quick)
        amount=(--benchmark_min_time=0.005 --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
                --benchmark_enable_random_interleaving=true)
        ;;
    --full)
        amount=(--benchmark_min_time=0.5 --benchmark_repetitions=5 --benchmark_report_aggregates_only=true
                --benchmark_enable_random_interleaving=true)
        ;;
    --json)
        [[ $# -ge 2 && -n $2 ]] || die 2 "--json needs a file name"
        json=$2
        shift
        ;;
    --help | -h)
        usage
        exit 0
        ;;
    --benchmark_* | --v=*) extra+=("$1") ;;
    *) die 2 "unknown option '$1', allowed are --quick, --full, --json FILE, --benchmark_..., --help" ;;
    esac
    shift
done
if [[ -n $json ]]; then
    [[ -d $(dirname "$json") && ! -d $json ]] || die 2 "--json '$json' is not a file in an existing folder"
    # Only a whole file takes the name that was asked for.
    trap 'rm -f "$json.part"' EXIT
    extra+=("--benchmark_out=$json.part" --benchmark_out_format=json)
fi

need_build_tools
need_packages libbenchmark-dev libfmt-dev

build_dir=$kvcrush_root/build/bench
configure "$build_dir" -DCMAKE_BUILD_TYPE=Release '-DCMAKE_CXX_FLAGS_RELEASE=-O2 -DNDEBUG' \
    -DKVCRUSH_BUILD_TESTS=OFF -DKVCRUSH_BUILD_EXAMPLES=OFF -DKVCRUSH_BUILD_BENCH=ON
cmake --build "$build_dir" --parallel "$num_jobs" --target kvcrush_bench

# On the last CPU that we may use: the first one serves most interrupts.
pinned=()
if command -v taskset >/dev/null; then
    cpus=$(taskset -pc $$ 2>/dev/null) && pinned=(taskset -c "${cpus##*[ ,-]}")
fi
governor=$(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null || echo unknown)
printf 'machine: %s, governor %s\ncompiler: %s, -O2\n' \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$governor" "$(g++ --version | head -n 1)" >&2

"${pinned[@]}" "$build_dir/bench/kvcrush_bench" "${amount[@]}" "${extra[@]}"
if [[ -n $json ]]; then
    [[ -s $json.part ]] || die 2 "no benchmark was run, $json is not written"
    mv -f "$json.part" "$json"
fi
