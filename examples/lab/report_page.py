#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Makes one HTML page of what kvcrush-lab measured.

The page holds its figures, styles and script: it works from disk, and asks the network for nothing. A section is there
if the files have something for it. The same files give the same page, byte by byte.
"""
import argparse
import html
import io
import json
import logging
import math
import os
import pathlib
import re
import statistics
import sys

PROGRAM = "kvcrush-lab report"
NEEDS = "needs python3 and matplotlib (Debian: python3 python3-matplotlib)"

# Columns of "results" that hold numbers. All of them may be null or absent.
FIGURES = ("keep_ratio context turn depth bytes_full bytes_held nll ppl_ratio kld_mean kld_p99 top1_agreement accuracy "
           "answer_nll select_ms compact_ms prefill_ms decode_ms_per_token samples lo hi kld_mean_lo kld_mean_hi "
           "accuracy_lo accuracy_hi").split()
BASELINES = ("full", "random")
OWN_SHARE = -1.0  # the keep ratio of policies that bring their own, whatever was asked for: they are one group
LATER = math.inf  # the turn of a row that says "2+": all turns after the first

# Colours are placeholders in the pictures and become variables of the style sheet, which knows light and dark.
INK, MUTED, GRID, SURFACE, HEAT = "#01a0b1", "#01a0b2", "#01a0b3", "#01a0b4", "#01a0b5"
# Name, placeholder, light, dark, marker, methods whose name stands outermost.
FAMILIES = [
    ("baseline", INK, "#16181d", "#eceef2", "o", "full random"),
    ("KVCrush", "#01b0c1", "#c2271d", "#ff7a6b", "o", "kvcrush kvcrush_auto"),
    ("by attention", "#01b0c2", "#1b66c9", "#6cb0ff", "s",
     "snapkv h2o glob tova alisa keyformer squared_attention r_kv expected_attention kvzip"),
    ("by keys alone", "#01b0c3", "#157a43", "#52c985", "^", "knorm key_diff lag_kv q_filters"),
    ("by position", "#01b0c4", "#8a5a1c", "#d3a263", "v", "streaming_llm prefix_suffix"),
    ("allocation", "#01b0c5", "#7440b8", "#bd98f5", "D",
     "ada_kv pyramid_kv kv_compress baklava duo_attention head_level dbudget_kv"),
    ("selection", "#01b0c6", "#b62a80", "#f48bc9", "P", "chunk_kv critical_kv diverse_kv partition"),
    ("codec", "#01b0c7", "#806300", "#dcbb45", "X", "four_times eight_times sixteen_times"),
    ("other", "#01b0c8", "#6b6f78", "#9ca1ab", "h", ""),
]
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", SURFACE: "--surface", HEAT: "--heat"}
VARIABLES.update({family[1]: f"--f{i}" for i, family in enumerate(FAMILIES) if family[1] not in VARIABLES})
RATIO_MARKERS = "osD^vPX*"
WIDTH = 13.2  # of a figure [inches of 72 points]


class BadInput(Exception):
    """What main() says in one line."""


def quoted(text):
    text = str(text)
    return json.dumps(text[:80] + ("..." if len(text) > 80 else ""))


# ---------------------------------------------------------------------------------------------------------- reading

def number(value):
    """The value, or None where there is no finite number."""
    return float(value) if value is not None and math.isfinite(value) else None


def read_row(row, where):
    if not isinstance(row, dict):
        raise BadInput(f"{where} is no object")
    if not isinstance(row.get("policy"), str) or not row["policy"]:
        raise BadInput(f"{where} has no policy")
    read = {key: row.get(key) for key in ("task", "mode", "name", "policy", "seed")}
    for key in ("task", "mode", "name"):
        if read[key] is not None and not isinstance(read[key], str):
            raise BadInput(f"{where}: {key} is {quoted(read[key])}; allowed: text or null")
    for key in FIGURES:
        value = row.get(key)
        if key == "turn" and value == "2+":
            read[key] = LATER
            continue
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise BadInput(f"{where}: {key} is {quoted(value)}; allowed: numbers or null")
        try:
            read[key] = number(value)
        except OverflowError:
            read[key] = None
    # Bare bounds belong to what the task is about.
    about = "accuracy" if read["accuracy"] is not None else "kld_mean"
    for bound in ("lo", "hi"):
        if read[f"{about}_{bound}"] is None:
            read[f"{about}_{bound}"] = read[bound]
    return read


def read_kept_map(kept, where):
    """Checks "kept_map": {"policy", "context", "layers": [layer][kv head] = kept tokens, null for all}."""
    problem = f"{where}: kept_map"
    if not isinstance(kept, dict) or not isinstance(kept.get("layers"), list):
        raise BadInput(f"{problem} has no layers")
    context = kept.get("context")
    if isinstance(context, bool) or not isinstance(context, int) or not 0 < context <= 1 << 22:
        raise BadInput(f"{problem}: context is {quoted(context)}; allowed: tokens from 1 to {1 << 22}")
    layers = []
    for i, heads in enumerate(kept["layers"]):
        if not isinstance(heads, list):
            raise BadInput(f"{problem}: layer {i} is no list of kv heads")
        layers.append([])
        for tokens in heads:
            tokens = list(range(context)) if tokens is None else tokens
            if not isinstance(tokens, list) or any(
                    isinstance(t, bool) or not isinstance(t, int) or not 0 <= t < context for t in tokens):
                raise BadInput(f"{problem}: layer {i} keeps what is no token of 0 to {context - 1}")
            layers[-1].append(sorted(set(tokens)))
    if not any(layers):
        raise BadInput(f"{problem} has no kv head")
    pieces = kept.get("pieces")
    if pieces is not None and (not isinstance(pieces, list) or len(pieces) != context
                               or not all(isinstance(piece, str) for piece in pieces)):
        raise BadInput(f"{problem}: pieces are not one text per token of the context")
    name = kept.get("name")
    return {"policy": str(kept.get("policy", "")), "context": context, "layers": layers, "pieces": pieces,
            "name": name if isinstance(name, str) else "", "keep_ratio": kept.get("keep_ratio")}


def read_file(path):
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"file {quoted(path)} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"file {quoted(path)} is no JSON") from error
    where = f"file {quoted(path)}"
    if not isinstance(document, dict) or not isinstance(document.get("results"), list):
        raise BadInput(f"{where} has no list of results; kvcrush-lab run or eval with --json writes one")
    kept = document.get("kept_map") or []
    if not document["results"] and not kept:
        raise BadInput(f"{where} has an empty list of results")
    rows = [read_row(row, f"{where}, result {i}") for i, row in enumerate(document["results"])]
    layers = document.get("num_layers")
    for row in rows:
        row["model"] = str(document.get("model") or "")
        row["layers"] = layers if isinstance(layers, int) and layers > 0 else None
    maps = [read_kept_map(entry, where) for entry in (kept if isinstance(kept, list) else [kept])]
    for row in rows:  # the model is the same, so its number of layers is
        row["layers"] = row["layers"] or (len(maps[0]["layers"]) if maps else None)
    return {"path": path.name, "model": str(document.get("model") or ""), "machine": document.get("machine"),
            "arguments": document.get("arguments"), "rows": rows, "maps": maps}


def mark_own_shares(file):
    """Policies that aim at bytes bring their own share of tokens: row["kept"] has it, keep_ratio puts them together."""
    arguments = file["arguments"]
    asked = set()
    for text in str(arguments.get("keep_ratio") or "").split(",") if isinstance(arguments, dict) else []:
        try:
            asked.add(float(text))
        except ValueError:
            pass
    shares = {}
    for row in file["rows"]:
        row["kept"] = row["keep_ratio"]
        shares.setdefault(row["policy"], set()).add(row["keep_ratio"])
    for row in file["rows"]:
        # Several shares of one policy are points of a curve, and stay apart.
        if asked and row["policy"] != "full" and len(shares[row["policy"]]) == 1 and row["kept"] is not None \
                and row["kept"] not in asked:
            row["keep_ratio"] = OWN_SHARE


def merge_lengths(rows):
    """Contexts of nearly one length (a question more or less) count as one: row["length"]."""
    contexts = sorted(row["context"] for row in rows if row["context"] is not None)
    nominal, start = {}, None
    for context in dict.fromkeys(contexts):
        if start is None or context > 1.15 * start:
            start, members = context, []
        members.append(context)
        usual = max(members, key=lambda member: (contexts.count(member), member))
        nominal.update({member: usual for member in members})
    for row in rows:
        row["length"] = nominal.get(row["context"])


def without_parts_of_means(rows):
    """Where a file has a mean, what went into it is left out. Equal rows count once."""
    def group(row):
        return tuple(row[key] for key in ("model", "task", "mode", "policy", "keep_ratio", "turn", "depth", "length"))
    has_mean = {group(row) for row in rows if row["name"] == "mean"}
    seen, left = set(), []
    for row in rows:
        identity = tuple(sorted((key, str(value)) for key, value in row.items()))
        if identity not in seen and (row["name"] == "mean" or group(row) not in has_mean):
            left.append(row)
        seen.add(identity)
    return left


def cells(rows, keys, figure):
    """Rows with that figure, averaged over all but `keys`: {key: row}, in the order they first appear."""
    groups = {}
    for row in rows:
        if row[figure] is not None:
            groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    merged = {}
    for key, group in groups.items():
        if "depth" not in keys:  # a mean over depths, where there is one
            group = [row for row in group if row["depth"] is None] or group
        merged[key] = dict(group[0])
        if len(group) == 1:
            continue
        for name in FIGURES:
            values = [(row[name], row["samples"] or 1.0) for row in group if row[name] is not None]
            total = sum(weight for _, weight in values)
            merged[key][name] = sum(value * weight for value, weight in values) / total if values else None
        merged[key]["samples"] = sum(row["samples"] or 1.0 for row in group)
        for bound in (name for name in FIGURES if name.endswith(("lo", "hi"))):
            merged[key][bound] = None  # intervals of parts say nothing sharp about the whole
    return merged


# ------------------------------------------------------------------------------------------------------------ words

def family_of(policy):
    if "+codec" in policy:
        return FAMILIES[7]
    outermost = re.match(r"\w*", policy).group()
    for family in FAMILIES:
        if outermost in family[5].split():
            return family
    return FAMILIES[8]


def shortened(text, most=46):
    return text if len(text) <= most else text[:most - 15] + "…" + text[-14:]


def written(value, digits=3):
    if value is None:
        return "–"
    if value == 0:
        return "0"
    return f"{value:.{digits}g}" if 1e-4 <= abs(value) < 10 ** digits else f"{value:,.0f}" if abs(value) >= 1 else \
        f"{value:.1e}"


def turn_name(turn):
    return "all" if turn is None else "2+" if turn == LATER else f"{turn:g}"


def share_name(ratio):
    if ratio == OWN_SHARE:
        return "their own share"
    return "unknown share" if ratio is None else "all tokens" if ratio == 1.0 else f"{ratio:g} of the tokens"


def title_of(row, all_rows, keys=("task", "mode")):
    """What tells this row's group from the others: the model only if there are several."""
    parts = [row[key] for key in keys if row[key]]
    if len({r["model"] for r in all_rows}) > 1:
        parts.insert(0, row["model"])
    return ", ".join(parts) or "all"


def table(head, lines):
    """The figures behind a figure. Lists of cells; text goes left, the rest right."""
    def cell(value):
        if isinstance(value, str):
            return f"<td>{html.escape(value)}</td>"
        return f'<td class="n">{written(value, 4)}</td>'
    body = "".join("<tr>" + "".join(map(cell, line)) + "</tr>\n" for line in lines)
    titles = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in head)
    return f"<table><thead><tr>{titles}</tr></thead>\n<tbody>{body}</tbody></table>"


def behind(head, lines):
    return (f'<details><summary>The {len(lines)} rows behind it</summary><div class="wide">{table(head, lines)}</div>'
            "</details>\n")


# ---------------------------------------------------------------------------------------------------------- drawing

class Painter:
    """Draws with matplotlib and gives SVG that takes its colours from the page."""

    def __init__(self, policies):
        try:
            logging.getLogger("matplotlib").setLevel(logging.ERROR)  # "building the font cache" is no news
            import matplotlib
            matplotlib.use("Agg")
            import matplotlib.pyplot
        except ImportError as error:
            raise BadInput(NEEDS) from error
        matplotlib.rcParams.update({
            "svg.fonttype": "none", "text.parse_math": False, "font.size": 9.0, "axes.titlesize": 10.0,
            "axes.titlelocation": "left", "axes.titlecolor": INK, "axes.spines.top": False, "axes.spines.right": False,
            "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.axisbelow": True,
            "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
            "grid.color": GRID, "grid.linewidth": 0.7, "legend.frameon": False})
        self.plt = matplotlib.pyplot
        self.ticker = matplotlib.ticker
        self.matplotlib = matplotlib
        self.numbers = {policy: i for i, policy in enumerate(policies)}
        self.names = list(policies)
        self.pictures = 0

    def mark(self, artist, policy):
        """Says whose it is: the page lights up what belongs together."""
        artist.set_gid(f"series-{self.numbers[policy]}")

    def svg(self, figure, alt):
        self.pictures += 1
        prefix = f"g{self.pictures}-"
        self.matplotlib.rcParams["svg.hashsalt"] = prefix
        with io.StringIO() as out:
            figure.savefig(out, format="svg", transparent=True,
                           metadata={key: None for key in ("Date", "Creator", "Format", "Type")})
            text = out.getvalue()
        self.plt.close(figure)
        text = text[text.index("<svg"):]
        text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
        text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)

        def series(match):
            i = int(match.group(1))
            return f'<g class="s" data-s="{i}"><title>{html.escape(self.names[i])}</title>'
        text = re.sub(r'<g id="series-(\d+)"\s*>', series, text)
        # Only what is referred to keeps its name, and no two pictures share one.
        used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
        text = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m.group(1)}"' if m.group(1) in used else "", text)
        text = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", text)
        text = text.replace(' version="1.1"', "", 1).replace(' xmlns="http://www.w3.org/2000/svg"', "", 1)
        text = text.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "", 1).replace("xlink:href", "href")
        text = re.sub(r"(font: [^;\"]*?px) '[^;\"]*", r"\1 sans-serif", text)
        for placeholder, variable in VARIABLES.items():
            text = text.replace(placeholder, f"var({variable})")
        alt = html.escape(alt)
        box = re.search(r'viewBox="[^"]*"', text).group()
        text = f'<svg role="img" aria-label="{alt}" {box}>' + text[text.index(">") + 1:]
        text = re.sub(r"[ \t]*\n[ \t]*", "\n", text).strip()
        return f'<div class="wide">{text}</div>\n'

    def figure(self, height, **options):
        return self.plt.subplots(figsize=(WIDTH, height), **options)

    def label_ends(self, axes, ends, at):
        """Writes names beside the last points of their lines, pushed apart, each with a thin line to its point.

        ends: (x, y, label, policy, bold); at: where names stand [share of the width of the axes]
        """
        figure = axes.figure
        figure.canvas.draw()
        to_points = 72.0 / figure.dpi
        box = axes.get_window_extent()
        ends = sorted(((axes.transData.transform((x, y))[1] - box.y0) * to_points, x, y, label, policy, bold)
                      for x, y, label, policy, bold in ends)
        height, gap = box.height * to_points, 11.5
        clusters = []  # [sum of wishes, members]: names that touch move as one to the mean of where they want to be
        for i, end in enumerate(ends):
            clusters.append([end[0], 1])
            while len(clusters) > 1:
                (sum_a, n_a), (sum_b, n_b) = clusters[-2:]
                if sum_b / n_b - sum_a / n_a >= gap * (n_a + n_b) / 2:
                    break
                clusters[-2:] = [[sum_a + sum_b, n_a + n_b]]
        places = []
        for total, n in clusters:
            low = total / n - gap * (n - 1) / 2
            low = max(min(low, height - gap * (n - 1)), 0.0)
            places += [low + gap * i for i in range(n)]
        for i in range(1, len(places)):
            places[i] = max(places[i], places[i - 1] + gap)
        for place, (wish, x, y, label, policy, bold) in zip(places, ends):
            color = family_of(policy)[1]
            share = place / height
            x_share = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))[0]
            line, = axes.plot([x_share, at - 0.03, at - 0.008], [wish / height, share, share], color=color,
                              linewidth=0.6, alpha=0.55, transform=axes.transAxes, clip_on=False)
            text = axes.text(at, share, label, va="center", ha="left", fontsize=8.5, color=color,
                             fontweight="bold" if bold else "normal", transform=axes.transAxes)
            self.mark(line, policy)
            self.mark(text, policy)

    def height_of_names(self, count, least=4.2):
        return max(least, (count * 11.5 + 90.0) / 72.0)

    def dots(self, axes, rows, figure, ratios, policies, labels=True):
        """One line per policy, one mark per ratio."""
        for y, policy in enumerate(policies):
            values = [(ratios.index(key[1]), row[figure]) for key, row in rows.items() if key[0] == policy]
            color = family_of(policy)[1]
            line, = axes.plot([min(v for _, v in values), max(v for _, v in values)], [y, y], color=color, linewidth=1,
                              alpha=0.6)
            self.mark(line, policy)
            for i, value in values:
                dot, = axes.plot([value], [y], marker=RATIO_MARKERS[i % len(RATIO_MARKERS)], color=color, markersize=5,
                                 markeredgecolor=SURFACE, markeredgewidth=0.6, linestyle="none")
                self.mark(dot, policy)
        axes.set_ylim(len(policies) - 0.4, -0.6)
        axes.set_yticks(range(len(policies)), [shortened(policy) for policy in policies] if labels else [])
        axes.tick_params(axis="y", length=0)
        if labels:
            for label, policy in zip(axes.get_yticklabels(), policies):
                label.set_color(family_of(policy)[1])
                label.set_fontsize(8.5)
                self.mark(label, policy)
        axes.grid(alpha=0.8)

    def ratio_legend(self, figure, ratios):
        handles = [self.matplotlib.lines.Line2D([], [], linestyle="none", color=MUTED, markersize=5,
                                                marker=RATIO_MARKERS[i % len(RATIO_MARKERS)])
                   for i in range(len(ratios))]
        figure.legend(handles, [share_name(ratio) for ratio in ratios], loc="upper right", ncol=len(ratios),
                      fontsize=8.5, handletextpad=0.2, columnspacing=1.2)

    def plain_log(self, axis):
        """Ticks 0.01, 0.02, 0.05, not powers of ten."""
        axis.set_major_locator(self.ticker.LogLocator(subs=(1.0, 2.0, 5.0), numticks=30))
        axis.set_minor_locator(self.ticker.NullLocator())
        axis.set_major_formatter(self.ticker.FuncFormatter(lambda value, _: f"{value:g}"))


def grouped(rows, keys):
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def ratios_of(rows):
    """Of methods; the full cache keeps all and says nothing about a ratio."""
    return sorted({row["keep_ratio"] for row in rows if row["keep_ratio"] is not None and row["policy"] != "full"},
                  reverse=True)


def ratios_to_open(rows):
    """The one that is drawn first, then the rest: a quarter is where methods differ."""
    ratios = ratios_of(rows) or [None]
    return sorted(ratios, key=lambda ratio: ratio != 0.25)


def collapsed(parts, title):
    """The first is open, the rest can be opened."""
    return parts[0] + "".join(f"<details><summary>{html.escape(title(i))}</summary>{part}</details>\n"
                              for i, part in enumerate(parts) if i > 0)


# --------------------------------------------------------------------------------------------------------- sections

def bytes_share(row):
    return row["bytes_held"] / row["bytes_full"]


def has_loss(row):
    return row["kld_mean"] is not None and row["bytes_held"] is not None and (row["bytes_full"] or 0.0) > 0.0 \
        and row["bytes_held"] > 0.0


def pareto(points):
    """Those that nothing beats in both: (bytes, loss, policy), ascending bytes. 3 % of the bytes are no difference:
    rounding to whole tokens makes them."""
    points = sorted(points)
    return [(share, loss, policy) for share, loss, policy in points
            if not any(other <= 1.03 * share and better < loss for other, better, _ in points)]


def loss_figure(painter, rows):
    """rows of one task and context: {(policy, ratio): row}"""
    lines = {}
    for (policy, _), row in rows.items():
        lines.setdefault(policy, []).append((bytes_share(row), row["kld_mean"], row))
    full = lines.pop("full", None)
    losses = [loss for points in lines.values() for _, loss, _ in points if loss > 0.0]
    figure, axes = painter.figure(painter.height_of_names(len(lines), 5.2))
    figure.subplots_adjust(left=0.06, right=0.7, top=0.97, bottom=46.0 / 72.0 / figure.get_figheight())
    axes.set(xscale="log", yscale="log", xlabel="bytes held / bytes of the full cache, f16 (smaller to the right)",
             ylabel="KL divergence to the full cache [nats]")
    floor = 0.7 * min(losses) if losses else 1e-4  # a loss of 0 has no place on a log axis
    shares = [share for points in lines.values() for share, _, _ in points] or [0.5]
    axes.set_ylim(floor * 0.85, 1.35 * max(losses, default=1.0))
    axes.set_xlim(max(1.06, 1.05 * max(shares)), 0.94 * min(shares))
    front = pareto((share, max(loss, floor), policy) for policy, points in lines.items() for share, loss, _ in points)
    on_front = {policy for _, _, policy in front}
    ends = []
    for policy, points in lines.items():
        _, color, _, _, marker, _ = family_of(policy)
        points = sorted(points, key=lambda p: -p[0])
        x, y = [p[0] for p in points], [max(p[1], floor) for p in points]
        important = policy in on_front or policy in BASELINES
        line, = axes.plot(x, y, color=color, marker=marker, markersize=5.5 if important else 4,
                          linewidth=1.9 if important else 1.0, linestyle="--" if policy == "random" else "-",
                          markeredgecolor=SURFACE, markeredgewidth=0.6, alpha=1.0 if important else 0.75,
                          zorder=3 if important else 2)
        painter.mark(line, policy)
        bars = [(share, row["kld_mean_lo"], row["kld_mean_hi"]) for share, _, row in points
                if row["kld_mean_lo"] is not None and row["kld_mean_hi"] is not None]
        if bars:
            drawn = axes.vlines([b[0] for b in bars], [max(b[1], floor) for b in bars],
                                [max(b[2], floor) for b in bars], color=color, linewidth=1.1, alpha=0.6)
            painter.mark(drawn, policy)
        ends.append((x[-1], y[-1], shortened(policy), policy, important))
    if len(front) > 0:
        axes.plot([p[0] for p in front], [p[1] for p in front], linestyle="none", marker="o", markersize=12,
                  markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.1, zorder=4)
        axes.plot([p[0] for p in front], [p[1] for p in front], color=INK, linewidth=0.9, linestyle=":", zorder=1)
    axes.axvline(1.0, color=INK, linewidth=1.0, linestyle=(0, (6, 3)))
    if full:
        loss = max(full[0][1], floor)
        line = axes.axhline(loss, color=INK, linewidth=1.2, linestyle=(0, (6, 3)))
        painter.mark(line, "full")
        painter.mark(axes.annotate(f"full cache: {written(full[0][1])}"
                                   + (" (below the axis)" if full[0][1] < floor else ""), (1.0, loss), (5, 3),
                                   textcoords="offset points", fontsize=8.5), "full")
    painter.plain_log(axes.yaxis)
    ticks = [0.5 ** i for i in range(20) if 0.5 ** i >= 0.93 * min(shares)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.8)
    painter.label_ends(axes, ends, 1.06)
    best = min((p for p in front), key=lambda p: p[1], default=None)
    return painter.svg(figure, f"KL divergence against share of bytes for {len(lines)} policies. On the Pareto front: "
                       + "; ".join(f"{policy} at {share:.3g} of the bytes {written(loss)}"
                                   for share, loss, policy in front)
                       + (f". Lowest loss: {best[2]}." if best else ".")), front


def loss_section(painter, rows):
    rows = [row for row in rows if has_loss(row)]
    groups = {key: cells(group, ("policy", "keep_ratio"), "kld_mean")
              for key, group in grouped(rows, ("model", "task", "mode", "length")).items()}
    groups = {key: group for key, group in groups.items() if any(policy != "full" for policy, _ in group)}
    if not groups:
        return ""
    parts = ["<p>Further right is smaller, further down is better. Every line is a policy at its keep ratios; bars are "
             "95 % intervals where the files have them. Rings mark the <b>Pareto front</b>: nothing else is both "
             "smaller and better. What does not stay well below the dashed <b>random</b> line is not worth its name; "
             "the <b>full</b> cache is the goal.</p>\n"]
    for key, group in groups.items():
        svg, front = loss_figure(painter, group)
        ringed = {(policy, share) for share, _, policy in front}
        first = next(iter(group.values()))
        lines = [[policy, row["kept"], bytes_share(row), row["kld_mean"], row["kld_mean_lo"], row["kld_mean_hi"],
                  row["kld_p99"], row["ppl_ratio"],
                  None if row["top1_agreement"] is None else 100.0 * row["top1_agreement"], row["samples"],
                  "front" if (policy, bytes_share(row)) in ringed else ""]
                 for (policy, _), row in sorted(group.items(), key=lambda g: (-(g[1]["keep_ratio"] or 0),
                                                                              g[1]["kld_mean"]))]
        contexts = {row["context"] for row in group.values()}
        length = contexts.pop() if len(contexts) == 1 else key[3]
        parts.append(figure_of(f"{title_of(first, rows)}: {written(length, 5)} tokens of context", svg, behind(
            ["policy", "keep", "bytes", "KLD", "lo", "hi", "KLD p99", "ppl ratio", "top-1 %", "samples", "Pareto"],
            lines)))
    return section("loss", "Loss against bytes", "".join(parts))


def heat_cell(painter, axes, x, y, value, text_size=8.0):
    patch = painter.matplotlib.patches.Rectangle((x - 0.47, y - 0.46), 0.94, 0.92, linewidth=0,
                                                 facecolor=HEAT if value is not None else GRID,
                                                 alpha=0.25 if value is None else 0.03 + 0.97 * min(max(value, 0), 1))
    patch.set_clip_on(False)
    axes.add_patch(patch)
    text = "–" if value is None else f"{value:.0f}" if round(value, 2) in (0.0, 1.0) else f"{value:.2f}".lstrip("0")
    axes.text(x, y, text, ha="center", va="center", fontsize=text_size, color=MUTED if value is None else INK)


def bare(axes):
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


def depth_bin(depth, depths):
    return depth if len(depths) <= 12 else min(math.floor(depth * 10.0), 9) / 10.0 + 0.05


def depth_figure(painter, group, policies, depths, lengths):
    """group: {(policy, depth, length): row}"""
    columns = min(5, len(policies))
    lines = math.ceil(len(policies) / columns)
    height = 0.55 + lines * (0.48 + 0.2 * len(depths))
    figure, grid = painter.figure(height, nrows=lines, ncols=columns, squeeze=False)
    figure.subplots_adjust(left=0.055, right=0.995, top=1 - 0.3 / height, bottom=0.45 / height,
                           wspace=0.08, hspace=0.5 / (0.2 * len(depths)))
    for i, axes in enumerate(grid.flat):
        bare(axes)
        if i >= len(policies):
            axes.set_axis_off()
            continue
        policy = policies[i]
        for y, depth in enumerate(depths):
            for x, length in enumerate(lengths):
                row = group.get((policy, depth, length))
                heat_cell(painter, axes, x, y, row and row["accuracy"])
        axes.set(xlim=(-0.5, len(lengths) - 0.5), ylim=(len(depths) - 0.5, -0.5))
        axes.set_xticks(range(len(lengths)), [written(length, 5) for length in lengths], fontsize=8)
        axes.set_yticks(range(len(depths)), [f"{depth:.2g}" for depth in depths] if i % columns == 0 else [],
                        fontsize=8)
        axes.set_title(shortened(policy, 30), fontsize=8.5, color=family_of(policy)[1], pad=3)
        painter.mark(axes.title, policy)
        painter.mark(axes._left_title, policy)
    figure.text(0.5, 0.06 / height, "context [tokens]", ha="center", fontsize=9)
    figure.text(0.006, 0.5, "depth of the needle", rotation=90, va="center", fontsize=9)
    means = sorted(((statistics.mean(row["accuracy"] for (p, _, _), row in group.items() if p == policy), policy)
                    for policy in policies), reverse=True)
    return painter.svg(figure, f"Accuracy by depth and length for {len(policies)} policies; on average "
                       + ", ".join(f"{policy} {mean:.2f}" for mean, policy in means))


def depth_section(painter, rows):
    rows = [dict(row) for row in rows if row["depth"] is not None and row["accuracy"] is not None
            and row["length"] is not None]
    if not rows:
        return ""
    depths = {row["depth"] for row in rows}
    for row in rows:
        row["depth"] = depth_bin(row["depth"], depths)
    parts = ["<p>One map per policy: the needle lies deeper further down (0 is the start of the text), the context "
             "grows to the right, and a cell is the share of right answers. An even, full blue finds the needle "
             "everywhere; a pale band says where the policy forgets.</p>\n"]
    for _, group in grouped(rows, ("model", "task", "mode")).items():
        pieces, titles = [], []
        for ratio in ratios_to_open(group):
            chosen = cells([row for row in group if row["keep_ratio"] == ratio or row["policy"] == "full"],
                           ("policy", "depth", "length"), "accuracy")
            policies = list(dict.fromkeys(key[0] for key in chosen))
            order = {policy: statistics.mean(row["accuracy"] for key, row in chosen.items() if key[0] == policy)
                     for policy in policies}
            policies.sort(key=lambda p: (p != "full", p != "random", -order[p]))
            svg = depth_figure(painter, chosen, policies, sorted({key[1] for key in chosen}),
                               sorted({key[2] for key in chosen}))
            lines = [[policy, row["kept"], depth, length, row["accuracy"], row["answer_nll"], row["samples"]]
                     for (policy, depth, length), row in chosen.items()]
            titles.append(f"{title_of(group[0], rows)}: {share_name(ratio)}")
            pieces.append(figure_of(titles[-1], svg, behind(
                ["policy", "keep", "depth", "context", "accuracy", "answer NLL", "samples"], lines)))
        parts.append(collapsed(pieces, lambda i: titles[i]))
    return section("depth", "Needle by depth and length", "".join(parts))


def accuracy_figure(painter, group, policies, ratios, turns):
    """group: {(policy, ratio, turn): row}; one block of columns per ratio"""
    blocks = [None] + ratios if any(policy == "full" for policy, _, _ in group) else ratios
    width = len(turns) + 0.7
    height = 0.85 + 0.185 * len(policies)
    figure, axes = painter.figure(height)
    total = width * len(blocks)
    right = min(0.985, 0.33 + 0.05 * total)
    figure.subplots_adjust(left=0.32, right=right, top=1 - 0.55 / height, bottom=0.1 / height)
    bare(axes)
    axes.set(xlim=(-0.6, total - 0.9), ylim=(len(policies) - 0.5, -0.5))
    for b, ratio in enumerate(blocks):
        for t, turn in enumerate(turns):
            axes.text(b * width + t, -0.62, turn_name(turn), ha="center", va="bottom",
                      fontsize=8, color=MUTED)
            for y, policy in enumerate(policies):
                row = next((row for (p, r, n), row in group.items()
                            if p == policy and n == turn and (ratio is None if p == "full" else r == ratio)), None)
                if row is not None:
                    heat_cell(painter, axes, b * width + t, y, row["accuracy"])
                elif ratio is not None and any(p == policy and r == ratio for p, r, _ in group):
                    heat_cell(painter, axes, b * width + t, y, None)
        axes.text(b * width - 0.47, -1.62, "full cache" if ratio is None else "own share" if ratio == OWN_SHARE else
                  f"{ratio:g} kept", fontsize=9,
                  va="bottom", fontweight="bold")
    axes.text(-0.75, -0.62, "turn", ha="right", va="bottom", fontsize=8, color=MUTED)
    axes.set_xticks([])
    axes.set_yticks(range(len(policies)), [shortened(policy, 52) for policy in policies], fontsize=8.5)
    for label, policy in zip(axes.get_yticklabels(), policies):
        label.set_color(family_of(policy)[1])
        painter.mark(label, policy)
    return painter.svg(figure, f"Share of right answers per turn for {len(policies)} policies, best first: "
                       + ", ".join(policies[:8]))


def accuracy_section(painter, rows):
    rows = [row for row in rows if row["accuracy"] is not None]
    if not rows:
        return ""
    parts = ["<p>Share of right answers to the questions about one text. The cache was compressed once, before the "
             "first question (<b>agnostic</b>) or with it in sight (<b>aware</b>), and they were asked one after the "
             "other, or each alone on a fresh copy (<b>requests</b>). A policy that fades in later turns kept what the "
             "first question needed and threw away the rest. Best first; intervals stand in the table.</p>\n"]
    for _, group in grouped(rows, ("model", "task", "mode")).items():
        if any(row["turn"] is not None for row in group):
            group = [row for row in group if row["turn"] is not None]
        merged = cells(group, ("policy", "keep_ratio", "turn"), "accuracy")
        mean = {policy: statistics.mean(row["accuracy"] for key, row in merged.items() if key[0] == policy)
                for policy, _, _ in merged}
        lengths = sorted({row["length"] for row in group if row["length"] is not None})
        title = title_of(group[0], rows)
        if lengths:
            names = [written(length, 5) for length in lengths]
            title += ": " + " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) + " tokens of context" \
                + (" together" if len(names) > 1 else "")
        policies = sorted(mean, key=lambda p: (p != "full", -mean[p]))
        turns = sorted({key[2] for key in merged}, key=lambda turn: turn or 0.0)
        svg = accuracy_figure(painter, merged, policies, ratios_of(group), turns)
        lines = [[policy, row["kept"], turn_name(turn), row["accuracy"], row["accuracy_lo"], row["accuracy_hi"],
                  row["answer_nll"], row["samples"]]
                 for policy in policies for (p, ratio, turn), row in merged.items() if p == policy]
        parts.append(figure_of(title, svg, behind(
            ["policy", "keep", "turn", "accuracy", "lo", "hi", "answer NLL", "samples"], lines)))
    return section("accuracy", "Accuracy per turn", "".join(parts))


def together(ends):
    """Lines that end within 1 % of each other get one name: (x, y, label, policy, bold)."""
    groups = []
    for end in sorted(ends, key=lambda e: (e[0], e[1])):
        last = groups[-1] if groups else None
        if last and last[0][0] == end[0] and abs(end[1] - last[0][1]) <= 0.01 * last[0][1]:
            last.append(end)
        else:
            groups.append([end])
    for group in groups:
        first = min(group, key=lambda e: (e[3] not in BASELINES, e[3]))
        more = "" if len(group) == 1 else f" and {len(group) - 1} more"
        yield (first[0], first[1], shortened(first[2], 30 - len(more)) + more, first[3], first[4])


def speed_figure(painter, rows):
    """rows of one ratio: {(policy, length): row}, with several lengths"""
    policies = list(dict.fromkeys(key[0] for key in rows))
    figure, both = painter.figure(painter.height_of_names(len(policies), 3.6), ncols=2)
    figure.subplots_adjust(left=0.055, right=0.8, wspace=0.85, top=0.95, bottom=40.0 / 72.0 / figure.get_figheight())
    for axes, name, unit in ((both[0], "decode_ms_per_token", 1.0), (both[1], "bytes_held", 1.0 / (1 << 20))):
        ends, values = [], [row[name] * unit for row in rows.values() if row[name]]
        if axes is both[0] and max(values) > 12.0 * min(values):  # one slow run flattens all others
            axes.set_yscale("log")
            painter.plain_log(axes.yaxis)
        for policy in policies:
            points = sorted((key[1], row[name] * unit) for key, row in rows.items()
                            if key[0] == policy and row[name] is not None)
            if not points:
                continue
            _, color, _, _, marker, _ = family_of(policy)
            line, = axes.plot(*zip(*points), color=color, marker=marker, markersize=4, linewidth=1.2,
                              linestyle="--" if policy in BASELINES else "-", markeredgecolor=SURFACE,
                              markeredgewidth=0.5)
            painter.mark(line, policy)
            ends.append((*points[-1], policy, policy, policy in BASELINES))
        lengths = sorted({key[1] for key in rows})
        axes.set_xscale("log")
        axes.set_xticks(lengths, [written(length, 5) for length in lengths])
        axes.minorticks_off()
        axes.set_xlabel("context [tokens]")
        if axes.get_yscale() == "linear":
            axes.set_ylim(0.0, None)
        axes.grid(alpha=0.8)
        painter.label_ends(axes, list(together(ends)), 1.1)
    both[0].set_title("decoding [ms per token]")
    both[1].set_title("held right after compression [MiB]")
    return painter.svg(figure, f"Time per decoded token and memory against context length for {len(policies)} policies")


def speed_dots(painter, rows):
    """rows of one length: {(policy, ratio): row}"""
    ratios = sorted({key[1] for key in rows}, key=lambda ratio: -(ratio or 0.0))
    order = {}
    for (policy, _), row in rows.items():
        order[policy] = min(order.get(policy, math.inf), row["decode_ms_per_token"])
    policies = sorted(order, key=order.get)
    height = 0.9 + 0.175 * len(policies)
    figure, both = painter.figure(height, ncols=2)
    figure.subplots_adjust(left=0.3, right=0.985, wspace=0.06, top=1 - 0.5 / height, bottom=0.32 / height)
    for axes, name, unit, title in ((both[0], "ms", 1.0, "decoding [ms per token]"),
                                    (both[1], "MiB", 1.0 / (1 << 20), "held right after compression [MiB]")):
        source = "decode_ms_per_token" if name == "ms" else "bytes_held"
        values = {key: {**row, name: row[source] * unit} for key, row in rows.items()}
        painter.dots(axes, values, name, ratios, policies, labels=axes is both[0])
        largest = max(row[name] for row in values.values())
        if largest > 12.0 * min(row[name] for row in values.values()) > 0.0:
            axes.set_xscale("log")
            painter.plain_log(axes.xaxis)
        else:
            axes.set_xlim(0.0, 1.05 * largest)
        axes.set_title(title)
    painter.ratio_legend(figure, ratios)
    return painter.svg(figure, f"Time per decoded token and memory for {len(policies)} policies; "
                       f"fastest: {policies[0]}")


def speed_section(painter, rows):
    rows = [row for row in rows if (row["decode_ms_per_token"] or 0.0) > 0.0 and row["bytes_held"] is not None
            and row["length"] is not None]
    if not rows:
        return ""
    parts = ["<p>What a smaller cache buys: time per decoded token and memory, against the length of the context. The "
             "full cache grows in both; how flat the others stay is the point. Times are of this run on this machine: "
             "compare them with each other, not with other pages.</p>\n"]
    for _, group in grouped(rows, ("model",)).items():
        lengths = {row["length"] for row in group}
        model = group[0]["model"] if len({row["model"] for row in rows}) > 1 else ""
        pieces, titles = [], []
        head = ["policy", "keep", "context", "ms per token", "tokens/s", "MiB", "bytes", "prefill ms", "samples"]

        def lines_of(chosen):
            return [[row["policy"], row["kept"], row["length"], row["decode_ms_per_token"],
                     1000.0 / row["decode_ms_per_token"], row["bytes_held"] / (1 << 20),
                     row["bytes_held"] / row["bytes_full"] if row["bytes_full"] else None, row["prefill_ms"],
                     row["samples"]] for row in chosen.values()]
        if len(lengths) > 1:
            for ratio in ratios_to_open(group):
                chosen = cells([row for row in group if row["keep_ratio"] == ratio or row["policy"] == "full"],
                               ("policy", "length"), "decode_ms_per_token")
                titles.append(", ".join(filter(None, [model, share_name(ratio)])))
                pieces.append(figure_of(titles[-1], speed_figure(painter, chosen), behind(head, lines_of(chosen))))
        else:
            chosen = cells(group, ("policy", "keep_ratio"), "decode_ms_per_token")
            titles.append(", ".join(filter(None, [model, f"{written(max(lengths), 5)} tokens of context"])))
            pieces.append(figure_of(titles[-1], speed_dots(painter, chosen), behind(head, lines_of(chosen))))
        parts.append(collapsed(pieces, lambda i: titles[i]))
    return section("speed", "Decode speed and memory against context length", "".join(parts))


def select_section(painter, rows):
    rows = [dict(row) for row in rows if (row["select_ms"] or 0.0) > 0.0]
    if not rows:
        return ""
    parts = ["<p>How long a policy takes to decide, on one thread, scoring included, on a log axis. It is paid once "
             "per compression; the table sets it against the prefill it comes after.</p>\n"]
    for _, group in grouped(rows, ("model",)).items():
        longest = max((row["length"] or 0.0) for row in group)
        group = [row for row in group if (row["length"] or 0.0) == longest]
        layers = next((row["layers"] for row in group if row["layers"]), None)
        for row in group:
            row["ms"] = row["select_ms"] / (layers or 1)
        chosen = cells(group, ("policy", "keep_ratio"), "select_ms")
        for row in chosen.values():
            row["ms"] = row["select_ms"] / (layers or 1)
        ratios = sorted({key[1] for key in chosen}, key=lambda ratio: -(ratio or 0.0))
        slowest = {}
        for (policy, _), row in chosen.items():
            slowest[policy] = max(slowest.get(policy, 0.0), row["ms"])
        policies = sorted(slowest, key=slowest.get)
        height = 0.9 + 0.175 * len(policies)
        figure, axes = painter.figure(height)
        figure.subplots_adjust(left=0.3, right=0.985, top=1 - 0.35 / height, bottom=0.5 / height)
        axes.set_xscale("log")
        painter.dots(axes, chosen, "ms", ratios, policies)
        painter.plain_log(axes.xaxis)
        if max(slowest.values()) > 30.0 * min(row["ms"] for row in chosen.values()):
            axes.xaxis.set_major_locator(painter.ticker.LogLocator(numticks=30))
        axes.set_xlabel(f"ms of selection per layer (all {layers} layers divided by {layers})" if layers else
                        "ms of selection, all layers together (the file does not say how many)")
        painter.ratio_legend(figure, ratios)
        svg = painter.svg(figure, f"Milliseconds of selection for {len(policies)} policies, fastest first: "
                          + ", ".join(f"{policy} {written(slowest[policy])}" for policy in policies[:10]))
        lines = [[row["policy"], row["kept"], row["ms"] if layers else None, row["select_ms"], row["compact_ms"],
                  row["prefill_ms"], 100.0 * row["select_ms"] / row["prefill_ms"] if row["prefill_ms"] else None]
                 for _, row in sorted(chosen.items(), key=lambda entry: entry[1]["ms"])]
        model = group[0]["model"] + ", " if len({row["model"] for row in rows}) > 1 else ""
        parts.append(figure_of(f"{model}{written(longest or None, 5)} tokens of context", svg, behind(
            ["policy", "keep", "select ms per layer", "select ms", "compact ms", "prefill ms", "% of prefill"], lines)))
    return section("select", "Time to select, per layer", "".join(parts))


def keeps_all(kept):
    return all(len(tokens) == kept["context"] for layer in kept["layers"] for tokens in layer)


def kept_counts(kept):
    counts = [0] * kept["context"]
    for heads in kept["layers"]:
        for tokens in heads:
            for token in tokens:
                counts[token] += 1
    return counts


def kept_figure(painter, kept):
    heads = [tokens for layer in kept["layers"] for tokens in layer]
    context = kept["context"]
    bins = min(context, 2048)
    alpha = [[0.0] * bins for _ in heads]
    for line, tokens in zip(alpha, heads):
        for token in tokens:
            line[token * bins // context] += 1.0
    sizes = [0] * bins
    for token in range(context):
        sizes[token * bins // context] += 1
    image = [[(0.23, 0.52, 0.86, count / size) for count, size in zip(line, sizes)] for line in alpha]
    map_height = min(max(1.2, 0.055 * len(heads)), 9.0)
    height = map_height + 1.45
    figure, grid = painter.figure(height, nrows=2, ncols=2, squeeze=False, sharex="col", sharey="row",
                                  gridspec_kw=dict(width_ratios=(10, 1), height_ratios=(0.7, map_height)))
    figure.subplots_adjust(left=0.06, right=0.99, top=1 - 0.08 / height, bottom=0.45 / height, wspace=0.02,
                           hspace=0.12 / height * 2)
    (shared, corner), (raster, shares) = grid
    corner.set_axis_off()
    raster.imshow(image, aspect="auto", interpolation="none", extent=(0, context, len(heads), 0))
    edges = [0]
    for layer in kept["layers"]:
        edges.append(edges[-1] + len(layer))
    for edge in edges[1:-1]:
        raster.axhline(edge, color=GRID, linewidth=0.4)
    step = max(1, math.ceil(len(kept["layers"]) / 15))
    shown = range(0, len(kept["layers"]), step)
    raster.set_yticks([(edges[i] + edges[i + 1]) / 2 for i in shown], [str(i) for i in shown], fontsize=8)
    raster.set(xlabel="token", ylabel="layer; inside it, its kv heads", xlim=(0, context))
    counts = kept_counts(kept)
    shared.fill_between([token + 0.5 for token in range(context)], [100.0 * c / len(heads) for c in counts], step="mid",
                        color=HEAT, linewidth=0)
    shared.set(ylim=(0, 105), ylabel="% of heads")
    shared.yaxis.label.set_fontsize(8)
    shared.tick_params(labelbottom=False)
    shared.set_yticks([0, 100])
    shares.barh([i + 0.5 for i in range(len(heads))], [100.0 * len(tokens) / context for tokens in heads], height=1.0,
                color=HEAT, edgecolor=HEAT, linewidth=0.4)
    shares.set_xlabel("% kept")
    shares.tick_params(labelleft=False, length=0)
    shares.set_xlim(0, max(5.0, 105.0 * max(len(tokens) for tokens in heads) / context))
    mean = statistics.mean(len(tokens) for tokens in heads)
    return painter.svg(figure, f"Which of {context} tokens each of {len(heads)} kv heads in {len(kept['layers'])} "
                       f"layers keeps with {kept['policy']}: {mean:.0f} on average; {counts.count(len(heads))} tokens "
                       f"are kept by all heads and {counts.count(0)} by none")


def kept_section(painter, maps):
    if not maps:
        return ""
    parts = ["<p>Each row is a kv head, layer 0 on top; each column a token, the start of the text on the left; blue "
             "is kept. Vertical stripes are tokens that all heads agree on, the ragged rest is what each head has for "
             "itself. Above: how many heads keep a token. Right: how much each head keeps.</p>\n"]
    whole = [kept["policy"] for kept in maps if keeps_all(kept)]
    if 0 < len(whole) < len(maps):  # a map of everything shows nothing
        maps = [kept for kept in maps if not keeps_all(kept)]
        parts.append("<p>Without a map, as all heads keep all tokens: "
                     + ", ".join(f"<code>{html.escape(policy)}</code>" for policy in dict.fromkeys(whole)) + ".</p>\n")
    pieces, titles = [], []
    for kept in maps:
        heads = sum(len(layer) for layer in kept["layers"])
        counts = kept_counts(kept)
        words = ""
        if kept["pieces"]:
            spans = "".join(
                f'<span style="--k:{count / heads:.2f}" title="token {i}: {count} of {heads} heads">'
                f"{html.escape(piece)}</span>" for i, (piece, count) in enumerate(zip(kept["pieces"], counts)))
            words = ('<details open><summary>The text itself, bluer where more heads keep the token</summary>'
                     f'<div class="words">{spans}</div></details>\n')
        lines = []
        for i, layer in enumerate(kept["layers"]):
            sets = [set(tokens) for tokens in layer]
            lines.append([f"{i}", ", ".join(str(len(tokens)) for tokens in layer),
                          float(len(set.intersection(*sets))) if sets else 0.0,
                          float(len(set.union(*sets))) if sets else 0.0])
        ratio = kept["keep_ratio"] if isinstance(kept["keep_ratio"], (int, float)) else None
        titles.append(", ".join(filter(None, [kept["policy"], kept["name"], share_name(ratio) if ratio else "",
                                              f"{kept['context']:,} tokens"])))
        pieces.append(figure_of(titles[-1], kept_figure(painter, kept), words + behind(
            ["layer", "kept per kv head", "kept by all its heads", "kept by any"], lines)))
    parts.append(collapsed(pieces, lambda i: titles[i]))
    return section("kept", "Which tokens each head keeps", "".join(parts))


def summary_section(rows):
    """The best of each task at each ratio, and what they have to beat."""
    methods = [row for row in rows if row["policy"] not in BASELINES]
    ratios = ratios_of([row for row in methods if row["accuracy"] is not None or row["kld_mean"] is not None])
    if not ratios:
        return ""
    lines = []
    for _, group in grouped(rows, ("model", "task", "mode")).items():
        exact = any(row["accuracy"] is not None for row in group)
        figure = "accuracy" if exact else "kld_mean"
        parts = [(("accuracy" if exact else "KLD"), group)]
        turns = {row["turn"] for row in group if row["turn"] is not None and row[figure] is not None}
        if len(turns) > 1:
            first = min(turns)
            later = [row for row in group if row["turn"] == LATER] or [
                row for row in group if row["turn"] is not None and row["turn"] > first]
            parts = [("accuracy, turn 1" if exact else "KLD, turn 1", [row for row in group if row["turn"] == first]),
                     ("later turns", later)]
        for name, part in parts:
            merged = cells(part, ("policy", "keep_ratio"), figure)
            if not any(policy not in BASELINES for policy, _ in merged):
                continue
            full = next((row[figure] for (policy, _), row in merged.items() if policy == "full"), None)
            line = [f"<th scope=row>{html.escape(title_of(group[0], rows))}<small>{name}</small></th>",
                    f'<td class="n">{written(full)}</td>']
            for ratio in ratios:
                ranked = sorted((((-row[figure] if exact else row[figure]), row["answer_nll"] or 0.0, policy, row)
                                 for (policy, r), row in merged.items() if r == ratio and policy not in BASELINES),
                                key=lambda entry: entry[:3])
                items = "".join(
                    f'<li class="s" data-s="{entry[3]["number"]}"><code>{html.escape(entry[2])}</code> '
                    f"<b>{written(entry[3][figure])}</b></li>" for entry in ranked[:3])
                ties = sum(entry[0] == ranked[0][0] for entry in ranked) - 3 if ranked else 0
                if ties > 0:
                    items += f"<li class=more>and {ties} more as good as the first</li>"
                random = merged.get(("random", ratio))
                if random:
                    items += f"<li class=more>random <b>{written(random[figure])}</b></li>"
                line.append(f"<td><ol>{items}</ol></td>" if items else "<td>–</td>")
            lines.append("<tr>" + "".join(line) + "</tr>\n")
    head = "".join(f'<th scope="col">{html.escape(share_name(ratio))}</th>' for ratio in ratios)
    return section("summary", "The best of each task", (
        "<p>The three best policies of each task at each keep ratio, with <b>full</b> (the goal) and <b>random</b> "
        "(what anything must beat). Accuracy is better when higher, KLD (KL divergence to the full cache, nats) when "
        "lower. Small gaps over few samples mean nothing: look at the intervals below.</p>\n"
        '<div class="wide"><table class="best"><thead><tr><th scope="col">task</th><th scope="col">full</th>'
        f"{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>\n"))


# ------------------------------------------------------------------------------------------------------------- page

def section(name, title, body):
    return f'<section id="{name}">\n<h2>{title}</h2>\n{body}</section>\n'


def figure_of(title, svg, rest):
    return f"<figure>\n<figcaption>{html.escape(title)}</figcaption>\n{svg}{rest}</figure>\n"


STYLE = """
:root { color-scheme: light dark; --surface: #ffffff; --ink: #16181d; --muted: #666b75; --grid: #dcdfe5;
  --heat: #79b0ee; --panel: #f4f5f8; LIGHT }
@media (prefers-color-scheme: dark) { :root { --surface: #14161b; --ink: #eceef2; --muted: #a0a6b2; --grid: #343944;
  --heat: #2f6bb8; --panel: #1d2027; DARK } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 78rem; padding: 1.5rem 1.25rem 4rem; background: var(--surface); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { font-size: 1.3rem; margin: 2.5rem 0 .25rem; }
p { max-width: 48rem; margin: .25rem 0 1rem; } .muted, small { color: var(--muted); } small { display: block; }
nav { position: sticky; top: 0; z-index: 1; background: var(--surface); border-bottom: 1px solid var(--grid);
  padding: .4rem 0; } nav a { margin-right: 1rem; } a { color: var(--f2); }
#legend { display: flex; flex-wrap: wrap; gap: .25rem .35rem; margin: .75rem 0; }
#legend button { font: 12.5px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; border: 1px solid var(--grid);
  border-radius: 1rem; background: none; color: var(--ink); padding: .1rem .6rem; cursor: pointer; }
#legend i { display: inline-block; width: .65rem; height: .65rem; border-radius: 50%; margin-right: .35rem; }
#legend button[aria-pressed=true] { background: var(--ink); color: var(--surface); }
#families span { white-space: nowrap; margin-right: 1rem; } #families i { display: inline-block; width: .75rem;
  height: .75rem; border-radius: 50%; margin-right: .3rem; }
figure { margin: 1rem 0 1.75rem; } figcaption { font-weight: 600; margin-bottom: .35rem; }
.wide { overflow-x: auto; } svg { display: block; width: 100%; min-width: 56rem; height: auto; }
svg text { font-family: system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif !important; }
details { margin: .25rem 0; } summary { cursor: pointer; color: var(--muted); }
table { border-collapse: collapse; font-size: .82rem; margin: .5rem 0; }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid var(--grid); vertical-align: top; }
thead th { border-bottom: 2px solid var(--muted); } .n { text-align: right; font-variant-numeric: tabular-nums; }
.best { font-size: .85rem; } .best ol { list-style: none; margin: 0; padding: 0; } .best .more { color: var(--muted); }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .92em; overflow-wrap: anywhere; }
.words { max-height: 24rem; overflow-y: auto; white-space: pre-wrap; padding: .75rem; background: var(--panel);
  font-size: .85rem; line-height: 1.6; }
.words span { background: color-mix(in srgb, var(--heat) calc(var(--k) * 100%), transparent); }
.lit .s { opacity: .13; } .lit .s.on { opacity: 1; } .s { transition: opacity .1s; }
@media print { nav, #legend { display: none; } }
"""

SCRIPT = """
(() => {
  const root = document.documentElement, legend = document.getElementById("legend");
  let pinned = null;
  const light = which => {
    root.classList.toggle("lit", which !== null);
    document.querySelectorAll(".s.on").forEach(e => e.classList.remove("on"));
    if (which !== null) document.querySelectorAll('.s[data-s="' + which + '"]').forEach(e => e.classList.add("on"));
    legend.querySelectorAll("button").forEach(e => e.setAttribute("aria-pressed", e.dataset.s === pinned));
  };
  const whose = event => { const e = event.target.closest("[data-s]"); return e ? e.dataset.s : null; };
  document.addEventListener("pointerover", event => { light(whose(event) ?? pinned); });
  document.addEventListener("click", event => {
    const which = whose(event);
    if (which === null) return;
    pinned = pinned === which ? null : which;
    light(pinned);
  });
  document.addEventListener("keydown", event => { if (event.key === "Escape") { pinned = null; light(null); } });
})();
"""


def described(value):
    if isinstance(value, dict):
        return ", ".join(f"{key} {described(item)}" for key, item in value.items())
    return str(value)


def head_of(files, policies):
    models = ", ".join(dict.fromkeys(file["model"] for file in files if file["model"]))
    lines = [[file["path"], file["model"], described(file["machine"] or ""), described(file["arguments"] or "")]
             for file in files]
    families = [(i, family) for i, family in enumerate(FAMILIES) if any(family_of(p) is family for p in policies)]
    shown = " ".join(f'<span><i style="background:var({VARIABLES[family[1]]})"></i>{family[0]}</span>'
                     for _, family in families)
    buttons = "".join(
        f'<button type="button" data-s="{i}" aria-pressed="false">'
        f'<i style="background:var({VARIABLES[family_of(policy)[1]]})"></i>{html.escape(shortened(policy, 60))}'
        "</button>"
        for i, policy in enumerate(policies))
    return (f"<h1>kvcrush-lab: what compression costs</h1>\n<p class=muted>{html.escape(models)}</p>\n"
            f"<details><summary>Where the figures come from</summary><div class=wide>"
            f"{table(['file', 'model', 'machine', 'arguments'], lines)}</div></details>\n"
            f'<p id="families">{shown}</p>\n'
            f"<details><summary>All {len(policies)} policies: point at one to see it alone, click to hold it, Esc to "
            f'let go</summary><div id="legend">{buttons}</div></details>\n')


def page_of(files):
    for file in files:
        mark_own_shares(file)
    rows = [row for file in files for row in file["rows"]]
    merge_lengths(rows)
    rows = without_parts_of_means(rows)
    maps = [kept for file in files for kept in file["maps"]]
    policies = list(dict.fromkeys([row["policy"] for row in rows] + [kept["policy"] for kept in maps]))
    policies.sort(key=lambda p: (p not in BASELINES, [f[0] for f in FAMILIES].index(family_of(p)[0])))
    for row in rows:
        row["number"] = policies.index(row["policy"])
    painter = Painter(policies)
    sections = [summary_section(rows), loss_section(painter, rows), depth_section(painter, rows),
                accuracy_section(painter, rows), speed_section(painter, rows), select_section(painter, rows),
                kept_section(painter, maps)]
    sections = [text for text in sections if text]
    if not sections:
        raise BadInput(f"file {quoted(files[0]['path'])} has results without a single figure to show")
    titles = [re.search(r'<section id="(\w+)">\n<h2>(.*?)</h2>', text).groups() for text in sections]
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in titles)
    style = STYLE
    for word, column in (("LIGHT", 2), ("DARK", 3)):
        style = style.replace(word, " ".join(f"{VARIABLES[f[1]]}: {f[column]};" for f in FAMILIES[1:]))
    return ('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
            f"<title>kvcrush-lab report</title>\n<style>{style}</style>\n</head>\n<body>\n"
            f"{head_of(files, policies)}<nav>{links}</nav>\n<main>\n{''.join(sections)}</main>\n"
            f"<script>{SCRIPT}</script>\n</body>\n</html>\n"), len(titles)


def write(path, text):
    """Under its name when it is complete, or not at all."""
    temporary = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", errors="replace")
        os.replace(temporary, path)
    except OSError as error:
        raise BadInput(f"file {quoted(path)} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def run(arguments):
    out = arguments.out or arguments.results[0].with_suffix(".html")
    if out.exists() and not out.is_file():
        raise BadInput(f"file {quoted(out)} is no ordinary file")
    if any(out.exists() and path.exists() and out.samefile(path) for path in arguments.results):
        raise BadInput(f"file {quoted(out)} holds results; name another with --out")
    if not out.parent.is_dir():
        raise BadInput(f"file {quoted(out)} cannot be written: there is no such folder")
    text, sections = page_of([read_file(path) for path in arguments.results])
    write(out, text)
    print(f"{out}: {sections} section{'s' if sections != 1 else ''}, {len(text) / 1024:.0f} KiB")


def main():
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="example:\n  kvcrush-lab run ... --json all.json\n"
                                            "  kvcrush-lab report all.json --out all.html")
    parser.add_argument("results", type=pathlib.Path, nargs="+", help="what run or eval wrote with --json")
    parser.add_argument("--out", type=pathlib.Path,
                        help="page to write (default: the first file, with .html at its end)")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except BadInput as problem:
        print(f"{PROGRAM}: {problem}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
