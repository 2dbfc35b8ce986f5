// SPDX-License-Identifier: Apache-2.0
/// @file
/// How the lab refuses bad input: one line that names the thing, its value and what is allowed.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace lab {

/// Thrown for anything wrong with a file, a text or an argument. what() is a single printable line.
class input_error : public std::invalid_argument {
public:
    using std::invalid_argument::invalid_argument;
};

/// Throws an input_error whose message is the parts, one after the other.
template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
    std::ostringstream message;
    (message << ... << parts);
    throw input_error(message.str());
}

/// Quotes text that comes from a file: unprintable bytes become \xNN and long text is cut, so that a hostile
/// name can neither break the line nor flood the terminal.
[[nodiscard]] inline std::string in_quotes(std::string_view text) {
    constexpr std::size_t longest = 80;
    constexpr std::string_view digits = "0123456789abcdef";
    std::string result = "\"";
    for (const char letter : text.substr(0, longest)) {
        const auto byte = static_cast<unsigned char>(letter);
        if (byte < 0x20 || byte >= 0x7F || letter == '"' || letter == '\\') {
            result += "\\x";
            result += digits[byte >> 4U];
            result += digits[byte & 0xFU];
        } else {
            result += letter;
        }
    }
    return result + (text.size() > longest ? "...\"" : "\"");
}

} // namespace lab
