// SPDX-License-Identifier: Apache-2.0
/// @file
/// Texts as token ids, cut where the cache is compressed.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace lab {

/// A text in two parts: what is read before compression, and what is predicted after it.
struct window {
    std::string name;
    std::vector<int> context;
    /// The first token is fed to the compressed cache, every later one is predicted from those before it.
    std::vector<int> continuation;
};

/// Tokens of a continuation: 128 predictions need one more.
inline constexpr std::size_t continuation_tokens = 129;

/// Tokens of a text that a window takes: the first of its context is token 0, which is not the text's.
[[nodiscard]] constexpr std::size_t tokens_of_window(std::size_t context) {
    return context - 1 + continuation_tokens;
}

/// @param what  the text that has so many tokens, for messages
/// @throws input_error if a window takes more
void expect_window_fits(std::size_t context, std::size_t num_tokens, const std::string& what);

/// The window that begins at token `first` of a text, with token 0 in front: these models have never seen a text without
/// a first token that carries no meaning.
[[nodiscard]] window cut_window(std::string name,
                                const std::vector<int>& tokens,
                                std::size_t first,
                                std::size_t context);

/// The token ids that a field of a JSON object lists.
/// @param least  so many there must be, 1 or 2
/// @param where  what the object is, for messages
/// @throws input_error naming what is missing or no token id
[[nodiscard]] std::vector<int> read_token_ids(const nlohmann::json& entry,
                                              const char* field,
                                              std::size_t least,
                                              const std::string& where);

/// Windows of token ids: {"windows": [{"name", "context": [ids], "continuation": [ids]}]}.
/// @throws input_error naming what is missing or of another type
[[nodiscard]] std::vector<window> read_windows(const std::string& path);

} // namespace lab
