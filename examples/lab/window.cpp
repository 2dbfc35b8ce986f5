// SPDX-License-Identifier: Apache-2.0
#include "window.hpp"

#include "error.hpp"
#include "files.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <limits>
#include <utility>

namespace lab {

void expect_window_fits(std::size_t context, std::size_t num_tokens, const std::string& what) {
    if (const std::size_t needed = tokens_of_window(context); num_tokens < needed) {
        fail(what,
             " has ",
             num_tokens,
             " tokens; --context ",
             context,
             " needs ",
             needed,
             " (the context and ",
             continuation_tokens,
             " to predict)");
    }
}

window cut_window(std::string name,
                  const std::vector<int>& tokens,
                  std::size_t first,
                  std::size_t context) {
    const auto begin = tokens.begin() + static_cast<std::ptrdiff_t>(first);
    const auto split = begin + static_cast<std::ptrdiff_t>(context - 1);
    window result{
        .name = std::move(name),
        .context = {0},
        .continuation = {split, split + static_cast<std::ptrdiff_t>(continuation_tokens)}};
    result.context.insert(result.context.end(), begin, split);
    return result;
}

std::vector<int> read_token_ids(const nlohmann::json& entry,
                                const char* field,
                                std::size_t least,
                                const std::string& where) {
    if (!entry.contains(field) || !entry[field].is_array() || entry[field].size() < least) {
        fail(where,
             " has no list ",
             in_quotes(field),
             " of at least ",
             least == 1 ? "one token id" : "two token ids");
    }
    std::vector<int> ids;
    for (const nlohmann::json& id : entry[field]) {
        if (!id.is_number_integer() || id < 0 || id > (std::numeric_limits<int>::max)()) {
            fail(where,
                 ": ",
                 in_quotes(field),
                 " holds ",
                 in_quotes(id.is_primitive() ? id.dump() : std::string(id.type_name())),
                 "; token ids are whole numbers from 0");
        }
        ids.push_back(id.get<int>());
    }
    return ids;
}

std::vector<window> read_windows(const std::string& path) {
    const nlohmann::json content = nlohmann::json::parse(read_file(path), nullptr, false);
    if (content.is_discarded()) {
        fail("file ", in_quotes(path), " is no JSON");
    }
    if (!content.is_object() || !content.contains("windows") || !content["windows"].is_array() ||
        content["windows"].empty()) {
        fail("file ", in_quotes(path), " has no list \"windows\" with at least one entry");
    }
    std::vector<window> windows;
    for (const nlohmann::json& entry : content["windows"]) {
        const std::string where =
            fmt::format("file {}: window {}", in_quotes(path), windows.size());
        if (!entry.is_object()) {
            fail(where, " is no object");
        }
        window text;
        text.name = entry.contains("name") && entry["name"].is_string()
                        ? entry["name"].get<std::string>()
                        : fmt::format("{}", windows.size());
        text.context = read_token_ids(entry, "context", 2, where);
        text.continuation = read_token_ids(entry, "continuation", 2, where);
        windows.push_back(std::move(text));
    }
    return windows;
}

} // namespace lab
