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
Installs missing Debian packages. 21 minutes on two cores from scratch, half of it building. Times mean something on a
machine that does nothing else.
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
    tool_threads=(1)
    tool_depths=256
    repetitions=1
    chunks=1
    ;;
full)
    types=f16,bf16,q8_0,q5_1,q5_0,q4_1,q4_0,iq4_nl
    depths=512,1024,2048,4096,16384
    bench=()
    tool_types=(f16 q8_0 q4_0)
    tool_threads=(1 2)
    tool_depths=0,1024,4096,16384
    repetitions=2
    chunks=8
    ;;
*)
    types=f16,q8_0,q4_0
    depths=1024,4096
    bench=()
    tool_types=(f16 q8_0 q4_0)
    tool_threads=(2)
    tool_depths=0,1024
    repetitions=1
    chunks=1
    ;;
esac

failed=()
num_steps=5
step=0
# try NAME COMMAND...: a stage; what fails is named at the end
try() {
    step=$((step + 1))
    begin_stage "$1, step $step of $num_steps"
    "${@:2}" || failed+=("$1")
    end_stage
}

# with WAY COMMAND...: with the backend, or without. Of these tools llama-bench alone looks at GGML_BACKEND_PATH;
# LD_PRELOAD reaches them all.
log=$work/tool.log
with() {
    local status=0
    if [[ $1 == kvcrush ]]; then
        LD_PRELOAD=$backend "${@:2}" 2>"$log" || status=$?
    else
        "${@:2}" 2>"$log" || status=$?
    fi
    [[ $status == 0 ]] || complain "${2##*/} ended with $status"
    return "$status"
}
# complain WHAT: and the last that the tool said
complain() {
    printf 'run.sh: %s\n' "$1" >&2
    tail -n 5 "$log" >&2
}
# A preload that fails is a warning of the loader, and the tool goes on without. So each run shows (-lv 4) into how many
# parts its graph was split: one by the CPU alone, more where another backend computes some of it.
# is_by WAY: whether the run that wrote $log was what it is to be shown as
is_by() {
    local splits
    splits=$(grep -a -o 'splits = [0-9]*' "$log" | tail -n 1 | tr -dc 0-9) || true
    case $1:${splits:-none} in
    *:none) complain 'llama.cpp does not say how it split its graph, so nobody knows who computed' ;;
    ggml:1) return 0 ;;
    ggml:*) complain 'another backend than the CPU computed (GGML_BACKEND_PATH, LD_PRELOAD?)' ;;
    *:1) complain "the backend was not used: $backend" ;;
    *) return 0 ;;
    esac
    return 1
}

bench_in_turns() {
    "$work/kvcrush/examples/llama_cpp/bench/kvcrush-llama-bench" --model "$model" --text "$text" --backend "$backend" \
        --types "$types" --depths "$depths" "${bench[@]}" "${json[@]}"
}

llama_bench() {
    local type way threads table
    for threads in "${tool_threads[@]}"; do
        for type in "${tool_types[@]}"; do
            for way in ggml kvcrush; do
                echo "--- $way, cache $type, threads: $threads"
                table=$(with "$way" "$tools/llama-bench" -m "$model" -p 512 -n 32 -d "$tool_depths" -r "$repetitions" \
                    -t "$threads" -fa 1 -ctk "$type" -ctv "$type") || return 1
                grep '^|' <<<"$table" || { complain 'llama-bench gave no table'; return 1; }
                # The column `backend` names what was found beside the CPU.
                if [[ $way == kvcrush && $table != *'| kvcrush '* || $way == ggml && $table != *'| CPU '* ]]; then
                    complain "this was not computed by $way"
                    return 1
                fi
            done
        done
    done
}

perplexity() {
    local type way base=$work/base.kld
    local common=(-m "$model" -f "$text" -c 1024 -b 1024 --chunks "$chunks" -t "$num_jobs" -fa on -lv 4)
    echo '--- ggml, cache f16: what the others are compared with'
    with ggml "$tools/llama-perplexity" "${common[@]}" --kl-divergence-base "$base" >"$work/base.txt" || return 1
    is_by ggml || return 1
    for type in "${tool_types[@]}"; do
        for way in ggml kvcrush; do
            echo "--- $way, cache $type"
            with "$way" "$tools/llama-perplexity" "${common[@]}" -ctk "$type" -ctv "$type" --kl-divergence \
                --kl-divergence-base "$base" >"$work/divergence.txt" || return 1
            is_by "$way" || return 1
            grep -E '^(Mean PPL\(Q\)|Mean +KLD|Same top p)' "$work/divergence.txt" ||
                { complain 'llama-perplexity gave no divergence'; return 1; }
        done
    done
    rm -f "$base"
}

# Waiting threads yield here, where nothing is timed: with other work on the machine, spinning takes ten times as long.
# Whether ggml gives the same answers twice is asked too: who shares a batch depends on who comes first.
server() {
    local run preload
    for run in ggml kvcrush ggml-again; do
        preload=''
        [[ $run != kvcrush ]] || preload=$backend
        rm -f "$work/answers-$run.json"
        echo "--- $run"
        OMP_WAIT_POLICY=passive python3 "$here/ask_server.py" "$tools/llama-server" "$model" "$work/answers-$run.json" \
            "$log" "$preload" || { complain 'the conversations failed'; return 1; }
        is_by "${run%-again}" || return 1
    done
    for run in kvcrush ggml-again; do
        if cmp -s "$work/answers-ggml.json" "$work/answers-$run.json"; then
            echo "$run: the same answers as ggml"
        else
            echo "$run: other answers than ggml"
        fi
    done
}

cli() {
    local way
    for way in ggml kvcrush; do
        echo "--- $way"
        OMP_WAIT_POLICY=passive with "$way" "$tools/llama-cli" -m "$model" -fa on -ctk q8_0 -ctv q8_0 -t "$num_jobs" -n 40 --temp 0 -st \
            -p 'Name three animals that live in the sea.' --no-display-prompt -lv 4 </dev/null >"$work/cli.txt" || return 1
        is_by "$way" || return 1
        # Behind the question: the answer, and how quick it was.
        sed -n '/^> Name/,$ { /^> Name/d; /^$/d; /^Exiting/d; p }' "$work/cli.txt" >"$work/answer.txt"
        grep -v '^\[ Prompt' "$work/answer.txt" >/dev/null || { complain 'llama-cli gave no answer'; return 1; }
        cat "$work/answer.txt"
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
