#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds and runs the benchmarks. See --help.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../.ci/common.sh
. "$here/../.ci/common.sh"

usage() {
    cat <<'END'
usage: bench/run.sh --quick | --full [--json FILE] [--family NAMES] [--with-ggml]
       bench/run.sh [--json FILE] [--benchmark_OPTION]...

How fast is kvcrush, and is that as fast as it should be?

  --quick       the bars: what we promise about speed, as ratios to other code and to the limits of this machine, with
                fewer sizes, in under two minutes
  --full        the same with all sizes, in under forty minutes: figures to publish
  --json FILE   writes the results to FILE, too; of bars, a list of
                {"name", "value", "bar", "better", "holds", "baseline", ...} that bench/plot.py draws
  --family A,B  only these families of bars, for example score,topk; kvcrush_bars --help lists them
  --with-ggml   compares with ggml, too: fetches its sources (77 MB, by pip, checked) and builds them, once
  --help        this text

Without --quick and --full single functions are timed by Google Benchmark, each for at least 0.2 s. It takes options of
its own, for example --benchmark_filter=top_k. Its figures are times on this machine at this moment; bars are ratios of
what ran in turn, and mean the same elsewhere.

The library is compiled with -O2 and no -march, in build/bench, and runs on one CPU. See bench/README.md.
END
}

mode=bench
json=''
extra=()
family=''
with_ggml=false
while [[ $# -gt 0 ]]; do
    case $1 in
    --quick | --full)
        [[ $mode == bench || $mode == "$1" ]] || die 2 "--quick and --full exclude each other"
        mode=$1
        ;;
    --json)
        [[ $# -ge 2 && -n $2 ]] || die 2 "--json needs a file name"
        json=$2
        shift
        ;;
    --family)
        [[ $# -ge 2 && -n $2 ]] || die 2 "--family needs names, for example score,topk"
        family=$2
        shift
        ;;
    --with-ggml) with_ggml=true ;;
    --help | -h)
        usage
        exit 0
        ;;
    --benchmark_* | --v=*) extra+=("$1") ;;
    *) die 2 "unknown option '$1', allowed are --quick, --full, --json FILE, --family NAMES, --with-ggml, \
--benchmark_..., --help" ;;
    esac
    shift
done
if [[ $mode == bench ]]; then
    [[ -z $family ]] || die 2 "--family goes with --quick or --full"
    [[ $with_ggml == false ]] || die 2 "--with-ggml goes with --quick or --full"
    program=kvcrush_bench
    arguments=(--benchmark_min_time=0.2 "${extra[@]}")
else
    [[ ${#extra[@]} -eq 0 ]] || die 2 "${extra[0]} does not go with $mode: those are bars, without Google Benchmark"
    program=kvcrush_bars
    arguments=("$mode")
    [[ -z $family ]] || arguments+=(--family "$family")
fi
if [[ -n $json ]]; then
    [[ -d $(dirname "$json") && ! -d $json ]] || die 2 "--json '$json' is not a file in an existing folder"
    # Only a whole file takes the name that was asked for.
    trap 'rm -f "$json.part"' EXIT
    if [[ $mode == bench ]]; then
        arguments+=("--benchmark_out=$json.part" --benchmark_out_format=json)
    else
        arguments+=(--json "$json.part")
    fi
fi

need_build_tools
need_packages libbenchmark-dev libfmt-dev libcli11-dev nlohmann-json3-dev
# FAISS is one of the competitors. Everything else can be measured without it.
if [[ $mode != bench ]]; then
    (need_packages libfaiss-dev) || echo "without FAISS: the rows that compare with it will be void" >&2
fi

# Nobody waits for minutes of measurements to learn that the rows asked for are void.
ggml=''
if [[ $with_ggml == true ]]; then
    ggml=$("$here/fetch_ggml.sh") || die 2 "there is no ggml to compare with; without --with-ggml its rows are void"
fi

build_dir=$kvcrush_root/build/bench
configure "$build_dir" -DCMAKE_BUILD_TYPE=Release '-DCMAKE_CXX_FLAGS_RELEASE=-O2 -DNDEBUG' \
    -DKVCRUSH_BUILD_TESTS=OFF -DKVCRUSH_BUILD_EXAMPLES=OFF -DKVCRUSH_BUILD_BENCH=ON \
    "-DKVCRUSH_BENCH_GGML=$ggml"
cmake --build "$build_dir" --parallel "$num_jobs" --target "$program"

# On the last CPU that we may use: the first one serves most interrupts. kvcrush_bars sees to that itself, since one of
# its bars is about two threads.
pinned=()
if [[ $mode == bench ]] && command -v taskset >/dev/null; then
    cpus=$(taskset -pc $$ 2>/dev/null) && pinned=(taskset -c "${cpus##*[ ,-]}")
fi
governor=$(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null || echo unknown)
printf 'machine: %s, governor %s\ncompiler: %s, -O2\n' \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$governor" "$(g++ --version | head -n 1)" >&2

# Memory of std::vector on huge pages, as our own is (glibc 2.35 and newer).
export GLIBC_TUNABLES=glibc.malloc.hugetlb=1
"${pinned[@]}" "$build_dir/bench/$program" "${arguments[@]}"
if [[ -n $json ]]; then
    [[ -s $json.part ]] || die 2 "nothing was measured, $json is not written"
    mv -f "$json.part" "$json"
fi
