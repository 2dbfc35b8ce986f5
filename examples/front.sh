#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Bytes against loss against speed, as a table and a picture. See --help.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../.ci/common.sh
. "$here/../.ci/common.sh"

usage() {
    cat <<'END'
usage: examples/front.sh [PICTURE]

Compresses the KV cache of a real model over four texts, by codecs, by eviction and by both, and prints what each
way holds and loses, and how much faster attention over it is than over the whole cache in f16.
PICTURE is an SVG or PNG to draw the same into (default: build/front.svg); build/front.json holds all figures.
Random signs are drawn with four seeds; the rows are their means.
Installs missing Debian packages and fetches the model (98 MB) once. Takes about five minutes.
END
}
case ${1:-} in
--help | -h)
    usage
    exit 0
    ;;
-*) die 2 "unknown option '$1', allowed is --help" ;;
esac
[[ $# -le 1 ]] || die 2 "takes one picture to write; $# are given"

need_build_tools
need_packages libcli11-dev nlohmann-json3-dev libfmt-dev libicu-dev python3=python3 python3-pip unzip=unzip \
    python3-matplotlib
model=$("$here/fetch_model.sh")
build_dir=$kvcrush_root/build
picture=${1:-$build_dir/front.svg}
configure "$build_dir" -DCMAKE_BUILD_TYPE=Release '-DCMAKE_CXX_FLAGS_RELEASE=-O2 -DNDEBUG' \
    -DKVCRUSH_BUILD_TESTS=OFF -DKVCRUSH_BUILD_EXAMPLES=ON >&2
cmake --build "$build_dir" --parallel "$num_jobs" --target kvcrush-lab >&2

rows='full,random,snapkv,kvcrush(snapkv),kvcrush_auto,full+codec(k=q8_0,v=q8_0),full+codec(k=int8_row,v=int8_row)'
rows+=',full+codec(k=q4_0,v=q4_0),full+codec(k=hadamard(q4_0),v=hadamard(q4_0)),full+codec(k=q8_0,v=q4_0)'
rows+=',full+codec(k=kivi_key,v=kivi_value)'
for seed in 0 1 2 3; do
    rows+=",four_times(seed=$seed),eight_times(seed=$seed),sixteen_times(seed=$seed)"
    rows+=",kvcrush_auto(bytes=1,seed=$seed)"
done
"$build_dir/examples/lab/kvcrush-lab" eval --model "$model" \
    --windows "$kvcrush_root/tests/known_answer/lm_windows.json" --keep-ratio 0.25 --policy "$rows" \
    --json "$build_dir/front.json" >&2
/usr/bin/python3 "$here/front_plot.py" "$build_dir/front.json" "$picture"
echo "picture: $picture" >&2
