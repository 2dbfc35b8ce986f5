// SPDX-License-Identifier: Apache-2.0
#include "dialogue.hpp"

#include "error.hpp"
#include "files.hpp"
#include "window.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <string_view>
#include <utility>

namespace lab {
namespace {

[[nodiscard]] const nlohmann::json&
read_list(const nlohmann::json& entry, const char* field, const std::string& where) {
    if (!entry.is_object() || !entry.contains(field) || !entry[field].is_array() ||
        entry[field].empty()) {
        fail(where, " has no list ", in_quotes(field), " with at least one entry");
    }
    return entry[field];
}

[[nodiscard]] std::string task_of(std::string_view name) {
    constexpr std::string_view digits = "0123456789";
    constexpr std::string_view allowed =
        "0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-";
    const std::size_t dash = name.rfind('-');
    const bool numbered = dash != std::string_view::npos && dash > 0 && dash + 1 < name.size() &&
                          name.find_first_not_of(digits, dash + 1) == std::string_view::npos;
    if (!numbered || name.find_first_not_of(allowed) != std::string_view::npos) {
        return "dialogues";
    }
    return std::string(name.substr(0, dash));
}

[[nodiscard]] turn read_turn(const nlohmann::json& entry, const std::string& where) {
    if (!entry.is_object()) {
        fail(where, " is no object");
    }
    turn result{read_token_ids(entry, "question", 1, where),
                read_token_ids(entry, "answer", 1, where)};
    if (entry.contains("alone")) {
        result.alone = read_token_ids(entry, "alone", 1, where);
    }
    return result;
}

} // namespace

std::vector<dialogue> read_dialogues(const std::string& path) {
    const nlohmann::json content = nlohmann::json::parse(read_file(path), nullptr, false);
    const std::string file = "file " + in_quotes(path);
    if (content.is_discarded()) {
        fail(file, " is no JSON");
    }
    std::vector<dialogue> dialogues;
    for (const nlohmann::json& entry : read_list(content, "dialogues", file)) {
        std::string where = fmt::format("{}: dialogue {}", file, dialogues.size());
        if (!entry.is_object()) {
            fail(where, " is no object");
        }
        dialogue one;
        one.index = dialogues.size();
        one.name = fmt::format("{}", one.index);
        if (entry.contains("name")) {
            if (!entry["name"].is_string()) {
                fail(where, ": \"name\" is no text");
            }
            one.name = entry["name"].get<std::string>();
            where += fmt::format(" ({})", in_quotes(one.name));
        }
        one.task = task_of(one.name);
        one.context = read_token_ids(entry, "context", 1, where);
        for (const nlohmann::json& asked : read_list(entry, "turns", where)) {
            one.turns.push_back(
                read_turn(asked, fmt::format("{}: turn {}", where, one.turns.size() + 1)));
        }
        dialogues.push_back(std::move(one));
    }
    return dialogues;
}

} // namespace lab
