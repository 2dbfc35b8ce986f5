// SPDX-License-Identifier: Apache-2.0
#include "stream.hpp"

#include "compress.hpp"
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
           const kv_cache& prefilled,
           const query_log& queries)
        : plan_(plan),
          options_(options),
          how_(how),
          tokens_(tokens),
          model_(model),
          cache_(prefilled),
          queries_(queries),
          since_(options.compress_every) {}

    /// Reads the next tokens. What it reports of time, rows and bytes stands in `m`.
    /// @return predictions of the token after each [count, vocab]
    [[nodiscard]] matrix read(std::size_t count, measurement& m) {
        matrix logits(count, model_.config().vocab);
        double decode_ms = 0.0;
        const double attention_before = cache_.attention_ms();
        std::size_t compressions = 0;
        for (std::size_t i = 0; i < count; ++i) {
            compressions += compress_if_due(m) ? 1U : 0U;
            const stopwatch watch;
            const matrix next = model_.forward({tokens_.data() + cache_.tokens_seen(), 1},
                                               cache_,
                                               1,
                                               how_.full ? nullptr : &queries_);
            decode_ms += watch.milliseconds();
            std::copy_n(next.data(), next.cols(), logits.row(i).data());
            ++since_;
        }
        const auto tokens = static_cast<double>(count);
        m.decode_ms_per_token = decode_ms / tokens;
        m.attention_ms_per_token = (cache_.attention_ms() - attention_before) / tokens;
        if (compressions > 0) {
            m.select_ms /= static_cast<double>(compressions);
            m.compact_ms /= static_cast<double>(compressions);
        }
        m.context = cache_.tokens_seen();
        m.kept_tokens_mean = mean_rows();
        m.bytes_held = static_cast<double>(cache_.bytes_held() +
                                           (how_.full ? 0 : cache_.position_bytes_held()));
        return logits;
    }

private:
    [[nodiscard]] bool compress_if_due(measurement& m) {
        if (how_.full || since_ < options_.compress_every || cache_.tokens_seen() == 0) {
            return false;
        }
        const std::span<const int> seen(tokens_.data(), cache_.tokens_seen());
        const kvcrush::budget budget = budget_within(how_, options_.budget, seen.size());
        if (!would_change(cache_, cache_.rows(0, 0), how_, budget)) {
            return false;
        }
        const compression done =
            compress(cache_, {model_, seen, queries_, plan_.repeat_request}, how_, budget);
        require_even_heads(cache_, model_.config().num_kv_heads, how_);
        m.select_ms += done.select_ms;
        m.compact_ms += done.compact_ms;
        since_ = 0;
        return true;
    }

    [[nodiscard]] double mean_rows() const {
        std::size_t rows = 0;
        for (std::size_t layer = 0; layer < cache_.num_layers(); ++layer) {
            rows += cache_.rows(layer, 0);
        }
        return static_cast<double>(rows) / static_cast<double>(cache_.num_layers());
    }

    const experiment& plan_;
    const stream_options& options_;
    const policy& how_;
    const std::vector<int>& tokens_;
    const llama& model_;
    kv_cache cache_;
    query_log queries_;
    std::size_t since_;
};

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
        if (!how.full) {
            // More rows than are protected: fewer than those would all be kept.
            const std::size_t rows = how.areas.num_sink_tokens + how.areas.num_recent_tokens + 1;
            static_cast<void>(budget_within(how, options.budget, options.text_tokens())
                                  .tokens_for((std::max)(rows, options.text_tokens())));
        }
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

    kv_cache prefilled = model.make_cache(plan.type);
    query_log queries;
    if (options.prompt > 0) {
        static_cast<void>(model.forward({tokens.data(), options.prompt}, prefilled, 0, &queries));
    }
    for (const policy& how : plan.policies) { // find out now rather than in the middle
        if (!how.full && options.prompt > 0) {
            kv_cache trial = prefilled;
            const std::span<const int> seen(tokens.data(), options.prompt);
            static_cast<void>(compress(trial,
                                       {model, seen, queries, plan.repeat_request},
                                       how,
                                       budget_within(how, options.budget, options.text_tokens())));
            require_even_heads(trial, model.config().num_kv_heads, how);
        }
    }
    steps.finish(prompt_weight);

    static const policy full_policy = [] {
        policy full;
        full.full = true;
        return full;
    }();
    reader full(plan, options, full_policy, tokens, model, prefilled, {});
    std::vector<reader> readers;
    for (const policy& how : plan.policies) {
        if (!how.full) {
            readers.emplace_back(plan, options, how, tokens, model, prefilled, queries);
        }
    }
    steps.expect(static_cast<double>(options.tokens * (1 + readers.size())));

    const double asked = (std::min)(1.0,
                                    static_cast<double>(options.budget) /
                                        static_cast<double>(options.prompt + options.tokens));
    std::vector<measurement> by_part;
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
        std::size_t next = 0;
        for (const policy& how : plan.policies) {
            measurement one = how.full ? of_full : m;
            if (!how.full) {
                matrix logits = readers[next++].read(count, one);
                one.policy = how.text;
                one.nll_full = of_full.nll_full;
                one.bytes_full = of_full.bytes_full;
                one.keep_ratio = how.ratios({asked}).front();
                one.quality = compare(reference, logits);
                one.ppl_ratio = std::exp(one.quality.nll - one.nll_full);
                steps.finish(static_cast<double>(count));
            }
            by_part.push_back(std::move(one));
        }
    }
    // Policy by policy, as other tables are.
    std::vector<measurement> results;
    for (std::size_t p = 0; p < plan.policies.size(); ++p) {
        for (std::size_t part = 0; part < stream_parts; ++part) {
            results.push_back(by_part[part * plan.policies.size() + p]);
        }
    }
    return results;
}

} // namespace lab
