#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prints the folder that ggml is installed in (static, CPU backend, for this CPU), and downloads (77 MB) and builds it
# first if need be: two minutes on an idle machine.
# It comes from the source distribution of llama-cpp-python on PyPI, which holds llama.cpp, and is kept in
# ${KVCRUSH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvcrush}.
set -euo pipefail

readonly package=llama-cpp-python
readonly version=0.3.36
readonly sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
readonly archive_name=llama_cpp_python-$version.tar.gz

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../.ci/fetch.sh
. "$here/../.ci/fetch.sh"
archive=$cache/$archive_name

give_up() {
    say "ggml could not be built: $*"
    say "the sources by hand: python3 -m pip download --no-deps --no-binary $package -d '$cache' $package==$version"
    exit 1
}

if [[ $# -gt 0 ]]; then
    [[ $1 == --help ]] || { say "takes no arguments, got '$1'"; exit 2; }
    sed -n '3,6s/^# //p' "${BASH_SOURCE[0]}"
    exit 0
fi

# Built for this CPU: another one, in the same home folder, gets a build of its own.
compiler=$(cc --version 2>/dev/null | head -n 1) || give_up "there is no C compiler (Debian: gcc)"
kind=$(printf '%s\n' "$sha256" "$compiler" "$(grep -m 2 -E '^(model name|flags|Features)' /proc/cpuinfo)" | sha256sum)
prefix=$cache/ggml-$version-${kind:0:12}
if [[ -e $prefix/lib/libggml-cpu.a && -e $prefix/lib/libggml-base.a ]]; then
    printf '%s\n' "$prefix"
    exit 0
fi

for tool in cmake c++ tar; do
    command -v "$tool" >/dev/null || give_up "there is no $tool"
done
make_work_folder build

if [[ -e $archive ]] && ! is_right "$archive"; then
    say "$archive has a wrong checksum, it is downloaded again"
    rm -f "$archive"
fi
if [[ ! -e $archive ]]; then
    say "downloading the sources of $package $version (77 MB, once)"
    pip_download "$package==$version" --no-binary "$package"
    [[ -e $work/$archive_name ]] || give_up "pip downloaded no $archive_name"
    is_right "$work/$archive_name" || give_up "$archive_name has not the SHA-256 $sha256"
    mv -f "$work/$archive_name" "$archive"
fi

say "building ggml (once)"
tar -xzf "$archive" -C "$work" --strip-components=3 --wildcards '*/vendor/llama.cpp/ggml/*' 2>"$work/log" ||
    give_up "$archive_name holds no vendor/llama.cpp/ggml"
# The source distribution lacks this template of a file for pkg-config, which nobody reads here.
touch "$work/ggml/ggml.pc.in"
generator=()
if command -v ninja >/dev/null; then
    generator=(-G Ninja)
fi
launcher=''
if command -v ccache >/dev/null; then
    launcher=ccache
fi
# Without OpenMP: one thread needs none, and a static library would hand it on to who links it.
{
    cmake -S "$work/ggml" -B "$work/build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release \
        "-DCMAKE_INSTALL_PREFIX=$work/prefix" -DCMAKE_INSTALL_LIBDIR=lib -DBUILD_SHARED_LIBS=OFF \
        -DGGML_NATIVE=ON -DGGML_OPENMP=OFF -DGGML_BUILD_TESTS=OFF -DGGML_BUILD_EXAMPLES=OFF \
        "-DCMAKE_C_COMPILER_LAUNCHER=$launcher" "-DCMAKE_CXX_COMPILER_LAUNCHER=$launcher" &&
        cmake --build "$work/build" --parallel "$(nproc 2>/dev/null || echo 2)" --target install
} >"$work/log" 2>&1 || {
    grep -E -m 5 'error|Error' "$work/log" >&2 || tail -n 5 "$work/log" >&2
    give_up "its build failed"
}
[[ -e $work/prefix/lib/libggml-cpu.a && -e $work/prefix/lib/libggml-base.a ]] ||
    give_up "its build left no static libraries"
rm -rf "$prefix"
# Another run may have been faster.
mv -T "$work/prefix" "$prefix" 2>/dev/null || [[ -e $prefix/lib/libggml-cpu.a ]] ||
    give_up "the folder $prefix cannot be written"
printf '%s\n' "$prefix"
