#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds and runs every test. See --help.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../.ci/common.sh
. "$here/../.ci/common.sh"

usage() {
    cat <<'END'
usage: tests/run.sh [--sanitize | --clang | --arm | --llama] [--filter REGEX]

  (nothing)       g++ -O2, asserts on, no -march: everything, in build/tests-gcc
  --clang         the same with clang++, in build/tests-clang
  --sanitize      g++ with address and undefined-behaviour sanitizers, in build/tests-sanitize; without the tests on
                  the real model, the numbered examples, the consumers and the compile checks
  --arm           for 64-bit Arm with NEON by Debian's cross compiler, run by qemu, in build/tests-arm; without what
                  --sanitize leaves out and without properties (rapidcheck)
  --llama         the library inside llama.cpp, which is fetched (77 MB) and built for it, in build/llama_cpp; also on
                  Gemma 3 where examples/llama_cpp/fetch_gemma.sh has fetched it before
  --filter REGEX  only suites whose name matches (as ctest -R)
  --help          this text

Installs missing Debian packages and fetches the model (98 MB) once. Needs no network after that. Says which stage it is
in and how long each took; from scratch on two cores all takes a quarter of an hour. The last line is ctest's summary, or
names the stage that failed. The sources of one folder are compiled together; -DKVCRUSH_JOIN_TESTS=OFF for a build
directory compiles one by one, which is quicker for somebody who edits a single test. One case of a suite:
build/tests-gcc/tests/kvcrush_tests --gtest_filter=SUITE.CASE
END
}

variant=gcc
filter=()
while [[ $# -gt 0 ]]; do
    case $1 in
    --sanitize | --clang | --arm | --llama)
        [[ $variant == gcc || $variant == "${1#--}" ]] || die 2 "--sanitize, --clang, --arm and --llama exclude each other"
        variant=${1#--}
        ;;
    --filter)
        [[ $# -ge 2 && -n $2 ]] || die 2 "--filter needs a regular expression"
        filter=(-R "$2")
        shift
        ;;
    --help | -h)
        usage
        exit 0
        ;;
    *) die 2 "unknown option '$1', allowed are --sanitize, --clang, --arm, --llama, --filter REGEX, --help" ;;
    esac
    shift
done

build_dir=$kvcrush_root/build/tests-$variant
[[ $variant != llama ]] || build_dir=$kvcrush_root/build/llama_cpp/kvcrush
mkdir -p "$build_dir"
log=$build_dir/ctest.log                       # what ctest says
details=$build_dir/Testing/Temporary/LastTest.log # what the tests say
rm -f "$log" "$details" "$build_dir/summary.txt"

# summary: skipped and failed tests, time of each stage; at last ctest's own line
summary() {
    printf '\n=== summary of tests/run.sh, %s\n%s' "$variant" "$stage_times"
    if [[ -e $log ]]; then
        printf 'skipped:\n'
        sed -n 's/^\[  SKIPPED \] \([^ ]*\)$/  \1/p; s/^[[:space:]]*[0-9]* - \(.*\) (Skipped)$/  \1/p' "$details" "$log" |
            sort -u | grep . || echo '  none'
        sed -n 's/^\[  FAILED  \] \([^ ,]*\.[^ ,]*\).*/failed: \1/p' "$details" | sort -u
        sed -n 's/^[[:space:]]*[0-9]* - \(.*\) (\(Failed\|Timeout\|Not Run\|[A-Z]*\).*)$/failed: \1 (\2)/p' "$log"
        echo "cases of GoogleTest in these tests: $(grep -c '^\[ RUN  ' "$details" || true)"
    fi
    grep 'tests passed,' "$log" 2>/dev/null || echo 'no test was run'
    [[ $1 == 0 ]] || echo "failed: $stage"
}
finish() {
    local status=$?
    end_stage
    summary "$status" | tee "$build_dir/summary.txt"
    exit "$status"
}
trap finish EXIT

begin_stage 'packages and model'
need_build_tools
need_packages libcli11-dev nlohmann-json3-dev libfmt-dev libicu-dev libgtest-dev libgmock-dev librapidcheck-dev
compiler=g++
flags='-O2'
target=all
exclude=()
options=(-DKVCRUSH_BUILD_EXAMPLES=ON)
case $variant in
clang)
    need_packages clang++=clang
    (need_packages libomp-dev) || echo "going on without libomp-dev: the lab then runs on one thread" >&2
    compiler=clang++
    ;;
sanitize)
    # Null pointers and accesses beyond an object are what the address sanitizer finds anyway; checking them twice makes
    # the kernels of attend/ take minutes to compile. So does -O1, by half, against -Og.
    flags='-Og -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all'
    flags+=' -fno-sanitize=null,object-size'
    target=kvcrush_test_programs
    exclude=(-LE '^(model|example|consumer|compile)$')
    ;;
arm)
    need_packages aarch64-linux-gnu-g++=g++-aarch64-linux-gnu qemu-aarch64=qemu-user googletest
    compiler=aarch64-linux-gnu-g++
    # Linked statically: qemu then needs no libraries of the other architecture.
    cross=(-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$compiler
        -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_EXE_LINKER_FLAGS=-static)
    options=("${cross[@]}" -DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64 "-DCMAKE_PREFIX_PATH=$build_dir/googletest"
        -DCMAKE_DISABLE_FIND_PACKAGE_rapidcheck=ON -DKVCRUSH_BUILD_EXAMPLES=OFF)
    target=kvcrush_test_programs
    exclude=(-LE '^(model|example|consumer|compile)$')
    ;;
esac
if [[ $variant == llama ]]; then
    exclude=(-L '^llama$')
fi
if [[ $variant != sanitize && $variant != arm ]]; then
    need_packages python3=python3 python3-pip unzip=unzip
    # Without the model its tests fail and say so; the others are still worth running.
    KVCRUSH_MODEL=$("$kvcrush_root/examples/fetch_model.sh") || KVCRUSH_MODEL=''
    export KVCRUSH_MODEL
fi

if [[ $variant == llama ]]; then
    gemma=${KVCRUSH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvcrush}/gemma-3-270m-q4_k_m.gguf
    if [[ -z ${KVCRUSH_GEMMA:-} && -e $gemma ]]; then
        export KVCRUSH_GEMMA=$gemma
    fi
    begin_stage build
    "$kvcrush_root/examples/llama_cpp/build.sh" --no-tools --with-tests ggml-kvcrush
else
    if [[ $variant == arm ]]; then
        begin_stage 'GoogleTest for Arm'
        cmake -S /usr/src/googletest -B "$build_dir/googletest-build" --log-level=NOTICE "${cross[@]}" \
            -DCMAKE_BUILD_TYPE=Release "-DCMAKE_INSTALL_PREFIX=$build_dir/googletest"
        cmake --build "$build_dir/googletest-build" --parallel "$num_jobs" --target install >/dev/null
    fi

    begin_stage configure
    # An empty build type: CMake adds neither -O3 nor NDEBUG, so that KVCRUSH_ASSERT is checked.
    configure "$build_dir" -DCMAKE_BUILD_TYPE= "-DCMAKE_CXX_COMPILER=$compiler" "-DCMAKE_CXX_FLAGS=$flags" \
        -DKVCRUSH_BUILD_TESTS=ON "${options[@]}" -DCMAKE_EXPORT_COMPILE_COMMANDS=ON

    begin_stage build
    cmake --build "$build_dir" --parallel "$num_jobs" --target "$target"
fi

begin_stage tests
# Waiting threads yield: where other work runs on the same cores, spinning costs ten times the work itself.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
ctest --test-dir "$build_dir" --output-on-failure --no-tests=error -j"$num_jobs" --output-log "$log" \
    "${filter[@]}" "${exclude[@]}"
