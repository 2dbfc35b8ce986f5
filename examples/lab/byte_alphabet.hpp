// SPDX-License-Identifier: Apache-2.0
/// @file
/// The printable stand-ins that byte-level vocabularies write for bytes.
#pragma once

#include <string>
#include <string_view>

namespace lab {

/// The UTF-8 of the character that stands for a byte: itself where Latin-1 prints it, else one from U+0100 on.
[[nodiscard]] std::string stand_in_of(unsigned char byte);

/// The bytes that a vocabulary entry stands for; the entry itself if it is not written in stand-ins.
[[nodiscard]] std::string bytes_of(std::string_view entry);

} // namespace lab
