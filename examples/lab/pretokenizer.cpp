// SPDX-License-Identifier: Apache-2.0
#include "pretokenizer.hpp"

#include "utf8.hpp"

#include <unicode/uchar.h>

#include <array>

namespace lab {

pretokenizer::symbol pretokenizer::at(std::size_t offset) const noexcept {
    if (offset >= text_.size()) {
        return {kind::end, 0};
    }
    const auto [code_point, length] = first_character(text_.substr(offset));
    const auto category = U_MASK(u_charType(code_point));
    if ((category & U_GC_L_MASK) != 0) {
        return {kind::letter, length};
    }
    if ((category & U_GC_N_MASK) != 0) {
        return {kind::number, length};
    }
    return {u_isUWhiteSpace(code_point) != 0 ? kind::space : kind::other, length};
}

std::size_t pretokenizer::skip(kind what, std::size_t offset) const noexcept {
    for (symbol found = at(offset); found.what == what; found = at(offset)) {
        offset += found.length;
    }
    return offset;
}

std::size_t pretokenizer::end_of_piece() const noexcept {
    constexpr std::array<std::string_view, 7> contractions = {
        "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (const std::string_view contraction : contractions) {
        if (text_.substr(offset_).starts_with(contraction)) {
            return offset_ + contraction.size();
        }
    }
    // A plain space belongs to the letters, numbers or signs after it.
    const std::size_t start = text_[offset_] == ' ' ? offset_ + 1 : offset_;
    const kind what = at(start).what;
    return what == kind::space || what == kind::end ? end_of_spaces() : skip(what, start);
}

std::size_t pretokenizer::end_of_spaces() const noexcept {
    std::size_t last = offset_;
    std::size_t end = offset_;
    for (symbol found = at(end); found.what == kind::space; found = at(end)) {
        last = end;
        end += found.length;
    }
    // \s+(?!\S): of several spaces before something else, the last one is left to it.
    return end < text_.size() && last > offset_ ? last : end;
}

std::string_view pretokenizer::next() noexcept {
    if (offset_ >= text_.size()) {
        return {};
    }
    const std::size_t end = end_of_piece();
    const std::string_view piece = text_.substr(offset_, end - offset_);
    offset_ = end;
    return piece;
}

} // namespace lab
