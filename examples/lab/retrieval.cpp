// SPDX-License-Identifier: Apache-2.0
#include "retrieval.hpp"

#include "compression.hpp"
#include "error.hpp"
#include "generate.hpp"
#include "stopwatch.hpp"

#include <algorithm>
#include <cmath>

namespace lab {
namespace {

/// What is read before compression.
[[nodiscard]] std::vector<int> prefill_of(const dialogue& about, visibility mode) {
    std::vector<int> tokens = about.context;
    if (mode == visibility::aware) {
        const std::vector<int>& question = about.turns.front().question;
        tokens.insert(tokens.end(), question.begin(), question.end() - 1);
    }
    return tokens;
}

[[nodiscard]] const std::vector<int>& asked_alone(const turn& one) {
    return one.alone.empty() ? one.question : one.alone;
}

/// The most tokens the cache sees.
[[nodiscard]] std::size_t length_of(const dialogue& about, conversation style) {
    std::size_t conversation_length = 0;
    std::size_t longest = 0;
    for (const turn& one : about.turns) {
        conversation_length += one.question.size() + one.answer.size();
        longest = (std::max)(longest, asked_alone(one).size() + one.answer.size());
    }
    return about.context.size() + (style == conversation::turns ? conversation_length : longest);
}

void require_known_ids(const dialogue& about, std::span<const int> ids, std::size_t vocab) {
    for (const int id : ids) {
        if (id < 0 || static_cast<std::size_t>(id) >= vocab) {
            fail("dialogue ",
                 in_quotes(about.name),
                 " holds token id ",
                 id,
                 "; allowed: 0 to ",
                 vocab - 1);
        }
    }
}

[[nodiscard]] double negative_log_likelihood(std::span<const float> logits, int id) {
    const auto largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
    double sum = 0.0;
    for (const float logit : logits) {
        sum += std::exp(static_cast<double>(logit) - largest);
    }
    return largest + std::log(sum) - static_cast<double>(logits[static_cast<std::size_t>(id)]);
}

/// Feeds what comes before an answer and the answer itself, except for its last token.
[[nodiscard]] answer_score
feed(const llama& model, kvcrush::kv_cache& cache, std::vector<int> before, const turn& one) {
    before.insert(before.end(), one.answer.begin(), one.answer.end() - 1);
    return score_answer(model.forward(before, cache, one.answer.size()), one.answer);
}

} // namespace

std::string_view name_of(const retrieval_plan& plan) noexcept {
    if (plan.style == conversation::requests) {
        return "requests";
    }
    return plan.mode == visibility::aware ? "aware" : "agnostic";
}

answer_score score_answer(const matrix& logits, std::span<const int> answer) {
    answer_score score{true, 0.0};
    for (std::size_t i = 0; i < answer.size(); ++i) {
        score.exact = score.exact && most_likely(logits.row(i)) == answer[i];
        score.nll +=
            negative_log_likelihood(logits.row(i), answer[i]) / static_cast<double>(answer.size());
    }
    return score;
}

void check(const retrieval_plan& plan,
           const std::vector<dialogue>& dialogues,
           const std::vector<policy>& policies,
           const std::vector<double>& keep_ratios,
           const llama& model) {
    if (plan.style == conversation::requests && plan.mode == visibility::aware) {
        fail("questions that are asked alone cannot see the first one; allowed: agnostic");
    }
    const model_config& config = model.config();
    for (const dialogue& about : dialogues) {
        require_known_ids(about, about.context, config.vocab);
        for (const turn& one : about.turns) {
            for (const std::vector<int>* ids : {&one.question, &one.answer, &one.alone}) {
                require_known_ids(about, *ids, config.vocab);
            }
        }
        const std::size_t length = length_of(about, plan.style);
        if (length > config.context_length) {
            fail("dialogue ",
                 in_quotes(about.name),
                 " has ",
                 length,
                 " tokens with its questions and answers; the model reads ",
                 config.context_length);
        }
        const std::size_t tokens = prefill_of(about, plan.mode).size();
        for (const policy& how : policies) {
            for (const double ratio : how.ratios(keep_ratios)) {
                how.check_for(config, how.at(ratio), tokens);
            }
        }
    }
}

prefilled_dialogue::prefilled_dialogue(const llama& model,
                                       const retrieval_plan& plan,
                                       const dialogue& about,
                                       const progress_callback& progress)
    : model_(model),
      plan_(plan),
      about_(about),
      tokens_(prefill_of(about, plan.mode)),
      cache_(model.make_cache(plan.type)) {
    const stopwatch watch;
    static_cast<void>(model.forward(tokens_, cache_, 0, nullptr, progress));
    prefill_ms_ = watch.milliseconds();
}

retrieval_result prefilled_dialogue::ask(const policy& how, double keep_ratio) const {
    const model_config& config = model_.config();
    kvcrush::kv_cache cache = copy_for(cache_, how);
    const timed_compression done =
        compress(cache, {model_, tokens_, plan_.repeat_request}, how.at(keep_ratio));
    retrieval_result result;
    result.policy = how.text;
    result.keep_ratio = keep_ratio;
    result.context = tokens_.size();
    result.kept_tokens_mean = done.kept_tokens_mean;
    result.bytes_full = 2.0 * static_cast<double>(sizeof(kvcrush::f16)) *
                        static_cast<double>(config.num_layers * config.kv_width() * tokens_.size());
    result.bytes_held = static_cast<double>(done.bytes_held);
    result.select_ms = done.select_ms;
    result.compact_ms = done.compact_ms;
    result.prefill_ms = prefill_ms_;
    result.turns = plan_.style == conversation::turns ? converse(cache) : ask_each_alone(cache);
    return result;
}

std::vector<answer_score> prefilled_dialogue::converse(kvcrush::kv_cache& cache) const {
    std::vector<answer_score> scores;
    std::vector<int> before = about_.turns.front().question;
    if (plan_.mode == visibility::aware) {
        before = {before.back()};
    }
    for (std::size_t t = 0; t < about_.turns.size(); ++t) {
        const turn& one = about_.turns[t];
        scores.push_back(feed(model_, cache, before, one));
        if (t + 1 < about_.turns.size()) {
            const std::vector<int>& next = about_.turns[t + 1].question;
            before = {one.answer.back()};
            before.insert(before.end(), next.begin(), next.end());
        }
    }
    return scores;
}

std::vector<answer_score> prefilled_dialogue::ask_each_alone(const kvcrush::kv_cache& cache) const {
    std::vector<answer_score> scores;
    for (const turn& one : about_.turns) {
        kvcrush::kv_cache copy = cache;
        scores.push_back(feed(model_, copy, asked_alone(one), one));
    }
    return scores;
}

} // namespace lab
