#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints the path of an archive with the sources of llama.cpp, and downloads it first if need be (77 MB).
# It is kept in ${KVCRUSH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvcrush}. With --if-there nothing is downloaded: exit
# code 1 where it is missing.
set -euo pipefail

readonly package=llama-cpp-python==0.3.36
readonly archive=llama_cpp_python-0.3.36.tar.gz
readonly sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../../.ci/fetch.sh
. "$here/../../.ci/fetch.sh"
sources=$cache/$archive

give_up() {
    say "llama.cpp could not be fetched: $*"
    say "by hand: python3 -m pip download --no-deps --no-binary llama-cpp-python -d '$cache' $package"
    exit 1
}

only_if_there=false
case ${1:-} in
'') ;;
--if-there) only_if_there=true ;;
--help)
    sed -n 's/^# \([PIc].*\)/\1/p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
*) say "takes --if-there or nothing, got '$1'"; exit 2 ;;
esac

if [[ -e $sources ]]; then
    if is_right "$sources"; then
        printf '%s\n' "$sources"
        exit 0
    fi
    $only_if_there || say "$sources has a wrong checksum, it is downloaded again"
fi
if $only_if_there; then
    exit 1
fi

make_work_folder download
say "downloading $package (77 MB, once)"
pip_download "$package" --no-binary llama-cpp-python
[[ -e $work/$archive ]] || give_up "$package holds no $archive"
is_right "$work/$archive" || give_up "$archive has not the SHA-256 $sha256"
chmod 644 "$work/$archive"
mv -f "$work/$archive" "$sources"
printf '%s\n' "$sources"
