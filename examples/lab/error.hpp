// SPDX-License-Identifier: Apache-2.0
/// @file
/// How the lab refuses bad input: one line that names the thing, its value and what is allowed.
#pragma once

#include <cstddef>
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

/// \xNN
[[nodiscard]] inline std::string escaped(char letter) {
    constexpr std::string_view digits = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(letter);
    return {'\\', 'x', digits[byte >> 4U], digits[byte & 0xFU]};
}

/// A name in any script, without what moves the cursor of a terminal: control characters become \xNN.
[[nodiscard]] inline std::string printable(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        // In UTF-8 U+0080 to U+009F are 0xC2 and a byte below 0xA0.
        const bool second = i > 0 && text[i - 1] == '\xC2' && byte >= 0x80 && byte < 0xA0;
        result +=
            byte < 0x20 || byte == 0x7F || second ? escaped(text[i]) : std::string(1, text[i]);
    }
    return result;
}

/// Quotes text that comes from a file: unprintable bytes become \xNN and long text is cut, so that a hostile
/// name can neither break the line nor flood the terminal.
[[nodiscard]] inline std::string in_quotes(std::string_view text) {
    constexpr std::size_t longest = 80;
    std::string result = "\"";
    for (const char letter : text.substr(0, longest)) {
        const auto byte = static_cast<unsigned char>(letter);
        const bool plain = byte >= 0x20 && byte < 0x7F && letter != '"' && letter != '\\';
        result += plain ? std::string(1, letter) : escaped(letter);
    }
    return result + (text.size() > longest ? "...\"" : "\"");
}

} // namespace lab
