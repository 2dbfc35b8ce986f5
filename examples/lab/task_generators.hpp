// SPDX-License-Identifier: Apache-2.0
/// @file
/// Questions about contexts of any length whose answers are known: made, not collected.
#pragma once

#include "dialogue.hpp"
#include "filler.hpp"
#include "window.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lab {

/// A task with questions.
/// @see RULER, arXiv:2404.06654; SCBench, arXiv:2412.10319
enum class retrieval_task : std::uint8_t {
    passkey,           ///< one number at some depth
    multikey,          ///< five numbers, each with a word of its own; one question for each
    multi_value,       ///< three numbers of one word, all asked for at once
    variable_tracking, ///< two chains of assignments; the value of every variable
    common_words,      ///< no filler: words, three of them more often than the rest; which, in turn
};

[[nodiscard]] std::string_view name_of(retrieval_task task) noexcept;

/// Text to token ids.
using encoder = std::function<std::vector<int>(std::string_view)>;

struct task_options {
    /// Tokens before the first question, at most.
    std::size_t context = 1024;
    std::uint64_t seed = 0;
    /// Of the passkey, in [0, 1]; none: spread evenly over the samples.
    std::optional<double> depth = std::nullopt;
};

/// Changes whenever other tokens come out for the same options: results of different versions are not compared.
inline constexpr int generator_version = 1;

/// Sample `index` of a seed does not depend on how many are made. As much filler as fits the context.
/// @throws input_error if the context has no room for what is asked about
[[nodiscard]] dialogue make_dialogue(retrieval_task task,
                                     const task_options& options,
                                     const filler& hay,
                                     const encoder& encode,
                                     std::size_t index);

/// Cuts `context` tokens, with id 0 in front as `run` does, and those to predict out of a text. Samples of one seed are
/// spread evenly over the text; where there are more than fit side by side, they overlap.
/// @param text  all tokens of it
/// @throws input_error if the text is too short
[[nodiscard]] window
make_window(const task_options& options, const std::vector<int>& text, std::size_t index);

} // namespace lab
