// SPDX-License-Identifier: Apache-2.0
/// @file
/// Numbers on the command line.
#pragma once

#include <charconv>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace lab {

/// Whether all of a text is a number of type T, which is then its value.
template <typename T>
[[nodiscard]] bool parse_number(std::string_view text, T& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size();
}

/// "a,b" is "a" and "b". What stands between two commas may be empty.
[[nodiscard]] inline std::vector<std::string> split_at_commas(std::string_view text) {
    std::vector<std::string> parts(1);
    for (const char letter : text) {
        if (letter == ',') {
            parts.emplace_back();
        } else {
            parts.back() += letter;
        }
    }
    return parts;
}

} // namespace lab
