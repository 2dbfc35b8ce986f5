// SPDX-License-Identifier: Apache-2.0
/// @file
/// The form of recipes as text: `kvcrush(h2o(last=256),anchor=alternate,share=0.25)+codec(k=q8_0,v=q4_0)`.
#pragma once

#include <kvcrush/core/error.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// A name with arguments. `window=8` is a named argument whose expression is the bare name `8`.
struct expression {
    std::string name;
    /// What stands before the = of a named argument.
    std::string key;
    std::vector<expression> positional;
    std::vector<expression> named;
    /// As it was written.
    std::string text;
};

/// Text from outside for a message: unprintable bytes become \xNN and long text is cut, so that a hostile name can neither
/// break the line nor flood the terminal.
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

/// Recursive descent over
///
///     recipe   = call { '+' call }
///     call     = name [ '(' [ argument { ',' argument } ] ')' ]
///     argument = [ key '=' ] call
class expression_parser {
public:
    /// Longer text is no recipe.
    static constexpr std::size_t longest_text = 16384;
    static constexpr int deepest_nesting = 16;

    explicit expression_parser(std::string_view text) : text_(text) {
        require(text.size() <= longest_text,
                "policy ",
                in_quotes(text),
                ": the text has ",
                text.size(),
                " characters; at most ",
                longest_text,
                " are allowed");
    }

    /// The calls between the + outside parentheses.
    /// @throws std::invalid_argument naming the place where the text stops making sense
    [[nodiscard]] std::vector<expression> whole() {
        std::vector<expression> calls;
        do {
            calls.push_back(call(0));
        } while (take('+'));
        skip_spaces();
        if (place_ < text_.size()) {
            fail_here("the end");
        }
        return calls;
    }

private:
    [[nodiscard]] expression call(int depth) {
        if (depth > deepest_nesting) {
            fail_here("at most " + std::to_string(deepest_nesting) +
                      " parentheses inside each other");
        }
        skip_spaces();
        const std::size_t begin = place_;
        expression result;
        result.name = word(depth);
        if (take('(') && !take(')')) {
            do {
                argument(result, depth + 1);
            } while (take(','));
            if (!take(')')) {
                fail_here("',' or ')'");
            }
        }
        const std::string_view own = text_.substr(begin, place_ - begin);
        result.text = std::string(own.substr(0, own.find_last_not_of(' ') + 1));
        return result;
    }

    void argument(expression& owner, int depth) {
        const std::size_t before = place_;
        std::string key = word(depth);
        if (!take('=')) {
            place_ = before;
            owner.positional.push_back(call(depth));
            return;
        }
        for (const expression& given : owner.named) {
            require(given.key != key,
                    "policy ",
                    in_quotes(owner.name),
                    ": ",
                    in_quotes(key),
                    " is given twice");
        }
        owner.named.push_back(call(depth));
        owner.named.back().key = std::move(key);
    }

    [[nodiscard]] std::string word(int depth) {
        skip_spaces();
        const std::size_t begin = place_;
        while (place_ < text_.size() && is_word(text_[place_], depth)) {
            ++place_;
        }
        if (place_ == begin) {
            fail_here("a name or a value");
        }
        return std::string(text_.substr(begin, place_ - begin));
    }

    /// Numbers, whose exponents have signs, stand inside parentheses alone; outside, + joins calls.
    [[nodiscard]] static bool is_word(char c, int depth) noexcept {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               c == '_' || c == '.' || c == '-' || (c == '+' && depth > 0);
    }

    [[nodiscard]] bool take(char c) noexcept {
        skip_spaces();
        const bool found = place_ < text_.size() && text_[place_] == c;
        place_ += found ? 1U : 0U;
        return found;
    }

    void skip_spaces() noexcept {
        while (place_ < text_.size() && text_[place_] == ' ') {
            ++place_;
        }
    }

    [[noreturn]] void fail_here(std::string_view expected) const {
        fail({"policy ",
             in_quotes(text_),
             ": at character ",
             place_ + 1,
             " there is ",
             place_ < text_.size() ? in_quotes(text_.substr(place_, 1)) : "nothing more",
             "; expected ",
             expected});
    }

    std::string_view text_;
    std::size_t place_ = 0;
};

/// Splits at the commas that stand outside parentheses.
/// @throws std::invalid_argument if a part is empty
[[nodiscard]] inline std::vector<std::string> split_list(std::string_view text) {
    std::vector<std::string> parts(1);
    int depth = 0;
    for (const char c : text) {
        depth += c == '(' ? 1 : c == ')' ? -1 : 0;
        if (c == ',' && depth == 0) {
            parts.emplace_back();
        } else {
            parts.back() += c;
        }
    }
    for (const std::string& part : parts) {
        require(part.find_first_not_of(' ') != std::string::npos,
                "list ",
                in_quotes(text),
                ": an entry between commas is empty");
    }
    return parts;
}

/// Each name with what stands behind it, at the end of a list.
template <typename Names>
void append_names(std::vector<std::string>& list,
                  const Names& names,
                  std::string_view behind = "") {
    for (const auto& name : names) {
        list.push_back(std::string(name).append(behind));
    }
}

/// "a, b, c"
template <typename Names>
[[nodiscard]] std::string join(const Names& names, std::string_view between) {
    std::string result;
    for (const auto& name : names) {
        result.append(result.empty() ? std::string_view{} : between).append(name);
    }
    return result;
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
