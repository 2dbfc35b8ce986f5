#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to one table. See --help.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../.ci/common.sh
. "$here/../.ci/common.sh"

usage() {
    cat <<'END'
usage: examples/quickstart.sh [OPTION OF kvcrush-lab run]...

Fetches a real language model (98 MB, once), builds the lab into build/, compresses the model's KV cache over
2048 tokens of a long text with every method, and prints what each keeps, saves and costs.
Options are handed on to kvcrush-lab run and replace the choice made here, for example
    examples/quickstart.sh --text mybook.txt --keep-ratio 0.25 --json out.json
Installs missing Debian packages. Needs no network once packages and model are there.
END
}
if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    usage
    exit 0
fi

# given OPTION: did the user choose it?
arguments=("$@")
given() {
    local argument
    for argument in "${arguments[@]}"; do
        [[ $argument != "$1" && $argument != "$1="* ]] || return 0
    done
    return 1
}

need_build_tools
need_packages libcli11-dev nlohmann-json3-dev libfmt-dev libicu-dev python3=python3 python3-pip unzip=unzip

chosen=()
if ! given --model; then
    model=$("$here/fetch_model.sh")
    chosen+=(--model "$model")
fi
# A text that every Debian machine has.
given --text || chosen+=(--text /usr/share/common-licenses/GPL-3)
given --context || chosen+=(--context 2048)
given --policy || chosen+=(--policy 'full,random,streaming_llm,knorm,h2o,snapkv,kvcrush(h2o),kvcrush(snapkv),kvcrush(snapkv,pick=second_score,second=h2o(last=256))')
given --keep-ratio || chosen+=(--keep-ratio '0.5,0.25,0.125')

echo "building the lab (one or two minutes the first time)" >&2
build_dir=$kvcrush_root/build
configure "$build_dir" -DCMAKE_BUILD_TYPE=Release '-DCMAKE_CXX_FLAGS_RELEASE=-O2 -DNDEBUG' \
    -DKVCRUSH_BUILD_TESTS=OFF -DKVCRUSH_BUILD_EXAMPLES=ON >&2
cmake --build "$build_dir" --parallel "$num_jobs" --target kvcrush-lab >&2
exec "$build_dir/examples/lab/kvcrush-lab" run "${chosen[@]}" "$@"
