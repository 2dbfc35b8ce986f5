// SPDX-License-Identifier: Apache-2.0
#include "engine.hpp"

#include "error.hpp"
#include "numbers.hpp"

#include <algorithm>
#include <array>
#include <ggml-backend.h>
#include <mutex>
#include <string>
#include <utility>

namespace client {
namespace {

using lab::fail;
using lab::in_quotes;

/// What llama.cpp complained of first since it was asked, for messages of ours: what follows says the same in general.
std::string& first_complaint() {
    static std::string text;
    return text;
}

void listen(ggml_log_level level, const char* text, void*) {
    if (level == GGML_LOG_LEVEL_ERROR && first_complaint().empty()) {
        std::string line = text;
        while (!line.empty() && line.back() == '\n') {
            line.pop_back();
        }
        first_complaint() = line;
    }
}

[[nodiscard]] std::string reason() {
    const std::string text = std::exchange(first_complaint(), {});
    return text.empty() ? "llama.cpp gives no reason" : text;
}

void start_llama() {
    static std::once_flag once;
    std::call_once(once, [] {
        llama_log_set(listen, nullptr);
        ggml_backend_load_all(); // also what GGML_BACKEND_PATH names
    });
}

constexpr std::array<std::pair<const char*, ggml_type>, 9> cell_types{
    {{"f32", GGML_TYPE_F32},
     {"f16", GGML_TYPE_F16},
     {"bf16", GGML_TYPE_BF16},
     {"q8_0", GGML_TYPE_Q8_0},
     {"q5_1", GGML_TYPE_Q5_1},
     {"q5_0", GGML_TYPE_Q5_0},
     {"q4_1", GGML_TYPE_Q4_1},
     {"q4_0", GGML_TYPE_Q4_0},
     {"iq4_nl", GGML_TYPE_IQ4_NL}}};

[[nodiscard]] std::optional<std::string> meta(const llama_model& model, const std::string& key) {
    char text[256];
    if (llama_model_meta_val_str(&model, key.c_str(), text, sizeof text) < 0) {
        return std::nullopt;
    }
    return std::string(text);
}

/// What a sequence of these models leaves behind is not a row of keys and values for each token.
void require_plain_memory(const llama_model& model, const std::string& path) {
    const auto refuse = [&](const char* what) {
        fail("--model is ",
             in_quotes(path),
             ", ",
             what,
             "; allowed: decoders whose cache holds a key and a value per token");
    };
    if (llama_model_is_recurrent(&model)) {
        refuse("a recurrent model");
    }
    if (llama_model_is_hybrid(&model)) {
        refuse("a hybrid model, part of whose memory is recurrent");
    }
    if (llama_model_has_encoder(&model) || llama_model_is_diffusion(&model)) {
        refuse("no plain decoder");
    }
    const llama_rope_type rope = llama_model_rope_type(&model);
    if (rope != LLAMA_ROPE_TYPE_NONE && rope != LLAMA_ROPE_TYPE_NORM &&
        rope != LLAMA_ROPE_TYPE_NEOX) {
        refuse("a model with M-RoPE, whose tokens have several positions");
    }
}

} // namespace

ggml_type parse_cell_type(const std::string& name) {
    std::string allowed;
    for (const auto& [known, type] : cell_types) {
        if (name == known) {
            return type;
        }
        allowed += (allowed.empty() ? "" : ", ") + std::string(known);
    }
    fail("--cache-type is ", in_quotes(name), "; allowed: ", allowed);
}

engine::engine(const std::string& path) {
    start_llama();
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    model_.reset(llama_model_load_from_file(path.c_str(), params));
    if (model_ == nullptr) {
        fail("--model is ", in_quotes(path), ", which llama.cpp does not load: ", reason());
    }
    require_plain_memory(*model_, path);
}

std::vector<llama_token> engine::tokens_of(const std::string& text) const {
    std::vector<llama_token> tokens(text.size() + 8);
    const int count = llama_tokenize(llama_model_get_vocab(model_.get()),
                                     text.data(),
                                     static_cast<int>(text.size()),
                                     tokens.data(),
                                     static_cast<int>(tokens.size()),
                                     true,
                                     false);
    tokens.resize(static_cast<std::size_t>(std::max(count, 0)));
    return tokens;
}

std::size_t engine::num_words() const noexcept {
    return static_cast<std::size_t>(llama_vocab_n_tokens(llama_model_get_vocab(model_.get())));
}

std::size_t engine::context_length() const noexcept {
    return static_cast<std::size_t>(std::max(llama_model_n_ctx_train(model_.get()), 0));
}

std::size_t engine::sliding_window() const noexcept {
    return static_cast<std::size_t>(std::max(llama_model_n_swa(model_.get()), 0));
}

std::optional<double> engine::number(const std::string& key) const {
    const auto architecture = meta(*model_, "general.architecture");
    const auto text = architecture ? meta(*model_, *architecture + "." + key) : std::nullopt;
    double value = 0.0;
    if (!text || !lab::parse_number(*text, value)) {
        return std::nullopt;
    }
    return value;
}

context::context(const engine& engine, const context_options& options, query_watch* watch)
    : options_(options), num_words_(engine.num_words()) {
    options_.cells = rounded(options.cells);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = static_cast<std::uint32_t>(options_.cells);
    params.n_batch = batch_size;
    params.n_ubatch = batch_size;
    params.n_seq_max = 1;
    params.n_threads = static_cast<int>(options.threads);
    params.n_threads_batch = static_cast<int>(options.threads);
    params.type_k = options.type;
    params.type_v = options.type;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.swa_full = false;
    params.no_perf = true;
    if (watch != nullptr) {
        params.cb_eval = query_watch::callback;
        params.cb_eval_user_data = watch;
    }
    context_.reset(llama_init_from_model(&engine.model(), params));
    if (context_ == nullptr) {
        fail("llama.cpp makes no context of ",
             options_.cells,
             " cells of ",
             ggml_type_name(options.type),
             ": ",
             reason());
    }
    // With a window of fewer tokens than there are cells, llama.cpp would say that it makes more of them.
    options_.cells = llama_n_ctx(context_.get());
}

void context::decode(std::span<const llama_token> tokens,
                     std::size_t position,
                     std::size_t num_logits,
                     const logits_callback& logits) {
    llama_batch batch = llama_batch_init(static_cast<int>(tokens.size()), 0, 1);
    for (std::size_t t = 0; t < tokens.size(); ++t) {
        batch.token[t] = tokens[t];
        batch.pos[t] = static_cast<llama_pos>(position + t);
        batch.n_seq_id[t] = 1;
        batch.seq_id[t][0] = 0;
        batch.logits[t] = t + num_logits >= tokens.size() ? 1 : 0;
    }
    batch.n_tokens = static_cast<int>(tokens.size());
    const int status = llama_decode(context_.get(), batch);
    llama_batch_free(batch);
    if (status != 0) {
        fail("llama.cpp does not decode ",
             tokens.size(),
             " tokens at position ",
             position,
             ": ",
             reason());
    }
    for (std::size_t t = tokens.size() - std::min(num_logits, tokens.size());
         t < tokens.size() && logits;
         ++t) {
        logits({llama_get_logits_ith(context_.get(), static_cast<int>(t)), num_words_}, t);
    }
}

void context::clear() { llama_memory_clear(llama_get_memory(context_.get()), true); }

void context::forget_from(std::size_t position) {
    const auto first = static_cast<llama_pos>(position);
    if (!llama_memory_seq_rm(llama_get_memory(context_.get()), 0, first, -1)) {
        fail("llama.cpp does not take back the tokens from position ", position, " on");
    }
}

state_bytes context::state() const {
    state_bytes bytes(llama_state_seq_get_size(context_.get(), 0));
    const std::size_t written = llama_state_seq_get_data(
        context_.get(), reinterpret_cast<std::uint8_t*>(bytes.all().data()), bytes.size(), 0);
    if (bytes.size() == 0 || written != bytes.size()) {
        fail("llama.cpp does not give the state of a sequence: ", reason());
    }
    return bytes;
}

bool context::restore(std::span<const std::byte> state) {
    const auto set = [&](std::span<const std::byte> bytes) {
        return llama_state_seq_set_data(context_.get(),
                                        reinterpret_cast<const std::uint8_t*>(bytes.data()),
                                        bytes.size(),
                                        0) == bytes.size();
    };
    // llama.cpp empties the sequence before it finds out that it does not like what it is given.
    const bool was_empty = llama_memory_seq_pos_max(llama_get_memory(context_.get()), 0) < 0;
    const state_bytes before = was_empty ? state_bytes{} : this->state();
    if (set(state)) {
        return true;
    }
    clear();
    if (!was_empty && !set(before.all())) {
        lab::fail("llama.cpp does not take back the state that it gave");
    }
    return false;
}

} // namespace client
