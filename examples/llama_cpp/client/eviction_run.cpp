// SPDX-License-Identifier: Apache-2.0
#include "eviction_run.hpp"

#include "error.hpp"
#include "evicting_cache.hpp"
#include "fidelity.hpp"
#include "stopwatch.hpp"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <ggml.h>
#include <utility>

namespace client {
namespace {

using lab::measurement;

/// A prompt as it was read: its state, and this library's copy of it.
struct read_prompt {
    state_bytes state;
    kvcrush::kv_cache cache;
    model_layout layout;
    double prefill_ms = 0.0;
    double read_ms = 0.0;
};

/// Counts what is done, in units that take about as long.
class steps {
public:
    steps(const lab::step_callback& say, double total) : say_(say), total_(total) {}
    void finish(double weight) {
        done_ += weight;
        if (say_) {
            say_(done_, total_);
        }
    }

private:
    const lab::step_callback& say_;
    double total_;
    double done_ = 0.0;
};

/// Tokens that are timed on the full and an evicted cache in turns.
constexpr std::size_t timing_turns = 24;

constexpr double batch_weight = 1.0;
constexpr double continuation_weight = 2.0;

[[nodiscard]] std::size_t num_batches(const eviction_plan& plan) {
    return (plan.context.size() + context::batch_size - 1) / context::batch_size;
}

[[nodiscard]] double weight_of(const eviction_plan& plan) {
    double runs = 1.0;
    for (const lab::policy& how : plan.policies) {
        runs += how.full() ? 0.0 : static_cast<double>(how.ratios(plan.keep_ratios).size());
    }
    return batch_weight * static_cast<double>(num_batches(plan)) + continuation_weight * runs;
}

[[nodiscard]] lab::model_config config_of(const model_layout& layout) {
    lab::model_config config;
    config.num_layers = layout.shape.num_layers;
    config.num_q_heads = layout.shape.num_q_heads;
    config.num_kv_heads = layout.shape.num_kv_heads;
    config.head_dim = layout.shape.head_dim;
    return config;
}

void check_policies(const eviction_plan& plan, const model_layout& layout) {
    for (const lab::policy& how : plan.policies) {
        for (const double ratio : how.ratios(plan.keep_ratios)) {
            how.check_for(config_of(layout), how.at(ratio), plan.context.size());
        }
    }
}

/// Queries that the policy with the longest memory looks at.
[[nodiscard]] std::size_t queries_wanted(const eviction_plan& plan) {
    std::size_t most = 0;
    for (const lab::policy& how : plan.policies) {
        most = std::max(most, how.how.num_queries(plan.context.size()));
    }
    return std::min(most, plan.context.size());
}

/// The context of the prompt is gone when this returns: evicted states go into contexts of their own size.
[[nodiscard]] read_prompt read(const eviction_plan& plan, const engine& engine, steps& progress) {
    query_watch watch;
    context_options options = plan.cells;
    options.cells = std::max(plan.context.size(), least_cells(engine));
    context cells(engine, options, &watch);
    model_layout layout = probe(engine, cells, watch);
    check_policies(plan, layout);

    const lab::stopwatch reading;
    watch.begin(queries_wanted(plan), cells.cells());
    const std::span<const llama_token> tokens(plan.context);
    for (std::size_t at = 0; at < tokens.size(); at += context::batch_size) {
        cells.decode(tokens.subspan(at, std::min(context::batch_size, tokens.size() - at)), at);
        progress.finish(batch_weight);
    }
    watch.end();
    watch.check();
    const double prefill_ms = reading.milliseconds();

    const lab::stopwatch asking;
    state_bytes state = cells.state();
    const double read_ms = asking.milliseconds();
    kvcrush::kv_cache cache = make_cache(layout);
    const std::size_t queries = queries_wanted(plan);
    cache.remember_queries(queries);
    take_rows(cache, parse_state(state.all(), layout.num_caches()), layout, watch);
    return {std::move(state), std::move(cache), std::move(layout), prefill_ms, read_ms};
}

/// A context of the state's size and room for the text that follows.
[[nodiscard]] context
context_for(const eviction_plan& plan, const engine& engine, const state_blob& blob) {
    std::size_t rows = 0;
    for (const blob_cache& cache : blob.caches) {
        rows = std::max(rows, cache.num_cells());
    }
    context_options options = plan.cells;
    options.cells = rows + plan.continuation.size() + timing_turns;
    return context(engine, options);
}

/// A state in a context of its size, that has gone on with the text.
struct continued {
    context cells;
    forced_text text;
    double restore_ms = 0.0;
};

[[nodiscard]] continued continue_from(const eviction_plan& plan,
                                      const engine& engine,
                                      const state_bytes& state,
                                      std::size_t num_caches) {
    context cells = context_for(plan, engine, parse_state(state.all(), num_caches));
    const lab::stopwatch moving;
    if (!cells.restore(state.all())) {
        lab::fail("llama.cpp does not take the state of ", plan.context.size(), " tokens");
    }
    const double restore_ms = moving.milliseconds();
    forced_text text = force(cells, engine, plan.continuation, plan.context.size());
    return {std::move(cells), std::move(text), restore_ms};
}

/// CPU time of one token [ms].
[[nodiscard]] double cpu_ms_of(context& cells, llama_token token, std::size_t position) {
    const std::clock_t began = std::clock();
    cells.decode({&token, 1}, position, 1);
    return 1000.0 * static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
}

/// The full cache by itself.
[[nodiscard]] double cpu_ms_alone(const eviction_plan& plan, context& full) {
    const std::size_t end = plan.context.size() + plan.continuation.size() - 1;
    std::vector<double> times;
    for (std::size_t i = 0; i < timing_turns; ++i) {
        times.push_back(cpu_ms_of(full, plan.continuation.back(), end + i));
    }
    full.forget_from(end);
    return lab::linear_quantile(std::move(times), 0.5);
}

/// Times both behind the text; the full cache forgets it again.
void take_turns(const eviction_plan& plan, context& full, context& evicted, engine_cost& cost) {
    const std::size_t end = plan.context.size() + plan.continuation.size() - 1;
    std::vector<double> full_ms;
    std::vector<double> evicted_ms;
    for (std::size_t i = 0; i < timing_turns; ++i) {
        full_ms.push_back(cpu_ms_of(full, plan.continuation.back(), end + i));
        evicted_ms.push_back(cpu_ms_of(evicted, plan.continuation.back(), end + i));
    }
    full.forget_from(end);
    cost.full_cpu_ms = lab::linear_quantile(std::move(full_ms), 0.5);
    cost.decode_cpu_ms = lab::linear_quantile(std::move(evicted_ms), 0.5);
}

/// The state with what a policy keeps; fills in what it costs and holds.
[[nodiscard]] state_bytes
evict_with(const lab::policy& how, double ratio, const read_prompt& prompt, measurement& m) {
    kvcrush::kv_cache cache = prompt.cache;
    cache.use(how.how);
    const lab::stopwatch selecting;
    const std::vector<kvcrush::layer_choice> choice = cache.choose({.keep = how.at(ratio)});
    m.select_ms = selecting.milliseconds();

    const lab::stopwatch compacting;
    const state_blob blob = parse_state(prompt.state.all(), prompt.layout.num_caches());
    state_draft draft = evict(blob, prompt.layout, choice);
    m.compact_ms = compacting.milliseconds();
    m.kept_tokens_mean = static_cast<double>(choice.front().kept.kept(0).size());
    m.bytes_held = static_cast<double>(draft.bytes.size());
    if (how.how.rows.encodes()) {
        if (cache.apply(choice).heads_not_stored > 0) {
            lab::fail("policy ",
                      lab::in_quotes(how.text),
                      ": the cache holds rows that its codecs cannot store");
        }
        write_rows(cache, prompt.layout, draft);
        m.compact_ms = compacting.milliseconds();
        // Cells of sliding layers stay what they are.
        const blob_cache& first = blob.caches.front();
        double plain = 0.0;
        for (std::size_t l = 0; l < first.num_layers(); ++l) {
            plain += static_cast<double>(draft.keys[l].size() + draft.values[l].size());
        }
        m.bytes_held += static_cast<double>(cache.bytes_held()) - plain;
    }
    return std::move(draft.bytes);
}

/// Of the full cache, until it is told otherwise.
[[nodiscard]] measurement measurement_of(const eviction_plan& plan,
                                         const lab::policy& how,
                                         double ratio,
                                         const lab::reference_predictions& full) {
    measurement m;
    m.name = plan.name;
    m.policy = how.text;
    m.keep_ratio = ratio;
    m.context = plan.context.size();
    m.kept_tokens_mean = static_cast<double>(plan.context.size());
    m.nll_full = full.nll();
    m.quality = {full.nll(), 0.0, 0.0, 1.0};
    return m;
}

void compare_with_full(const lab::reference_predictions& full, forced_text after, measurement& m) {
    m.quality = lab::compare(full, after.logits);
    m.ppl_ratio = std::exp(m.quality.nll - m.nll_full);
    m.decode_ms_per_token = after.ms_per_token;
}

} // namespace

forced_text force(context& cells,
                  const engine& engine,
                  std::span<const llama_token> tokens,
                  std::size_t position) {
    forced_text result;
    const std::size_t predictions = tokens.size() - 1;
    result.logits = lab::matrix(predictions, engine.num_words());
    std::vector<double> times;
    for (std::size_t i = 0; i < predictions; ++i) {
        const lab::stopwatch watch;
        cells.decode(
            tokens.subspan(i, 1), position + i, 1, [&](std::span<const float> logits, std::size_t) {
                std::copy(logits.begin(), logits.end(), result.logits.row(i).begin());
            });
        times.push_back(watch.milliseconds());
    }
    result.ms_per_token = lab::linear_quantile(std::move(times), 0.5);
    return result;
}

double bytes_in_f16(const state_blob& blob) {
    double elements = 0.0;
    for (const blob_cache& cache : blob.caches) {
        for (const auto* layers : {&cache.keys, &cache.values}) {
            for (const blob_rows& rows : *layers) {
                const auto type = static_cast<ggml_type>(rows.type);
                elements += static_cast<double>(rows.bytes.size()) /
                            static_cast<double>(ggml_type_size(type)) *
                            static_cast<double>(ggml_blck_size(type));
            }
        }
    }
    return 2.0 * elements;
}

eviction_results
run(const eviction_plan& plan, const engine& engine, const lab::step_callback& progress) {
    steps done(progress, weight_of(plan));
    const read_prompt prompt = read(plan, engine, done);
    const std::size_t num_caches = prompt.layout.num_caches();
    const double bytes_full = bytes_in_f16(parse_state(prompt.state.all(), num_caches));

    eviction_results results;
    results.read_ms = prompt.read_ms;
    results.full_bytes = prompt.state.size();
    continued full = continue_from(plan, engine, prompt.state, num_caches);
    const lab::reference_predictions reference(
        std::move(full.text.logits), {plan.continuation.begin() + 1, plan.continuation.end()});
    done.finish(continuation_weight);
    for (const lab::policy& how : plan.policies) {
        for (const double ratio : how.ratios(plan.keep_ratios)) {
            measurement m = measurement_of(plan, how, ratio, reference);
            m.bytes_full = bytes_full;
            m.prefill_ms = prompt.prefill_ms;
            engine_cost cost{.state_bytes = prompt.state.size(), .restore_ms = full.restore_ms};
            if (how.full()) {
                m.bytes_held = static_cast<double>(prompt.state.size());
                m.decode_ms_per_token = full.text.ms_per_token;
                cost.full_cpu_ms = cpu_ms_alone(plan, full.cells);
                cost.decode_cpu_ms = cost.full_cpu_ms;
            } else {
                const state_bytes state = evict_with(how, ratio, prompt, m);
                continued after = continue_from(plan, engine, state, num_caches);
                compare_with_full(reference, std::move(after.text), m);
                cost.state_bytes = state.size();
                cost.restore_ms = after.restore_ms;
                take_turns(plan, full.cells, after.cells, cost);
                done.finish(continuation_weight);
            }
            results.measurements.push_back(std::move(m));
            results.costs.push_back(cost);
        }
    }
    return results;
}

} // namespace client
