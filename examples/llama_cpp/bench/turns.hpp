// SPDX-License-Identifier: Apache-2.0
/// @file
/// The same tokens over the same cache, by ggml alone and with the backend, in turns.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <ggml.h>
#include <string>
#include <vector>

namespace turns {

/// Tokens that are decoded behind each depth, timed and their predictions compared.
inline constexpr std::size_t compared_tokens = 64;

/// The prompt is read 512 tokens at once; ggml's divergence from itself is taken from reading it so many at once. The
/// first is what bars are about. How far ggml is from itself depends on the split: where the same kernels compute, not
/// at all.
inline constexpr std::array<std::size_t, 3> other_batches = {128, 32, 1};

struct plan {
    std::string model;
    std::string backend;
    std::string text;
    std::vector<ggml_type> types;
    /// Tokens in the cache when decoding begins, ascending, at least one. Those that the model was not trained on are
    /// left out, which is said.
    std::vector<std::size_t> depths;
    std::vector<int> threads;
    /// Tokens of the prompt that is timed; 0 for none.
    std::size_t prompt = 1024;
};

enum class what { decode, prompt };

/// One line of the table. CPU time with one thread, wall time with more.
struct row {
    what kind = what::decode;
    std::string type;
    std::size_t depth = 0; ///< or tokens of the prompt
    int threads = 1;
    double ggml_ms = 0.0; ///< a token, or the whole prompt: the least of all turns
    double kvcrush_ms = 0.0;
    double ggml_median_ms = 0.0;
    double kvcrush_median_ms = 0.0;
    /// Of the backend's predictions from ggml's behind one and the same cache, over the tokens that are timed.
    double kld_same_cache = -1.0;
    /// Of the backend's predictions from ggml's, each having read all tokens by itself: mean KL divergence [nats];
    /// negative where it was not measured.
    double kld = -1.0;
    /// The same of ggml from itself, with the prompt in other batches.
    std::array<double, other_batches.size()> kld_floors{};
    /// Of each from ggml with an f16 cache.
    double kld_to_f16_ggml = -1.0;
    double kld_to_f16_kvcrush = -1.0;

    [[nodiscard]] double ratio() const { return ggml_ms / kvcrush_ms; }
};

using progress = std::function<void(double done, double all)>;

/// @throws lab::input_error if something cannot be loaded or does not fit; std::runtime_error if the backend was loaded
///         and not used
[[nodiscard]] std::vector<row> run(const plan& wanted, const progress& show);

} // namespace turns
