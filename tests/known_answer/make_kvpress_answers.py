#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Records what NVIDIA kvpress scores and keeps on the keys, values and queries of a real model.

    python3 -m venv kvpress-venv
    kvpress-venv/bin/pip install kvpress==0.5.5 "transformers<5.3" torch
    kvpress-venv/bin/python make_kvpress_answers.py smollm2_layers.safetensors kvpress_answers.safetensors

The presses are called one by one, on a stand-in for the attention layer that has just what they read. Everything is
computed in double precision, so that what is recorded is what the formulas say and not how one machine rounds.

kvpress asks for hidden states and projects them to queries. Here the hidden states are the queries before RoPE and the
projection is the identity, so every press still goes its own way: project, rotate, attend.
"""

import argparse
import importlib.metadata
import json
import logging
import os
from types import SimpleNamespace

import numpy
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file, safe_open

import kvpress

# Both leave room for the longest observation window, whose tokens kvpress scores alike.
KEEP_RATIOS = (0.4, 0.7)
NUM_LAYERS_OF_THE_MODEL = 30


class Rope:
    """Half-split RoPE in double precision, called as transformers calls its own."""

    def __init__(self, head_dim, theta):
        self.inv_freq = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)

    def __call__(self, like, position_ids):
        angles = position_ids[..., None].double() * self.inv_freq
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate_half(x):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


class Layer:
    """One attention layer: its rows, and the module that presses look at. All arrays have a batch axis of 1."""

    def __init__(self, arrays, index, theta):
        def get(name):
            return arrays[f"layer{index}.{name}"].double()[None]

        self.index = index
        self.keys, self.values, self.queries = get("keys"), get("values"), get("queries")
        _, self.num_q_heads, self.seq_len, self.head_dim = self.queries.shape
        self.num_kv_heads = self.keys.shape[1]
        self.module = torch.nn.Module()
        self.module.layer_idx = index
        self.module.head_dim = self.head_dim
        self.module.num_key_value_groups = self.num_q_heads // self.num_kv_heads
        self.module.config = SimpleNamespace(
            num_attention_heads=self.num_q_heads,
            num_key_value_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            hidden_size=self.num_q_heads * self.head_dim,
            num_hidden_layers=NUM_LAYERS_OF_THE_MODEL,
            _attn_implementation="sdpa",
        )
        self.module.q_proj = torch.nn.Identity()
        self.module.rotary_emb = Rope(self.head_dim, theta)
        if f"layer{index}.output" in arrays:
            scale = arrays[f"layer{index}.output.scale"].double()
            weight = arrays[f"layer{index}.output"].double() * scale[:, None]
            self.module.o_proj = SimpleNamespace(weight=weight)

        cos, sin = self.module.rotary_emb(self.keys, torch.arange(self.seq_len)[None])
        self.position_embeddings = (cos, sin)
        before_rope = self.queries * cos[:, None] - rotate_half(self.queries) * sin[:, None]
        self.hidden_states = before_rope.transpose(1, 2).reshape(1, self.seq_len, -1)

        groups = self.module.num_key_value_groups
        logits = self.queries @ self.keys.repeat_interleave(groups, 1).transpose(2, 3)
        logits = logits / self.head_dim**0.5
        hidden = torch.ones(self.seq_len, self.seq_len, dtype=torch.bool).triu(1)
        self.attention = logits.masked_fill(hidden, float("-inf")).softmax(-1)

    def inputs(self, with_attention):
        return (
            self.module,
            self.hidden_states,
            self.keys.clone(),
            self.values.clone(),
            self.attention if with_attention else None,
            {"position_embeddings": self.position_embeddings},
        )

    def kept(self, press, with_attention=False):
        """[num_kv_heads, seq_len]: which rows a press leaves. Found by their keys, no two of which are equal."""
        self.module.masked_key_indices = None
        keys, _ = press.compress(*self.inputs(with_attention))
        if self.module.masked_key_indices is not None:
            stays = torch.ones(self.num_kv_heads, self.seq_len, dtype=torch.bool)
            _, heads, tokens = self.module.masked_key_indices
            stays[heads, tokens] = False
            return stays
        same = (keys[0][:, :, None] == self.keys[0][:, None]).all(-1)
        assert (same.sum(-1) == 1).all()
        return same.any(1)


class Answers:
    def __init__(self, layers):
        self.layers = layers
        self.arrays = {}
        self.cases = {}

    def add(self, name, value):
        assert name not in self.arrays
        if value.dtype == torch.float64:
            value = value.float()
        self.arrays[name] = numpy.ascontiguousarray(value.numpy())

    def record(self, name, make_press, about, *, scores=True, kept=True, with_attention=False, layers=None):
        """Scores [layers, num_kv_heads, seq_len] and, per keep ratio, what stays."""
        layers = self.layers if layers is None else layers
        self.cases[name] = {"press": about, "layers": [layer.index for layer in layers]}
        if scores:
            press = make_press(0.5)
            self.add(f"{name}.scores", torch.cat([press.score(*layer.inputs(with_attention)) for layer in layers]))
        if kept:
            for ratio in KEEP_RATIOS:
                press = make_press(1.0 - ratio)
                sets = [layer.kept(press, with_attention) for layer in layers]
                self.add(f"{name}.kept{round(ratio * 100)}", torch.stack(sets))


def record_scorers(answers):
    press = kvpress
    answers.record("knorm", press.KnormPress, "KnormPress")
    answers.record("streaming_llm", press.StreamingLLMPress, "StreamingLLMPress, n_sink 4")
    answers.record("snapkv", press.SnapKVPress, "SnapKVPress, window_size 64, kernel_size 5")
    answers.record(
        "snapkv_w16_k7",
        lambda r: press.SnapKVPress(r, window_size=16, kernel_size=7),
        "SnapKVPress, window_size 16, kernel_size 7",
    )
    answers.record("tova", press.TOVAPress, "TOVAPress")
    answers.record("observed_attention", press.ObservedAttentionPress, "ObservedAttentionPress", with_attention=True)
    answers.record(
        "expected_attention", press.ExpectedAttentionPress, "ExpectedAttentionPress, n_future_positions 512, n_sink 4"
    )
    answers.record(
        "expected_attention_mean",
        lambda r: press.ExpectedAttentionPress(r, use_covariance=False, epsilon=0.02),
        "ExpectedAttentionPress, use_covariance False, epsilon 0.02",
    )
    answers.record(
        "expected_attention_plain",
        lambda r: press.ExpectedAttentionPress(r, n_future_positions=37, use_vnorm=False),
        "ExpectedAttentionPress, n_future_positions 37, use_vnorm False",
    )
    answers.record("key_diff", press.KeyDiffPress, "KeyDiffPress")
    answers.record("lag_kv", lambda r: press.LagKVPress(r, lag_size=32), "LagKVPress, lag_size 32, n_sink 4")
    answers.record(
        "lag_kv_cross",
        lambda r: press.LagKVPress(r, lag_size=32, cross_scoring=True),
        "LagKVPress, lag_size 32, n_sink 4, cross_scoring True",
    )
    answers.record("lag_kv_short", press.LagKVPress, "LagKVPress, lag_size 128, n_sink 4: too long for the text")

    # Filters belong to a model; these come from the queries of this text. kvpress only multiplies by them.
    filters = torch.zeros(NUM_LAYERS_OF_THE_MODEL, answers.layers[0].num_kv_heads, answers.layers[0].head_dim).double()
    for layer in answers.layers:
        singular = torch.linalg.svd(layer.queries[0], full_matrices=False).Vh[:, 0]
        sign = torch.sign((layer.queries[0] @ singular[..., None]).mean(1))
        filters[layer.index] = -(singular * sign).view(layer.num_kv_heads, -1, layer.head_dim).mean(1)
    filters = filters.float().double()

    def q_filter_press(ratio):
        made = press.QFilterPress(ratio)
        made.q_filters = filters
        return made

    answers.add("q_filters.filters", filters[[layer.index for layer in answers.layers]].float())
    answers.record("q_filters", q_filter_press, "QFilterPress with the filters recorded here")


def record_selectors(answers):
    press = kvpress
    projected = [layer for layer in answers.layers if hasattr(layer.module, "o_proj")]
    answers.record(
        "chunk_kv_knorm",
        lambda r: press.ChunkKVPress(press.KnormPress(r)),
        "ChunkKVPress of KnormPress, chunk_length 20",
        scores=False,
    )
    answers.record(
        "chunk_kv_snapkv_c10",
        lambda r: press.ChunkKVPress(press.SnapKVPress(r), chunk_length=10),
        "ChunkKVPress of SnapKVPress, chunk_length 10",
        scores=False,
    )
    for name, alpha in (("20", 0.2), ("50", 0.5), ("0", 0.0), ("100", 1.0)):
        answers.record(
            f"ada_kv_snapkv_a{name}",
            lambda r, alpha=alpha: press.AdaKVPress(press.SnapKVPress(r), alpha),
            f"AdaKVPress of SnapKVPress, alpha_safeguard {alpha}",
            scores=False,
        )
    answers.record(
        "ada_kv_observed_attention_a20",
        lambda r: press.AdaKVPress(press.ObservedAttentionPress(r), 0.2),
        "AdaKVPress of ObservedAttentionPress, alpha_safeguard 0.2",
        scores=False,
        with_attention=True,
    )
    answers.record(
        "critical_kv_snapkv",
        lambda r: press.CriticalKVPress(press.SnapKVPress(r)),
        "CriticalKVPress of SnapKVPress, epsilon 1e-4, first_stage_ratio 0.5",
        scores=False,
        layers=projected,
    )
    answers.record(
        "critical_kv_observed_attention_f25",
        lambda r: press.CriticalKVPress(press.ObservedAttentionPress(r), epsilon=1e-3, first_stage_ratio=0.25),
        "CriticalKVPress of ObservedAttentionPress, epsilon 1e-3, first_stage_ratio 0.25",
        scores=False,
        with_attention=True,
        layers=projected,
    )
    answers.record(
        "critical_ada_kv_snapkv",
        lambda r: press.CriticalAdaKVPress(press.SnapKVPress(r)),
        "CriticalAdaKVPress of SnapKVPress, alpha_safeguard 0.2, epsilon 1e-4, first_stage_ratio 0.5",
        scores=False,
        layers=projected,
    )
    norms = [press.CriticalKVPress.vwl1norm(layer.values, layer.module) for layer in projected]
    answers.add("critical_kv.norms", torch.cat(norms))


def record_pyramid(answers):
    """Budgets of every layer, [cases, layers]; the cases are rows of (window, tokens, removed in percent, beta)."""
    cases = [
        (window, tokens, removed, beta)
        for window, beta in ((64, 20), (8, 20), (32, 5), (16, 1))
        for tokens in (233, 1000, 4096)
        for removed in (25, 50, 75, 90)
    ]
    module = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=NUM_LAYERS_OF_THE_MODEL))
    budgets = []
    for window, tokens, removed, beta in cases:
        press = kvpress.PyramidKVPress(removed / 100, window_size=window, beta=beta)
        for module.layer_idx in range(NUM_LAYERS_OF_THE_MODEL):
            budgets.append(press.get_layer_budget(module, tokens))
    answers.add("pyramid_kv.cases", torch.tensor(cases, dtype=torch.int32))
    answers.add("pyramid_kv.budgets", torch.tensor(budgets, dtype=torch.int32).view(len(cases), -1))
    answers.cases["pyramid_kv"] = {"press": "PyramidKVPress.get_layer_budget"}


def record_kvzip(answers):
    """The first 180 rows are the context: a prefix of 4 and two chunks. The 53 after them repeat both."""
    context, chunk, prefix = 180, 90, 4
    press = kvpress.KVzipPress()
    scores = torch.zeros(len(answers.layers), 1, answers.layers[0].num_kv_heads, context).double()
    for place, layer in enumerate(answers.layers):
        press.score_val = scores
        press.context_length = context
        repeat = layer.seq_len - context
        # The press cannot build its mask in double precision, so it finds one that is there.
        press.causal_mask_score = torch.full((repeat, repeat), -1e300, dtype=torch.float64).triu(1)
        cos, sin = layer.position_embeddings
        layer.module.layer_idx = place
        for press.start_idx in range(prefix, context, chunk):
            press.end_idx = min(press.start_idx + chunk, context)
            press.score_kvzip(
                layer.module,
                layer.hidden_states[:, -repeat:],
                layer.keys,
                layer.values,
                None,
                {"position_embeddings": (cos[:, -repeat:], sin[:, -repeat:])},
            )
        layer.module.layer_idx = layer.index
    answers.add("kvzip.scores", scores[:, 0].clone())
    answers.cases["kvzip"] = {"press": "KVzipPress, n_sink 4, a prefix of 4, chunks of 90, context 180, repetition 53"}
    for layerwise in (False, True):
        for ratio in KEEP_RATIOS:
            press = kvpress.KVzipPress(1.0 - ratio, layerwise=layerwise)
            press.score_val = scores.clone()
            stubs = []
            for place, layer in enumerate(answers.layers):
                attention = SimpleNamespace(layer_idx=place, config=layer.module.config)
                stubs.append(SimpleNamespace(self_attn=attention))
            press.compress_post(SimpleNamespace(model=SimpleNamespace(layers=stubs)))
            kept = torch.ones(scores.shape[0], scores.shape[2], context, dtype=torch.bool)
            for place, stub in enumerate(stubs):
                _, heads, tokens = stub.self_attn.masked_key_indices
                kept[place, heads, tokens] = False
            answers.add(f"kvzip{'_layerwise' if layerwise else ''}.kept{round(ratio * 100)}", kept)


def record_rerotation(answers):
    """Keys of the first layer, turned to where their rows lie once they have moved together."""
    layer = answers.layers[0]
    press = kvpress.KeyRerotationPress(kvpress.KnormPress(0.75))
    keys, _ = press.compress(*layer.inputs(False))
    answers.add("key_rerotation.keys", keys[0])
    answers.cases["key_rerotation"] = {"press": "KeyRerotationPress of KnormPress", "layers": [layer.index]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layers", help="what kvcrush-export-layers wrote")
    parser.add_argument("answers", help="the file to write")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with safe_open(arguments.layers, "pt") as file:
        metadata = file.metadata()
    arrays = load_file(arguments.layers)
    indices = sorted({int(name.split(".")[0].removeprefix("layer")) for name in arrays})
    with torch.no_grad():
        answers = Answers([Layer(arrays, index, float(metadata["rope_theta"])) for index in indices])
        record_scorers(answers)
        record_selectors(answers)
        record_pyramid(answers)
        record_kvzip(answers)
        record_rerotation(answers)
    versions = {name: importlib.metadata.version(name) for name in ("kvpress", "transformers", "torch")}
    # One entry only: safetensors writes several in any order.
    about = {"about": json.dumps({"programs": versions, "cases": answers.cases})}
    save_file(answers.arrays, arguments.answers, metadata=about)
    os.chmod(arguments.answers, 0o644)


if __name__ == "__main__":
    main()
