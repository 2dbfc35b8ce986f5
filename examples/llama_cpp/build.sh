#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# llama.cpp, unmodified, and what this project has for it. See --help.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../.ci/common.sh
. "$here/../../.ci/common.sh"

usage() {
    cat <<'END'
usage: examples/llama_cpp/build.sh [--llama-cpp DIR [--llama-cpp-build DIR]] [--no-tools | --ggml-only] [--with-tests]
                                   [TARGET]...

  TARGET                 what to build of this project: ggml-kvcrush (the backend), kvcrush-llama-bench, kvcrush-llama;
                         without one these three
  --llama-cpp DIR        sources of your own, already built; without it some are fetched once (77 MB)
  --llama-cpp-build DIR  where they were built, if not in build/ beside them
  --no-tools             of llama.cpp the libraries alone, without llama-bench, llama-perplexity, llama-quantize,
                         llama-server, llama-cli
  --ggml-only            not even libllama: enough for the backend and for kvcrush_llama_node_tests
  --with-tests           the tests of all three as well

Builds into build/llama_cpp: llama.cpp about four minutes on two cores (one without its tools), the rest two; little or
nothing when run again. The last lines name what was built. Installs missing Debian packages.
END
}

llama_cpp=''
llama_build=''
libraries=llama
with_tests=false
tools=(llama-bench llama-perplexity llama-quantize llama-cli llama-server)
targets=()
while [[ $# -gt 0 ]]; do
    case $1 in
    --llama-cpp | --llama-cpp-build)
        [[ $# -ge 2 && -n $2 ]] || die 2 "$1 needs a folder"
        [[ -d $2 ]] || die 2 "$1 names no folder: '$2'"
        folder=$(cd "$2" && pwd)
        if [[ $1 == --llama-cpp ]]; then llama_cpp=$folder; else llama_build=$folder; fi
        shift
        ;;
    --no-tools) tools=() ;;
    --ggml-only)
        libraries=ggml
        tools=()
        ;;
    --with-tests) with_tests=true ;;
    --help | -h)
        usage
        exit 0
        ;;
    -*) die 2 "unknown option '$1', allowed are --llama-cpp DIR, --llama-cpp-build DIR, --no-tools," \
        "--ggml-only, --with-tests, --help" ;;
    *) targets+=("$1") ;;
    esac
    shift
done
[[ -n $llama_cpp || -z $llama_build ]] || die 2 "--llama-cpp-build goes with --llama-cpp"
if [[ ${#targets[@]} == 0 ]]; then
    targets=(ggml-kvcrush kvcrush-llama-bench kvcrush-llama)
fi
if $with_tests; then
    targets+=(kvcrush_llama_tests)
fi

need_build_tools
need_packages libcli11-dev nlohmann-json3-dev libfmt-dev libicu-dev python3=python3 python3-pip
[[ " ${targets[*]} " != *tests* ]] || need_packages libgtest-dev libgmock-dev

work=$kvcrush_root/build/llama_cpp
mkdir -p "$work"
if [[ -z $llama_cpp ]]; then
    archive=$("$here/fetch.sh")
    llama_cpp=$work/llama.cpp
    if [[ $(cat "$work/unpacked" 2>/dev/null) != "${archive##*/}" ]]; then
        echo "unpacking ${archive##*/}" >&2
        rm -rf "$llama_cpp" "$work/unpacked"
        tar -xzf "$archive" -C "$work" --strip-components=2 --wildcards '*/vendor/llama.cpp/*'
        printf '%s' "${archive##*/}" >"$work/unpacked"
    fi
    llama_build=$work/llama-build
    generator=()
    launcher=''
    if [[ ! -e $llama_build/CMakeCache.txt ]] && command -v ninja >/dev/null; then
        generator=(-G Ninja)
    fi
    if command -v ccache >/dev/null; then
        launcher=ccache
    fi
    echo "building llama.cpp (a minute, four with its tools)" >&2
    cmake -S "$llama_cpp" -B "$llama_build" "${generator[@]}" --log-level=ERROR -DCMAKE_BUILD_TYPE=Release \
        "-DCMAKE_CXX_COMPILER_LAUNCHER=$launcher" "-DCMAKE_C_COMPILER_LAUNCHER=$launcher" \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF \
        -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
        -DLLAMA_BUILD_COMMIT=0c1e57098 -DLLAMA_BUILD_NUMBER=0 >&2
    cmake --build "$llama_build" --parallel "$num_jobs" --target "$libraries" "${tools[@]}" >&2
else
    llama_build=${llama_build:-$llama_cpp/build}
fi

echo "building ${targets[*]} (two minutes the first time)" >&2
build_dir=$work/kvcrush
tests=OFF
[[ " ${targets[*]} " != *tests* ]] || tests=ON
configure "$build_dir" -DCMAKE_BUILD_TYPE=Release "-DKVCRUSH_BUILD_TESTS=$tests" -DKVCRUSH_BUILD_EXAMPLES=ON \
    "-DLLAMA_CPP_DIR=$llama_cpp" "-DLLAMA_CPP_BUILD=$llama_build" >&2
cmake --build "$build_dir" --parallel "$num_jobs" --target "${targets[@]}" >&2
printf 'llama.cpp: %s\n' "$llama_build/bin"
printf 'backend: %s\n' "$build_dir/examples/llama_cpp/backend/libggml-kvcrush.so"
