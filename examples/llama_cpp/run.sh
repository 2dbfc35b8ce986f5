#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the backend gains inside unmodified llama.cpp. See --help.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../.ci/common.sh
. "$here/../../.ci/common.sh"

usage() {
    cat <<'END'
usage: examples/llama_cpp/run.sh [--quick | --full] [--model FILE] [--text FILE] [--json FILE]
                                 [--llama-cpp DIR [--llama-cpp-build DIR]]

Fetches llama.cpp (77 MB, once), builds it as it is, builds the backend, and measures both ways in turns:
  1  kvcrush-llama-bench: time of a token and of a prompt, divergence of the predictions, with the bars beside them
  2  llama-bench          3  llama-perplexity --kl-divergence
  4  llama-server, four conversations at once over HTTP on this machine alone
  5  llama-cli, one answer

  --quick      one type and small depths: does everything run? Two minutes
  --full       every cache type, depths to 16384 where the model allows: about an hour
  --model      any GGUF that llama.cpp runs; without it SmolLM2-135M-Instruct is fetched (98 MB, once)
  --text       what is read; without it a text that every Debian machine has
  --json       rows of the first table, {"type", "depth", "threads", "ggml_ms", "kvcrush_ms", "ratio", "kld", ...}
  --llama-cpp  sources of your own, built with their tools in DIR/build or in --llama-cpp-build
Installs missing Debian packages. About 15 minutes on two cores from scratch, half of it building. Times mean something on
a machine that does nothing else.
END
}

mode=default
model=''
text=''
json=()
own=()
while [[ $# -gt 0 ]]; do
    case $1 in
    --quick | --full) mode=${1#--} ;;
    --model | --text | --json)
        [[ $# -ge 2 && -n $2 ]] || die 2 "$1 needs a file"
        case $1 in
        --model) model=$2 ;;
        --text) text=$2 ;;
        --json) json=(--json "$2") ;;
        esac
        shift
        ;;
    --llama-cpp | --llama-cpp-build)
        [[ $# -ge 2 && -n $2 ]] || die 2 "$1 needs a folder"
        own+=("$1" "$2")
        shift
        ;;
    --help | -h)
        usage
        exit 0
        ;;
    *)
        die 2 "unknown option '$1', allowed are --quick, --full, --model FILE, --text FILE, --json FILE, --llama-cpp DIR," \
            "--llama-cpp-build DIR, --help"
        ;;
    esac
    shift
done
[[ -z $model || -r $model ]] || die 2 "--model cannot be read: '$model'"
[[ -z $text || -r $text ]] || die 2 "--text cannot be read: '$text'"

begin_stage 'build'
need_packages unzip=unzip python3=python3 python3-pip
[[ -n $model ]] || model=$("$here/../fetch_model.sh")
work=$kvcrush_root/build/llama_cpp
built=$("$here/build.sh" "${own[@]}" ggml-kvcrush kvcrush-llama-bench)
tools=$(sed -n 's/^llama.cpp: //p' <<<"$built")
backend=$(sed -n 's/^backend: //p' <<<"$built")
if [[ -z $text ]]; then
    text=$work/text.txt
    cat "$here/../lab/prose.txt" /usr/share/common-licenses/GPL-3 /usr/share/common-licenses/Artistic \
        /usr/share/common-licenses/LGPL-2.1 >"$text"
fi

case $mode in
quick)
    types=q8_0
    depths=256
    bench=(--threads 1 --prompt 256)
    tool_types=(q8_0)
    tool_depths=256
    chunks=1
    ;;
full)
    types=f16,bf16,q8_0,q5_1,q5_0,q4_1,q4_0,iq4_nl
    depths=512,1024,2048,4096
    bench=()
    tool_types=(f16 q8_0 q4_0)
    tool_depths=0,1024,4096,16384
    chunks=8
    ;;
*)
    types=f16,q8_0,q4_0
    depths=1024,4096
    bench=()
    tool_types=(f16 q8_0 q4_0)
    tool_depths=0,2048
    chunks=2
    ;;
esac

failed=()
# try NAME COMMAND...: a stage; what fails is named at the end
try() {
    begin_stage "$1"
    "${@:2}" || failed+=("$1")
    end_stage
}
# with WAY COMMAND...: with the backend, or without
with() {
    if [[ $1 == kvcrush ]]; then
        LD_PRELOAD=$backend "${@:2}"
    else
        "${@:2}"
    fi
}

bench_in_turns() {
    "$work/kvcrush/examples/llama_cpp/bench/kvcrush-llama-bench" --model "$model" --text "$text" --backend "$backend" \
        --types "$types" --depths "$depths" "${bench[@]}" "${json[@]}"
}

llama_bench() {
    local type way threads
    for threads in 1 2; do
        [[ $mode != quick || $threads == 1 ]] || continue
        for type in "${tool_types[@]}"; do
            for way in ggml kvcrush; do
                echo "--- $way, cache $type, $threads threads"
                with "$way" "$tools/llama-bench" -m "$model" -p 512 -n 32 -d "$tool_depths" -r 2 -t "$threads" -fa 1 \
                    -ctk "$type" -ctv "$type" 2>/dev/null | grep '^|' || return 1
            done
        done
    done
}

perplexity() {
    local type way base=$work/base.kld
    local common=(-m "$model" -f "$text" -c 1024 -b 1024 --chunks "$chunks" -t "$num_jobs" -fa on)
    "$tools/llama-perplexity" "${common[@]}" --kl-divergence-base "$base" >/dev/null 2>&1 || return 1
    for type in "${tool_types[@]}"; do
        for way in ggml kvcrush; do
            echo "--- $way, cache $type, against ggml with f16"
            with "$way" "$tools/llama-perplexity" "${common[@]}" -ctk "$type" -ctv "$type" --kl-divergence \
                --kl-divergence-base "$base" 2>/dev/null | grep -E '^(Mean PPL\(Q\)|Mean +KLD|Same top p)' || return 1
        done
    done
    rm -f "$base"
}

server() {
    local way
    for way in ggml kvcrush; do
        with "$way" /usr/bin/python3 "$here/ask_server.py" "$tools/llama-server" "$model" "$work/answers-$way.json" ||
            return 1
    done
    if cmp -s "$work/answers-ggml.json" "$work/answers-kvcrush.json"; then
        echo 'both give the same answers'
    else
        echo 'answers differ: sums are formed in another order, as in batches of another size'
    fi
}

cli() {
    local way
    for way in ggml kvcrush; do
        echo "--- $way"
        with "$way" "$tools/llama-cli" -m "$model" -fa on -ctk q8_0 -ctv q8_0 -t "$num_jobs" -n 40 --temp 0 -st \
            -p 'Name three animals that live in the sea.' --no-display-prompt </dev/null 2>/dev/null | tail -n 12 ||
            return 1
    done
}

try 'kvcrush-llama-bench' bench_in_turns
try 'llama-bench' llama_bench
try 'llama-perplexity' perplexity
try 'llama-server' server
try 'llama-cli' cli

printf '\n%s' "$stage_times"
if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
