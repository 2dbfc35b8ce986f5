// SPDX-License-Identifier: Apache-2.0
#include "byte_alphabet.hpp"

#include "utf8.hpp"

#include <array>

namespace lab {
namespace {

constexpr int alphabet_end = 0x100 + 68; // 68 bytes do not print

constexpr bool prints(int byte) noexcept {
    return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

struct alphabet {
    std::array<int, 256> stand_ins{};
    std::array<int, alphabet_end> bytes{}; ///< -1 for characters that stand for nothing
};

constexpr alphabet make_alphabet() noexcept {
    alphabet result;
    result.bytes.fill(-1);
    int next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
        const int stand_in = prints(byte) ? byte : next++;
        result.stand_ins[static_cast<std::size_t>(byte)] = stand_in;
        result.bytes[static_cast<std::size_t>(stand_in)] = byte;
    }
    return result;
}

constexpr alphabet letters = make_alphabet();

} // namespace

std::string stand_in_of(unsigned char byte) {
    const int code_point = letters.stand_ins[byte];
    if (code_point < 0x80) {
        return {static_cast<char>(code_point)};
    }
    return {static_cast<char>(0xC0 | (code_point >> 6)),
            static_cast<char>(0x80 | (code_point & 0x3F))};
}

std::string bytes_of(std::string_view entry) {
    std::string bytes;
    for (std::size_t offset = 0; offset < entry.size();) {
        const auto [code_point, length] = first_character(entry.substr(offset));
        const int byte = code_point >= 0 && code_point < alphabet_end
                             ? letters.bytes[static_cast<std::size_t>(code_point)]
                             : -1;
        if (byte < 0) {
            return std::string(entry);
        }
        bytes += static_cast<char>(byte);
        offset += length;
    }
    return bytes;
}

} // namespace lab
