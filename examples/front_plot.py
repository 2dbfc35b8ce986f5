#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Prints and draws bytes against loss from what `kvcrush-lab eval --windows FILE --json OUT` wrote.

Policies that differ in their seed alone become one row: the mean over the seeds, never the best of them.
"""
import argparse
import json
import pathlib
import re
import sys

NEEDS = "matplotlib is missing; install Debian's python3-matplotlib, or give no picture to write"


def fail(message):
    print(f"front_plot.py: {message}", file=sys.stderr)
    sys.exit(2)


def read_rows(path):
    try:
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
        rows = [row for row in results if row["name"] == "mean"]
    except OSError as error:
        fail(f"file '{path}' cannot be read: {error.strerror}")
    except (ValueError, KeyError, TypeError) as error:
        fail(f"file '{path}' is not what kvcrush-lab eval writes: {error}")
    if not rows:
        fail(f"file '{path}' has no means of windows")
    return rows


def without_seed(policy):
    return re.sub(r"\(seed=\d+\)|,seed=\d+", "", policy)


def merged(rows):
    """One row per policy and ratio: (name, share of bytes, loss, ppl ratio, top-1, attention)."""
    groups = {}
    for row in rows:
        groups.setdefault((without_seed(row["policy"]), row["keep_ratio"]), []).append(row)

    def mean(group, value):
        return sum(value(row) for row in group) / len(group)

    dense = next((row["attention_ms_per_token"] for row in rows if row["policy"] == "full"), None)
    table = []
    for (name, _), group in groups.items():
        speed = dense / mean(group, lambda row: row["attention_ms_per_token"]) if dense else None
        table.append((name, mean(group, lambda row: row["bytes_held"] / row["bytes_full"]),
                      mean(group, lambda row: row["kld_mean"]), mean(group, lambda row: row["ppl_ratio"]),
                      mean(group, lambda row: row["top1_agreement"]), speed))
    return sorted(table, key=lambda row: -row[1])


def print_table(table):
    print("| policy | bytes | ppl ratio | KLD | top-1 % | attention |")
    print("|---|---|---|---|---|---|")
    for name, share, loss, ppl, top1, speed in table:
        times = f"{speed:.1f}x" if speed else ""
        print(f"| `{name}` | {100 * share:.1f} % | {ppl:.3f} | {loss:.4f} | {100 * top1:.1f} | {times} |")


def draw(table, path):
    try:
        import matplotlib
        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        fail(NEEDS)
    matplotlib.rcParams.update({"svg.hashsalt": "kvcrush", "font.size": 9.0})
    points = [row for row in table if row[2] > 0.0]
    front = [row for row in points if not any(o[1] <= row[1] and o[2] < row[2] for o in points)]
    figure, axes = plt.subplots(figsize=(8.0, 4.6))
    axes.plot([row[1] for row in front], [row[2] for row in front], ":", color="black", linewidth=1.0, zorder=1)
    above = (0.0, 1e9)  # the label drawn last: names that would cover each other part
    for name, share, loss, *_ in sorted(points, key=lambda row: (-row[1], -row[2])):
        crowded = abs(above[0] - share) < 0.02 * share and above[1] < 1.25 * loss
        above = (share, loss)
        evicts = not name.startswith("full")
        stored = "+" in name or name.endswith("_times") or "bytes" in name
        color = "#d62728" if evicts and stored else "#1f77b4" if stored else "#7f7f7f"
        axes.plot(share, loss, "o", color=color, markersize=7 if (name, share) in [r[:2] for r in front] else 5)
        axes.annotate(name if len(name) < 44 else name[:41] + "...", (share, loss),
                      (-7, -3) if crowded else (6, 4), ha="right" if crowded else "left",
                      textcoords="offset points", fontsize=7.5)
    axes.set(xscale="log", yscale="log", xlabel="bytes held, share of the cache in f16",
             ylabel="KL divergence to the full cache [nats]")
    ticks = [1.0, 0.5, 0.25, 0.125, 0.0625]
    axes.set_xticks(ticks, ["1", "1/2", "1/4", "1/8", "1/16"])
    axes.minorticks_off()
    axes.set_xlim(0.052, 1.3)
    axes.grid(alpha=0.3)
    for label, color in (("rows stored in codecs", "#1f77b4"), ("by importance", "#d62728"), ("tokens evicted", "#7f7f7f")):
        axes.plot([], [], "o", color=color, label=label)
    axes.legend(loc="lower left", frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path, help="what kvcrush-lab eval wrote with --json")
    parser.add_argument("picture", type=pathlib.Path, nargs="?", help="SVG or PNG to write")
    arguments = parser.parse_args()
    table = merged(read_rows(arguments.results))
    print_table(table)
    if arguments.picture:
        draw(table, arguments.picture)


if __name__ == "__main__":
    main()
