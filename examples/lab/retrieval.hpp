// SPDX-License-Identifier: Apache-2.0
/// @file
/// Whether a compressed cache still answers questions about its context.
#pragma once

#include "dialogue.hpp"
#include "matrix.hpp"
#include "model.hpp"
#include "policy.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lab {

/// What a policy sees before it decides.
enum class visibility : std::uint8_t {
    agnostic, ///< the context alone
    aware,    ///< the context and the first question, except for its last token
};

/// How several questions are put to one compression.
enum class conversation : std::uint8_t {
    turns,    ///< one after the other, with the right answers of earlier turns in between
    requests, ///< each alone, on a fresh copy of the compressed cache
};

struct retrieval_plan {
    visibility mode = visibility::agnostic;
    conversation style = conversation::turns;
    cache_type type = cache_type::f16;
    /// Token ids that ask the model to repeat its context; may be empty.
    std::vector<int> repeat_request{};
};

/// "agnostic", "aware", or "requests" for questions asked alone.
[[nodiscard]] std::string_view name_of(const retrieval_plan& plan) noexcept;

/// One answer.
struct answer_score {
    /// Every token of the answer is the most likely one: greedy decoding gives it. The first wrong token
    /// ends both, so the right answer may be fed.
    bool exact = false;
    /// Mean negative log-likelihood of its tokens [nats].
    double nll = 0.0;
};

/// @param logits  [answer.size(), vocab], before each token of the answer
[[nodiscard]] answer_score score_answer(const matrix& logits, std::span<const int> answer);

/// One policy at one keep ratio on one dialogue.
struct retrieval_result {
    std::string policy;
    double keep_ratio = 1.0;
    /// Tokens before compression: with the first question, where it is visible.
    std::size_t context = 0;
    double kept_tokens_mean = 0.0;
    /// All rows in f16 [bytes].
    double bytes_full = 0.0;
    /// What is allocated right after compression [bytes].
    double bytes_held = 0.0;
    double select_ms = 0.0;
    double compact_ms = 0.0;
    double prefill_ms = 0.0;
    std::vector<answer_score> turns;
};

/// Throws what would fail after minutes of work, before it: unknown token ids, dialogues longer than the model's
/// context, budgets without room for sinks and recent tokens, questions asked alone that are visible before.
void check(const retrieval_plan& plan,
           const std::vector<dialogue>& dialogues,
           const std::vector<policy>& policies,
           const std::vector<double>& keep_ratios,
           const llama& model);

/// A dialogue whose context has been read; policies are then tried on copies of its cache.
class prefilled_dialogue {
public:
    /// Model, plan and dialogue must outlive it.
    prefilled_dialogue(const llama& model,
                       const retrieval_plan& plan,
                       const dialogue& about,
                       const progress_callback& progress = {});

    /// @param keep_ratio  of the tokens read; 1 for the full cache
    [[nodiscard]] retrieval_result ask(const policy& how, double keep_ratio) const;

private:
    [[nodiscard]] std::vector<answer_score> converse(kvcrush::kv_cache& cache) const;
    [[nodiscard]] std::vector<answer_score> ask_each_alone(const kvcrush::kv_cache& cache) const;

    const llama& model_;
    const retrieval_plan& plan_;
    const dialogue& about_;
    std::vector<int> tokens_;
    kvcrush::kv_cache cache_;
    double prefill_ms_ = 0.0;
};

} // namespace lab
