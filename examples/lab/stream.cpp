// SPDX-License-Identifier: Apache-2.0
#include "stream.hpp"

#include "compression.hpp"
#include "error.hpp"
#include "stopwatch.hpp"
#include "work_counter.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

namespace lab {
namespace {

/// One policy on its way through the text.
class reader {
public:
    reader(const experiment& plan,
           const stream_options& options,
           const policy& how,
           const std::vector<int>& tokens,
           const llama& model,
           const kvcrush::kv_cache& prefilled)
        : plan_(plan),
          options_(options),
          how_(how),
          tokens_(tokens),
          model_(model),
          cache_(copy_for(prefilled, how)) {}

    /// Reads the next tokens. What it reports of time, rows and bytes stands in `m`.
    /// @return predictions of the token after each [count, vocab]
    [[nodiscard]] matrix read(std::size_t count, measurement& m) {
        matrix logits(count, model_.config().vocab);
        double decode_ms = 0.0;
        double attention_ms = 0.0;
        std::size_t compressions = 0;
        for (std::size_t i = 0; i < count; ++i) {
            compressions += compress_if_due(m) ? 1U : 0U;
            const stopwatch watch;
            const matrix next =
                model_.forward({tokens_.data() + cache_.tokens_seen(), 1}, cache_, 1, &attention_ms);
            decode_ms += watch.milliseconds();
            std::copy_n(next.data(), next.cols(), logits.row(i).data());
        }
        const auto tokens = static_cast<double>(count);
        m.decode_ms_per_token = decode_ms / tokens;
        m.attention_ms_per_token = attention_ms / tokens;
        if (compressions > 0) {
            m.select_ms /= static_cast<double>(compressions);
            m.compact_ms /= static_cast<double>(compressions);
        }
        m.context = cache_.tokens_seen();
        m.kept_tokens_mean = cache_.mean_rows();
        m.bytes_held = static_cast<double>(cache_.bytes_held());
        return logits;
    }

private:
    [[nodiscard]] bool compress_if_due(measurement& m) {
        const std::span<const int> seen(tokens_.data(), cache_.tokens_seen());
        const kvcrush::cache_budget keep = how_.within(options_.budget, seen.size());
        if (!cache_.is_due({.keep = keep})) {
            return false;
        }
        const timed_compression done =
            compress(cache_, {model_, seen, plan_.repeat_request}, keep);
        m.select_ms += done.select_ms;
        m.compact_ms += done.compact_ms;
        return true;
    }

    const experiment& plan_;
    const stream_options& options_;
    const policy& how_;
    const std::vector<int>& tokens_;
    const llama& model_;
    kvcrush::kv_cache cache_;
};

/// The policies of a plan, compressed as often as the options say.
[[nodiscard]] std::vector<policy> policies_of(const experiment& plan, const stream_options& options) {
    std::vector<policy> policies = plan.policies;
    for (policy& how : policies) {
        how.how.when.every = options.compress_every;
    }
    return policies;
}

/// One part of a policy's way, compared with the full cache's.
[[nodiscard]] measurement compared(measurement one,
                                   matrix logits,
                                   const reference_predictions& reference,
                                   const measurement& of_full) {
    one.nll_full = of_full.nll_full;
    one.bytes_full = of_full.bytes_full;
    one.quality = compare(reference, logits);
    one.ppl_ratio = std::exp(one.quality.nll - one.nll_full);
    return one;
}

} // namespace

void check_stream(const experiment& plan,
                  const stream_options& options,
                  const std::string& text,
                  std::size_t num_tokens,
                  const llama& model) {
    if (options.tokens < stream_parts) {
        fail("--tokens is ", options.tokens, "; at least ", stream_parts, " are needed");
    }
    if (num_tokens < options.text_tokens()) { // token 0, in front, is not the text's
        fail(text,
             " has ",
             (std::max)(num_tokens, std::size_t{1}) - 1,
             " tokens; --prompt ",
             options.prompt,
             " and --tokens ",
             options.tokens,
             " need ",
             options.text_tokens() - 1);
    }
    if (options.text_tokens() - 1 > model.config().context_length) {
        fail("--prompt ",
             options.prompt,
             " and --tokens ",
             options.tokens,
             " exceed the model's ",
             model.config().context_length);
    }
    for (const policy& how : plan.policies) {
        // More rows than are protected: fewer than those would all be kept.
        const std::size_t protected_rows =
            how.how.areas.num_sink_tokens + how.how.areas.num_recent_tokens + 1;
        const std::size_t rows = (std::max)(protected_rows, options.text_tokens());
        how.check_for(model.config(), how.within(options.budget, rows), rows);
    }
}

std::vector<measurement> run_stream(const experiment& plan,
                                    const stream_options& options,
                                    const std::string& name,
                                    const std::vector<int>& tokens,
                                    const llama& model,
                                    const step_callback& progress) {
    check_stream(plan, options, "text " + in_quotes(name), tokens.size(), model);
    const auto prompt_weight = static_cast<double>(options.prompt) / 16.0; // read many at a time
    work_counter steps(progress);
    steps.expect(prompt_weight);

    kvcrush::kv_cache prefilled = model.make_cache(plan.type);
    if (options.prompt > 0) {
        static_cast<void>(model.forward({tokens.data(), options.prompt}, prefilled, 0));
    }
    steps.finish(prompt_weight);

    const policy full_policy{"full", {.keep = kvcrush::cache_budget::everything()}};
    const std::vector<policy> policies = policies_of(plan, options);
    reader full(plan, options, full_policy, tokens, model, prefilled);
    std::vector<reader> readers;
    for (const policy& how : policies) {
        readers.emplace_back(plan, options, how, tokens, model, prefilled);
    }
    const auto num_compressed = std::count_if(
        policies.begin(), policies.end(), [](const policy& how) { return !how.full(); });
    steps.expect(static_cast<double>(options.tokens) * static_cast<double>(1 + num_compressed));

    const double asked = (std::min)(1.0,
                                    static_cast<double>(options.budget) /
                                        static_cast<double>(options.prompt + options.tokens));
    // Policy by policy, as other tables are.
    std::vector<measurement> results(policies.size() * stream_parts);
    for (std::size_t part = 0; part < stream_parts; ++part) {
        const std::size_t first = options.tokens * part / stream_parts;
        const std::size_t count = options.tokens * (part + 1) / stream_parts - first;
        measurement m;
        m.name =
            fmt::format("{} {}-{}", name, options.prompt + first, options.prompt + first + count);
        const auto truth = tokens.begin() + static_cast<std::ptrdiff_t>(options.prompt + first + 1);
        measurement of_full = m;
        const reference_predictions reference(full.read(count, of_full),
                                              {truth, truth + static_cast<std::ptrdiff_t>(count)});
        of_full.policy = "full";
        of_full.nll_full = reference.nll();
        of_full.quality = {reference.nll(), 0.0, 0.0, 1.0};
        of_full.bytes_full = bytes_in_f16(model.config(), of_full.context);
        steps.finish(static_cast<double>(count));
        for (std::size_t p = 0; p < policies.size(); ++p) {
            measurement& one = results[p * stream_parts + part];
            one = policies[p].full() ? of_full : m;
            if (!policies[p].full()) {
                matrix logits = readers[p].read(count, one);
                one.policy = policies[p].text;
                one.keep_ratio = policies[p].ratios({asked}).front();
                one = compared(std::move(one), std::move(logits), reference, of_full);
                steps.finish(static_cast<double>(count));
            }
        }
    }
    return results;
}

} // namespace lab
