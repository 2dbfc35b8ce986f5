// SPDX-License-Identifier: Apache-2.0
/// @file
/// What long generations cost on a cache that stays small: a text is read token by token, the cache is compressed again
/// and again, and every prediction is compared with the full cache's.
#pragma once

#include "experiment.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace lab {

struct stream_options {
    /// Tokens that are read at once, before the stream.
    std::size_t prompt = 512;
    /// Tokens of the stream, each fed and the next predicted.
    std::size_t tokens = 2000;
    /// Tokens that a kv head keeps at a compression.
    std::size_t budget = 512;
    /// Tokens between two compressions.
    std::size_t compress_every = 64;

    /// Tokens of a text that are looked at: the last one is predicted only.
    [[nodiscard]] std::size_t text_tokens() const noexcept { return prompt + tokens + 1; }
};

/// So many rows per policy, each of an equal part of the stream: losses may grow as it goes on.
inline constexpr std::size_t stream_parts = 4;

/// @param text        what it is, for messages
/// @param num_tokens  of it, token 0 in front included
/// @throws what would go wrong after minutes of work: fewer tokens than asked for, a budget without room for sinks and
///         recent tokens, a text longer than the model's context
void check_stream(const experiment& plan,
                  const stream_options& options,
                  const std::string& text,
                  std::size_t num_tokens,
                  const llama& model);

/// Per policy stream_parts measurements: of `context` tokens seen at the end of the part, with the rows and bytes held
/// there, and keep_ratio that of the budget at the end of the stream. select_ms and compact_ms are per compression. decode_ms_per_token leaves compression out.
/// @param name    of the text
/// @param tokens  options.text_tokens() of them, or more
[[nodiscard]] std::vector<measurement> run_stream(const experiment& plan,
                                                  const stream_options& options,
                                                  const std::string& name,
                                                  const std::vector<int>& tokens,
                                                  const llama& model,
                                                  const step_callback& progress = {});

} // namespace lab
