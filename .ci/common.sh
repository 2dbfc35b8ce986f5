# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by tests/run.sh, bench/run.sh and examples/quickstart.sh: packages, one way to call CMake.

kvcrush_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # used by those who source this
num_jobs=$(nproc 2>/dev/null || echo 2)

# die STATUS MESSAGE...
die() {
    local status=$1
    shift
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit "$status"
}

# begin_stage NAME, end_stage: one line when a stage begins, and in $stage_times one for each that has ended. $stage keeps
# the name of the last one.
stage=''
stage_times=''
begin_stage() {
    end_stage
    stage=$1
    stage_began=$SECONDS
    printf '\n=== %s (%s since the start)\n' "$stage" "$(minutes "$SECONDS")"
}
end_stage() {
    if [[ -n ${stage_began:-} ]]; then
        stage_times+=$(printf '%6s  %s' "$(minutes $((SECONDS - stage_began)))" "$stage")$'\n'
        stage_began=''
    fi
}
minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); } # SECONDS

# need_packages [PROGRAM=]PACKAGE...
# Installs the Debian packages that are missing; where PROGRAM= is given, any program of that name will do.
# Without the right to install it names them and exits with 2. Asks nothing of the network when nothing is missing.
need_packages() {
    local entry log
    local missing=() as_root=()
    for entry in "$@"; do
        if [[ $entry == *=* ]] && command -v "${entry%%=*}" >/dev/null; then
            continue
        fi
        if [[ $(dpkg-query -W -f='${Status}' "${entry#*=}" 2>/dev/null) != *'ok installed'* ]]; then
            missing+=("${entry#*=}")
        fi
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0

    if ! command -v apt-get >/dev/null; then
        echo "not a Debian system, please see to it that it has what Debian calls: ${missing[*]}" >&2
        return 0
    fi
    if [[ $EUID -ne 0 ]]; then
        if command -v sudo >/dev/null && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; then
            as_root=(sudo)
        else
            die 2 "missing Debian packages, to be installed as root: apt-get install ${missing[*]}"
        fi
    fi
    echo "installing Debian packages: ${missing[*]}" >&2
    local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120
                   install -y --no-install-recommends "${missing[@]}")
    # The lists of a fresh machine are empty, those of an old one name files that are gone: try, update, try again.
    if ! "${install[@]}" >/dev/null 2>&1; then
        "${as_root[@]}" apt-get update >/dev/null 2>&1 || true
        log=$("${install[@]}" 2>&1) ||
            die 2 "could not install Debian packages: ${missing[*]} ($(grep '^E:' <<<"$log" | head -n 1))"
    fi
}

# need_build_tools: what every build needs
need_build_tools() {
    local make=(make=make)
    if command -v ninja >/dev/null; then
        make=()
    fi
    need_packages g++=g++ cmake=cmake "${make[@]}" libeigen3-dev
}

# configure BUILD_DIR [CMAKE ARGUMENTS...]
# With CI=true in the environment a warning is an error. A user's compiler may know warnings that we have not seen.
configure() {
    local build_dir=$1 launcher=''
    local generator=()
    shift
    if [[ ! -e $build_dir/CMakeCache.txt && -z ${CMAKE_GENERATOR:-} ]] && command -v ninja >/dev/null; then
        generator=(-G Ninja)
    fi
    if command -v ccache >/dev/null; then
        launcher=ccache
    fi
    cmake -S "$kvcrush_root" -B "$build_dir" "${generator[@]}" --log-level=NOTICE \
        "-DCMAKE_CXX_COMPILER_LAUNCHER=$launcher" "-DCMAKE_COMPILE_WARNING_AS_ERROR=${CI:-OFF}" "$@"
}

# wait_briefly: threads of the lab that wait spin for some 50 microseconds, then sleep. Sleeping at once makes decoding a
# third slower; the default of GNU's OpenMP, some milliseconds, makes all work slower where cores are shared.
wait_briefly() {
    if [[ -z ${OMP_WAIT_POLICY:-} ]]; then
        export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-3000}
    fi
}
