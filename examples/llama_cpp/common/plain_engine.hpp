// SPDX-License-Identifier: Apache-2.0
/// @file
/// The real model in llama.cpp, by ggml alone or with the backend.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <ggml-backend.h>
#include <llama.h>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace llama_cpp {

struct free_model {
    void operator()(llama_model* model) const { llama_model_free(model); }
};
struct free_context {
    void operator()(llama_context* context) const { llama_free(context); }
};
using model_ptr = std::unique_ptr<llama_model, free_model>;

inline model_ptr load_model(const std::string& path) {
    llama_model* const model =
        llama_model_load_from_file(path.c_str(), llama_model_default_params());
    if (model == nullptr) {
        throw std::runtime_error("no model could be read from " + path);
    }
    return model_ptr(model);
}

inline std::vector<llama_token> tokens_of(const llama_model& model, const std::string& text) {
    std::vector<llama_token> tokens(text.size() + 8);
    const int count = llama_tokenize(llama_model_get_vocab(&model),
                                     text.data(),
                                     static_cast<int>(text.size()),
                                     tokens.data(),
                                     static_cast<int>(tokens.size()),
                                     true,
                                     false);
    tokens.resize(static_cast<std::size_t>(std::max(count, 0)));
    return tokens;
}

struct engine_options {
    ggml_type type = GGML_TYPE_F32;
    llama_flash_attn_type flash = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    std::uint32_t tokens = 1024;
    std::uint32_t sequences = 1;
    bool unified = false;
    int threads = 1;
    std::uint32_t ubatch = 256;
};

/// One context. What it computes with is settled when it is made: every backend that is loaded by then.
class engine {
public:
    engine(llama_model& model, const engine_options& options) : model_(model) {
        llama_context_params params = llama_context_default_params();
        params.n_ctx = options.tokens * (options.unified ? 1 : options.sequences);
        params.n_batch = 2048;
        params.n_ubatch = options.ubatch;
        params.n_seq_max = options.sequences;
        params.kv_unified = options.unified;
        params.type_k = options.type;
        params.type_v = options.type;
        params.flash_attn_type = options.flash;
        params.n_threads = options.threads;
        params.n_threads_batch = options.threads;
        context_.reset(llama_init_from_model(&model, params));
        if (context_ == nullptr) {
            throw std::runtime_error("llama.cpp made no context");
        }
    }

    /// Tokens of several sequences in one batch; the logits of the last of each.
    /// @param positions  of the first token of each
    std::vector<std::vector<float>> decode_all(const std::vector<std::vector<llama_token>>& texts,
                                               const std::vector<int>& sequences,
                                               const std::vector<int>& positions) {
        std::size_t count = 0;
        for (const auto& text : texts) {
            count += text.size();
        }
        llama_batch batch = llama_batch_init(static_cast<int>(count), 0, 1);
        std::vector<int> last;
        for (std::size_t i = 0; i < texts.size(); ++i) {
            for (std::size_t t = 0; t < texts[i].size(); ++t) {
                const int at = batch.n_tokens++;
                batch.token[at] = texts[i][t];
                batch.pos[at] = positions[i] + static_cast<int>(t);
                batch.n_seq_id[at] = 1;
                batch.seq_id[at][0] = sequences[i];
                batch.logits[at] = t + 1 == texts[i].size();
            }
            last.push_back(batch.n_tokens - 1);
        }
        const int status = llama_decode(context(), batch);
        llama_batch_free(batch);
        if (status != 0) {
            throw std::runtime_error("llama_decode gave " + std::to_string(status));
        }
        std::vector<std::vector<float>> logits;
        for (const int at : last) {
            const float* const row = llama_get_logits_ith(context(), at);
            logits.emplace_back(row, row + num_words());
        }
        return logits;
    }
    std::vector<float>
    decode(const std::vector<llama_token>& text, int position, int sequence = 0) {
        return decode_all({text}, {sequence}, {position}).front();
    }

    [[nodiscard]] llama_context* context() const { return context_.get(); }
    [[nodiscard]] llama_memory_t memory() const { return llama_get_memory(context()); }
    [[nodiscard]] std::size_t num_words() const {
        return static_cast<std::size_t>(llama_vocab_n_tokens(llama_model_get_vocab(&model_)));
    }

private:
    llama_model& model_;
    std::unique_ptr<llama_context, free_context> context_;
};

inline llama_token likeliest(std::span<const float> logits) {
    return static_cast<llama_token>(std::max_element(logits.begin(), logits.end()) -
                                    logits.begin());
}

/// Errors alone, on standard error.
inline void quiet() {
    llama_log_set(
        [](ggml_log_level level, const char* text, void*) {
            if (level == GGML_LOG_LEVEL_ERROR) {
                std::fputs(text, stderr);
            }
        },
        nullptr);
}

inline double largest_difference(std::span<const float> a, std::span<const float> b) {
    double largest = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        largest =
            std::max(largest, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    }
    return largest;
}

} // namespace llama_cpp
