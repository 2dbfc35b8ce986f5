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
