// SPDX-License-Identifier: Apache-2.0
/// @file
/// UTF-8, one character at a time. Strict: overlong forms, surrogates and values above U+10FFFF are not characters.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace lab {

struct utf8_character {
    std::int32_t code_point; ///< -1 if the bytes are not UTF-8
    std::size_t length;      ///< [bytes], 1 if they are not
};

/// Decodes the first character. @pre  text is not empty
[[nodiscard]] constexpr utf8_character first_character(std::string_view text) noexcept {
    constexpr utf8_character invalid{-1, 1};
    const auto byte = [text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned first = byte(0);
    if (first < 0x80) {
        return {static_cast<std::int32_t>(first), 1};
    }
    const std::size_t length = first < 0xC2   ? 0
                               : first < 0xE0 ? 2
                               : first < 0xF0 ? 3
                               : first < 0xF5 ? 4
                                              : 0;
    if (length == 0 || text.size() < length) {
        return invalid;
    }
    std::int32_t code_point = static_cast<std::int32_t>(first & (0xFFU >> (length + 1)));
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xC0U) != 0x80U) {
            return invalid;
        }
        code_point = (code_point << 6) | static_cast<std::int32_t>(byte(i) & 0x3FU);
    }
    constexpr std::array<std::int32_t, 5> smallest = {0, 0, 0x80, 0x800, 0x10000};
    const bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
    if (code_point < smallest[length] || code_point > 0x10FFFF || surrogate) {
        return invalid;
    }
    return {code_point, length};
}

/// @return the offset of the first byte that is not part of valid UTF-8, or npos
[[nodiscard]] constexpr std::size_t find_invalid_utf8(std::string_view text) noexcept {
    for (std::size_t offset = 0; offset < text.size();) {
        const utf8_character next = first_character(text.substr(offset));
        if (next.code_point < 0) {
            return offset;
        }
        offset += next.length;
    }
    return std::string_view::npos;
}

} // namespace lab
