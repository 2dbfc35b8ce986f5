// SPDX-License-Identifier: Apache-2.0
/// @file
/// Text to the pieces that byte pairs are merged within.
#pragma once

#include <cstddef>
#include <string_view>

namespace lab {

/// Cuts text by the GPT-2 pattern
///
///     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
///
/// with \s meaning Unicode White_Space. Written as a scanner: the pattern needs no backtracking beyond one
/// character, so the work is linear and nothing recurses, whatever the text.
///
/// SmolLM2 was trained with every number character split off first. The reference that the recorded ids come from
/// (transformers, reading the GGUF file) does without, and so do we. ASCII digits are single tokens either way, as
/// the vocabulary joins none; what differs is several spaces before a digit, and numbers outside ASCII.
class pretokenizer {
public:
    /// @pre  text is valid UTF-8 (see utf8.hpp) and outlives the object
    explicit pretokenizer(std::string_view text) noexcept : text_(text) {}

    /// @return the next piece; an empty view at the end of the text
    [[nodiscard]] std::string_view next() noexcept;

private:
    enum class kind : unsigned char { letter, number, space, other, end };
    struct symbol {
        kind what;
        std::size_t length; ///< [bytes]
    };

    [[nodiscard]] symbol at(std::size_t offset) const noexcept;
    [[nodiscard]] std::size_t skip(kind what, std::size_t offset) const noexcept;
    [[nodiscard]] std::size_t end_of_piece() const noexcept;
    [[nodiscard]] std::size_t end_of_spaces() const noexcept;

    std::string_view text_;
    std::size_t offset_ = 0;
};

} // namespace lab
