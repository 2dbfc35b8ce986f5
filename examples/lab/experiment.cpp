// SPDX-License-Identifier: Apache-2.0
#include "experiment.hpp"

#include "compress.hpp"
#include "error.hpp"
#include "stopwatch.hpp"
#include "work_counter.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

namespace lab {
namespace {

/// Tokens fed one by one at the end of a continuation, to time decoding as an engine does it.
constexpr std::size_t timed_tokens = 16;

struct continuation_result {
    matrix logits;
    double decode_ms_per_token = 0.0;
    double attention_ms_per_token = 0.0; ///< part of it
};

/// Teacher-forces a continuation: most of it together, the last tokens one at a time.
[[nodiscard]] continuation_result
continue_text(const llama& model, kv_cache& cache, std::span<const int> tokens) {
    continuation_result result;
    const std::size_t predictions = tokens.size() - 1;
    const std::size_t timed = (std::min)(timed_tokens, predictions);
    const std::size_t together = predictions - timed;
    result.logits = matrix(predictions, model.config().vocab);
    if (together > 0) {
        const matrix logits = model.forward(tokens.first(together), cache, together);
        std::copy_n(logits.data(), logits.rows() * logits.cols(), result.logits.data());
    }
    const double attention_before = cache.attention_ms();
    const stopwatch watch;
    for (std::size_t i = together; i < predictions; ++i) {
        const matrix logits = model.forward(tokens.subspan(i, 1), cache, 1);
        std::copy_n(logits.data(), logits.cols(), result.logits.row(i).data());
    }
    if (timed > 0) {
        result.decode_ms_per_token = watch.milliseconds() / static_cast<double>(timed);
        result.attention_ms_per_token =
            (cache.attention_ms() - attention_before) / static_cast<double>(timed);
    }
    return result;
}

/// As long as so many predictions of a continuation: what the prefill weighs in the progress.
constexpr double window_prefill_weight = 4.0;

/// The prefill, the full cache, and each policy at each ratio.
[[nodiscard]] double weight_of_window(const experiment& plan) {
    double compressed = 0.0;
    for (const policy& how : plan.policies) {
        compressed += how.full ? 0.0 : static_cast<double>(how.ratios(plan.keep_ratios).size());
    }
    return window_prefill_weight + 1.0 + compressed;
}

void measure_window(const experiment& plan,
                    const window& text,
                    const llama& model,
                    work_counter& steps,
                    std::vector<measurement>& results) {
    kv_cache prefilled = model.make_cache(plan.type);
    query_log queries;
    const stopwatch watch;
    static_cast<void>(
        model.forward(text.context, prefilled, 0, &queries, [&](std::size_t done, std::size_t all) {
            steps.at(window_prefill_weight, static_cast<double>(done) / static_cast<double>(all));
        }));
    const double prefill_ms = watch.milliseconds();
    steps.finish(window_prefill_weight);

    kv_cache full_cache = prefilled;
    continuation_result full = continue_text(model, full_cache, text.continuation);
    const reference_predictions reference(std::move(full.logits),
                                          {text.continuation.begin() + 1, text.continuation.end()});
    steps.finish(1.0);

    for (const policy& how : plan.policies) {
        for (const double ratio : how.ratios(plan.keep_ratios)) {
            measurement m;
            m.name = text.name;
            m.policy = how.text;
            m.keep_ratio = ratio;
            m.context = text.context.size();
            m.bytes_full = bytes_in_f16(model.config(), text.context.size());
            m.nll_full = reference.nll();
            m.prefill_ms = prefill_ms;

            kv_cache cache = prefilled;
            const compression done = compress(cache,
                                              {model, text.context, queries, plan.repeat_request},
                                              how,
                                              budget_for(how, ratio, text.context.size()));
            m.kept_tokens_mean = done.kept_tokens_mean;
            m.bytes_held = static_cast<double>(done.bytes_held);
            m.select_ms = done.select_ms;
            m.compact_ms = done.compact_ms;
            if (how.full) {
                m.decode_ms_per_token = full.decode_ms_per_token;
                m.attention_ms_per_token = full.attention_ms_per_token;
                m.quality = {reference.nll(), 0.0, 0.0, 1.0};
            } else {
                continuation_result after = continue_text(model, cache, text.continuation);
                m.decode_ms_per_token = after.decode_ms_per_token;
                m.attention_ms_per_token = after.attention_ms_per_token;
                m.quality = compare(reference, after.logits);
                m.ppl_ratio = std::exp(m.quality.nll - m.nll_full);
                steps.finish(1.0);
            }
            results.push_back(std::move(m));
        }
    }
}

} // namespace

double bytes_in_f16(const model_config& config, std::size_t tokens) {
    return 2.0 * static_cast<double>(sizeof(kvcrush::f16)) *
           static_cast<double>(config.num_layers * config.kv_width() * tokens);
}

void check(const experiment& plan, const std::vector<window>& windows, const llama& model) {
    for (const window& text : windows) {
        for (const std::vector<int>* ids : {&text.context, &text.continuation}) {
            for (const int id : *ids) {
                if (id < 0 || static_cast<std::size_t>(id) >= model.config().vocab) {
                    fail("window ",
                         in_quotes(text.name),
                         " holds token id ",
                         id,
                         "; allowed: 0 to ",
                         model.config().vocab - 1);
                }
            }
        }
        const std::size_t total = text.context.size() + text.continuation.size() - 1;
        if (total > model.config().context_length) {
            fail("context is ",
                 text.context.size(),
                 " tokens; with ",
                 text.continuation.size() - 1,
                 " more to predict it exceeds the model's ",
                 model.config().context_length);
        }
        const model_config& config = model.config();
        const kvcrush::problem_size size{
            {config.num_kv_heads, text.context.size(), config.head_dim, config.head_dim},
            config.num_q_heads};
        for (const policy& how : plan.policies) {
            if (!how.full) {
                how.selector.validate_for(size);
                how.allocator.validate_for(size);
                for (const double ratio : how.ratios(plan.keep_ratios)) {
                    static_cast<void>(budget_for(how, ratio, text.context.size()));
                }
            }
        }
    }
}

std::vector<measurement> run(const experiment& plan,
                             const std::vector<window>& windows,
                             const llama& model,
                             const step_callback& progress) {
    check(plan, windows, model);
    std::vector<measurement> results;
    work_counter steps(progress);
    steps.expect(static_cast<double>(windows.size()) * weight_of_window(plan));
    for (const window& text : windows) {
        measure_window(plan, text, model, steps, results);
    }
    return results;
}

void append_means(std::vector<measurement>& measurements) {
    std::vector<measurement> means;
    for (const measurement& m : measurements) {
        auto mean = std::find_if(means.begin(), means.end(), [&](const measurement& candidate) {
            return candidate.policy == m.policy && candidate.keep_ratio == m.keep_ratio;
        });
        if (mean == means.end()) {
            means.push_back(m);
            means.back().name = "mean";
            continue;
        }
        // Running means: the n-th value moves the mean by 1/n of its distance.
        mean->samples += 1;
        const double weight = 1.0 / static_cast<double>(mean->samples);
        const auto move = [weight](double& average, double value) {
            average += weight * (value - average);
        };
        mean->context = m.context;
        move(mean->kept_tokens_mean, m.kept_tokens_mean);
        move(mean->bytes_full, m.bytes_full);
        move(mean->bytes_held, m.bytes_held);
        move(mean->quality.nll, m.quality.nll);
        move(mean->quality.kld_mean, m.quality.kld_mean);
        move(mean->quality.kld_p99, m.quality.kld_p99);
        move(mean->quality.top1_agreement, m.quality.top1_agreement);
        move(mean->nll_full, m.nll_full);
        move(mean->select_ms, m.select_ms);
        move(mean->compact_ms, m.compact_ms);
        move(mean->prefill_ms, m.prefill_ms);
        move(mean->decode_ms_per_token, m.decode_ms_per_token);
        move(mean->attention_ms_per_token, m.attention_ms_per_token);
        mean->ppl_ratio = std::exp(mean->quality.nll - mean->nll_full);
    }
    measurements.insert(measurements.end(), means.begin(), means.end());
}

} // namespace lab
