// SPDX-License-Identifier: Apache-2.0
#include "generate.hpp"

#include "error.hpp"

namespace lab {

int most_likely(std::span<const float> logits) noexcept {
    std::size_t best = 0;
    for (std::size_t i = 1; i < logits.size(); ++i) {
        // The second half lets any number replace a NaN that came first.
        if (logits[i] > logits[best] || (logits[best] != logits[best] && logits[i] == logits[i])) {
            best = i;
        }
    }
    return static_cast<int>(best);
}

std::vector<int> generate(const llama& model,
                          kvcrush::kv_cache& cache,
                          std::span<const int> prompt,
                          const generation_options& options,
                          const generation_hook& hook) {
    if (prompt.empty()) {
        fail("the prompt is empty; at least one token is needed");
    }
    const std::size_t context = model.config().context_length;
    const std::size_t start = cache.tokens_seen() + prompt.size();
    if (start > context || options.max_new_tokens > context - start + 1) {
        fail("a prompt that ends at token ",
             start,
             " and ",
             options.max_new_tokens,
             " new tokens do not fit; the model reads ",
             context,
             " tokens");
    }
    std::vector<int> tokens;
    if (options.max_new_tokens == 0) {
        return tokens;
    }
    matrix logits = model.forward(prompt, cache, 1, nullptr, options.progress);
    while (true) {
        const int token = most_likely(logits.row(0));
        tokens.push_back(token);
        if (hook) {
            hook(tokens.size() - 1, token);
        }
        if (tokens.size() == options.max_new_tokens || token == options.end_token) {
            return tokens;
        }
        logits = model.forward({&token, 1}, cache, 1, nullptr);
    }
}

} // namespace lab
