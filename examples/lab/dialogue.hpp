// SPDX-License-Identifier: Apache-2.0
/// @file
/// Questions about a context, with the answers that are right.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lab {

/// One question of a conversation, as token ids.
struct turn {
    /// Goes on where the answer before it ended; the first one where the context ended.
    std::vector<int> question;
    std::vector<int> answer;
    /// The same question right after the context, for turns that are asked alone; empty: `question`.
    std::vector<int> alone{};
};

struct dialogue {
    /// What results are averaged by.
    std::string task;
    std::string name;
    std::vector<int> context;
    std::vector<turn> turns;
    /// Of generated dialogues.
    std::optional<std::uint64_t> seed = std::nullopt;
    /// Its place among those of its task and seed, or in its file.
    std::size_t index = 0;
    /// Where in the context the answer stands, in [0, 1]; of tasks with one such place.
    std::optional<double> depth = std::nullopt;
};

/// {"dialogues": [{"name", "context": [ids], "turns": [{"question": [ids], "answer": [ids], "alone": [ids]}]}]};
/// name and alone may be missing. The task of "passkey-3" is "passkey", that of other names "dialogues".
/// @throws input_error naming file, entry and field
[[nodiscard]] std::vector<dialogue> read_dialogues(const std::string& path);

} // namespace lab
