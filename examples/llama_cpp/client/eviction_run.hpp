// SPDX-License-Identifier: Apache-2.0
/// @file
/// What an eviction does to a model's predictions, its memory and its speed, measured inside llama.cpp.
#pragma once

#include "engine.hpp"
#include "experiment.hpp"
#include "model_layout.hpp"
#include "policy.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace client {

struct eviction_plan {
    std::vector<lab::policy> policies; ///< even ones
    std::vector<double> keep_ratios;
    context_options cells{}; ///< type and threads; how many is found out
    std::vector<llama_token> context;
    /// The first is fed to the evicted cache, every later one is predicted from those before it.
    std::vector<llama_token> continuation;
    std::string name; ///< of the text
};

/// What llama.cpp itself holds and needs, for which the lab's table has no column.
struct engine_cost {
    std::size_t state_bytes = 0;
    /// One token here, and one on the state of all tokens, in turns: what others do on a machine falls on both. CPU time of
    /// all threads together, medians.
    double decode_cpu_ms = 0.0;
    double full_cpu_ms = 0.0;
    double restore_ms = 0.0; ///< the state into a context of its size
};

struct eviction_results {
    std::vector<lab::measurement> measurements;
    std::vector<engine_cost> costs; ///< of each of them
    std::size_t full_bytes = 0;     ///< the state of all tokens
    double read_ms = 0.0;           ///< asking llama.cpp for that state
};

/// @throws lab::input_error or std::invalid_argument naming what does not fit; before the prompt is read, where it can
///         be known by then
[[nodiscard]] eviction_results
run(const eviction_plan& plan, const engine& engine, const lab::step_callback& progress);

/// The predictions of a context that goes on with a text, one token at a time.
struct forced_text {
    lab::matrix logits;        ///< [tokens - 1, vocab]
    double ms_per_token = 0.0; ///< the median
};
[[nodiscard]] forced_text force(context& cells,
                                const engine& engine,
                                std::span<const llama_token> tokens,
                                std::size_t position);

/// Elements of all rows of a state, in f16 [bytes].
[[nodiscard]] double bytes_in_f16(const state_blob& blob);

} // namespace client
