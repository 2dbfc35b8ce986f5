// SPDX-License-Identifier: Apache-2.0
/// @file
/// llama.cpp behind a few calls: a model, and contexts of one sequence.
#pragma once

#include "query_watch.hpp"
#include "state_blob.hpp"

#include <cstddef>
#include <functional>
#include <llama.h>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace client {

/// --cache-type by its name.
/// @throws lab::input_error naming what is allowed
[[nodiscard]] ggml_type parse_cell_type(const std::string& name);

/// A model that llama.cpp has loaded, on the CPU.
class engine {
public:
    /// @throws lab::input_error if the file cannot be loaded, or if its memory is no cache of keys and values for each token:
    ///         recurrent and hybrid models, encoders, M-RoPE
    explicit engine(const std::string& path);

    [[nodiscard]] llama_model& model() const noexcept { return *model_; }
    [[nodiscard]] std::vector<llama_token> tokens_of(const std::string& text) const;
    [[nodiscard]] std::size_t num_words() const noexcept;
    /// Tokens the model was trained on; sliding window, 0 for none.
    [[nodiscard]] std::size_t context_length() const noexcept;
    [[nodiscard]] std::size_t sliding_window() const noexcept;
    /// A value of the model file, "<architecture>.key".
    [[nodiscard]] std::optional<double> number(const std::string& key) const;

private:
    struct release {
        void operator()(llama_model* model) const { llama_model_free(model); }
    };
    std::unique_ptr<llama_model, release> model_;
};

struct context_options {
    /// Rounded up to a multiple of 256.
    std::size_t cells = 256;
    ggml_type type = GGML_TYPE_F16;
    std::size_t threads = 1;
};

/// Where logits go: the row, after which token of those decoded.
using logits_callback = std::function<void(std::span<const float> logits, std::size_t token)>;

/// One sequence with flash attention on.
class context {
public:
    /// @param watch  looks at what is computed, or nullptr; must outlive this
    /// @throws lab::input_error if llama.cpp makes none
    context(const engine& engine, const context_options& options, query_watch* watch = nullptr);

    /// Tokens that pass through the layers together.
    static constexpr std::size_t batch_size = 512;
    /// Rounds as llama.cpp does.
    [[nodiscard]] static std::size_t rounded(std::size_t cells) noexcept {
        return (cells + 255) / 256 * 256;
    }

    [[nodiscard]] std::size_t cells() const noexcept { return options_.cells; }
    [[nodiscard]] const context_options& options() const noexcept { return options_; }
    /// Reads up to batch_size tokens from a position on.
    /// @param num_logits  of the last so many tokens
    /// @throws lab::input_error if llama.cpp refuses
    void decode(std::span<const llama_token> tokens,
                std::size_t position,
                std::size_t num_logits = 0,
                const logits_callback& logits = {});
    void clear();
    /// Takes back the tokens from a position on.
    void forget_from(std::size_t position);

    /// Keys, values and positions of the sequence.
    [[nodiscard]] state_bytes state() const;
    /// What state() would be [bytes].
    [[nodiscard]] std::size_t state_size() const {
        return llama_state_seq_get_size(context_.get(), 0);
    }
    /// @return false if llama.cpp refuses them; the sequence is then what it was
    [[nodiscard]] bool restore(std::span<const std::byte> state);

private:
    struct release {
        void operator()(llama_context* held) const { llama_free(held); }
    };
    context_options options_;
    std::size_t num_words_;
    std::unique_ptr<llama_context, release> context_;
};

} // namespace client
