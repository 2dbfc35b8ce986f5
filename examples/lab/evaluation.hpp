// SPDX-License-Identifier: Apache-2.0
/// @file
/// Many samples of several tasks, measured one after the other, some of them in an earlier run.
#pragma once

#include <kvcrush/core/selection.hpp>

#include "dialogue.hpp"
#include "experiment.hpp"
#include "journal.hpp"
#include "model.hpp"
#include "retrieval.hpp"
#include "window.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lab {

/// A text to go on with.
struct lm_sample {
    std::string task;
    window text;
    std::optional<std::uint64_t> seed = std::nullopt;
    /// Its place among those of its task and seed, or in its file.
    std::size_t index = 0;
    /// Which text, where the settings of a run do not say: its rows are those of that text.
    std::string origin{};
};

struct evaluation {
    experiment plan;
    visibility mode = visibility::agnostic;
    conversation style = conversation::turns;
    std::vector<lm_sample> texts{};
    std::vector<dialogue> dialogues{};
};

struct lm_row {
    std::string task;
    std::optional<std::uint64_t> seed;
    measurement measured;
};

struct retrieval_row {
    std::string task;
    std::string name;
    std::optional<std::uint64_t> seed;
    std::optional<double> depth;
    retrieval_result measured;
};

/// Rows in the order of samples, policies and ratios; the full cache has one per sample.
struct evaluation_results {
    std::vector<lm_row> texts;
    std::vector<retrieval_row> dialogues;
    /// Rows that an earlier run had finished.
    std::size_t read_back = 0;
};

/// Throws what would fail after minutes of work, before it.
void check(const evaluation& all, const llama& model);

/// Dialogue rows are journalled one by one, those of a text together.
/// @param done  if given: its rows are read back, and finished ones added
[[nodiscard]] evaluation_results run(const evaluation& all,
                                     const llama& model,
                                     journal* done = nullptr,
                                     const step_callback& progress = {});

/// What a policy keeps of one text.
struct kept_map {
    std::string policy;
    double keep_ratio = 1.0;
    /// One per layer; none where all tokens are kept.
    std::vector<kvcrush::selection> layers{};
};

struct kept_maps {
    /// Of the text, or of the dialogue that begins with it.
    std::string name;
    std::vector<int> tokens;
    std::size_t num_layers = 0;
    std::size_t num_kv_heads = 0;
    std::vector<kept_map> maps{};
};

/// Compresses the first sample once more with each policy, at its first ratio: for people to look at. A resumed run shows
/// the same.
/// @pre  there is a text or a dialogue
[[nodiscard]] kept_maps
map_first_sample(const evaluation& all, const llama& model, const step_callback& progress = {});

} // namespace lab
