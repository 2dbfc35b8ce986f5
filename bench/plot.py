#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Draws what kvcrush_bars measured.

Left: time per token against the number of tokens, for each kernel and each competitor. Right: share of the bandwidth
of the machine against the width of the codes, for codes in L2, L3 and DRAM. The same file gives the same picture, byte
by byte.
"""
import argparse
import json
import pathlib
import sys

# Name in the file, name in the picture, line. Ours are solid.
CONTESTANTS = [
    ("avx512", "kvcrush, AVX-512", dict(color="#d62728", marker="o")),
    ("avx2", "kvcrush, AVX2", dict(color="#ff7f0e", marker="o")),
    ("scalar", "kvcrush, scalar", dict(color="#bcbd22", marker="o")),
    ("native", "popcount loop, -march=native", dict(color="#1f77b4", marker="s", linestyle="--")),
    ("popcnt", "popcount loop, -mpopcnt", dict(color="#17becf", marker="s", linestyle="--")),
    ("naive", "popcount loop, no -march", dict(color="#7f7f7f", marker="^", linestyle="--")),
    ("faiss", "FAISS hammings", dict(color="#9467bd", marker="v", linestyle="--")),
    ("probe", "reading and writing alone", dict(color="black", linestyle=":")),
]
LEVELS = [("L2", "#2ca02c"), ("L3", "#1f77b4"), ("DRAM", "#d62728")]


def read_rows(path):
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"plot.py: cannot read '{path}': {error}")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "name" in row for row in rows):
        sys.exit(f"plot.py: '{path}' is not a list of bars: kvcrush_bars --json writes one")
    return rows


def times_of(rows, bits, contestant):
    """(tokens, ns per token), ascending; one point per number of tokens."""
    points = {}
    for row in rows:
        times = row.get("ns_per_token", {})
        if row["name"].startswith("hamming/") and row.get("bits") == bits and contestant in times:
            points.setdefault(row["tokens"], times[contestant])
    return sorted(points.items())


def draw_times(axes, rows, bits):
    for key, label, style in CONTESTANTS:
        points = times_of(rows, bits, key)
        if points:
            axes.plot(*zip(*points), label=label, linewidth=1.3, markersize=4, **style)
    axes.set(xscale="log", yscale="log", xlabel="codes", ylabel="ns per code",
             title=f"Hamming distances of {bits}-bit codes")
    axes.grid(which="major", alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=7)


def draw_shares(axes, rows):
    widths = set()
    for level, color in LEVELS:
        points = sorted((row["bits"], row["value"]) for row in rows
                        if row["name"].startswith("hamming/probe/") and row["name"].endswith("/" + level)
                        and row["value"] is not None)
        if points:
            axes.plot(*zip(*points), label=f"codes in {level}", color=color, marker="o", linewidth=1.3, markersize=4)
            widths.update(bits for bits, _ in points)
    axes.axhline(0.9, color="black", linestyle=":", linewidth=1, label="bar")
    axes.set_xscale("log", base=2)
    labels = []
    for bits in sorted(widths):  # 576 would lie upon 512
        if not labels or bits >= 1.2 * labels[-1]:
            labels.append(bits)
    axes.set_xticks(labels, [str(bits) for bits in labels], rotation=45, fontsize=7)
    axes.minorticks_off()
    axes.set(xlabel="bits per code", ylabel="share of the bandwidth", ylim=(0.0, None),
             title="How near to the limit of the machine")
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize=7)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="example:\n  bench/run.sh --full --json bars.json\n"
                                            "  bench/plot.py bars.json bench/bars.svg")
    parser.add_argument("bars", type=pathlib.Path, help="list of bars, written by bench/run.sh --full --json")
    parser.add_argument("picture", type=pathlib.Path, help="file to write: .svg or .png")
    parser.add_argument("--bits", type=int, default=64, help="width of the codes on the left (default: %(default)s)")
    arguments = parser.parse_args()
    rows = read_rows(arguments.bars)
    if arguments.picture.suffix not in (".svg", ".png"):
        parser.error(f"'{arguments.picture}' must end in .svg or .png")

    try:
        import matplotlib
    except ImportError:
        sys.exit("plot.py: needs matplotlib (Debian: python3-matplotlib)")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "kvcrush"  # names of parts in the file, random without it
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    draw_times(left, rows, arguments.bits)
    draw_shares(right, rows)
    metadata = {"Date": None} if arguments.picture.suffix == ".svg" else {"Software": None}
    try:
        figure.savefig(arguments.picture, dpi=150, metadata=metadata)
    except OSError as error:
        sys.exit(f"plot.py: cannot write '{arguments.picture}': {error}")


if __name__ == "__main__":
    main()
