// SPDX-License-Identifier: Apache-2.0
#include "expression.hpp"

#include "error.hpp"

#include <fmt/format.h>

#include <cctype>
#include <cstddef>
#include <utility>

namespace lab {
namespace {

constexpr int deepest_nesting = 16;

/// Recursive descent over: name [ '(' argument { ',' argument } ')' ], argument = [ key '=' ] expression.
class expression_parser {
public:
    explicit expression_parser(std::string_view text) : text_(text) {}

    expression whole() {
        expression result = parse(0);
        skip_spaces();
        if (place_ < text_.size()) {
            fail("the end");
        }
        return result;
    }

private:
    expression parse(int depth) {
        if (depth > deepest_nesting) {
            fail(fmt::format("at most {} parentheses inside each other", deepest_nesting));
        }
        skip_spaces();
        const std::size_t begin = place_;
        expression result;
        result.name = word();
        if (take('(')) {
            skip_spaces();
            if (!take(')')) {
                do {
                    argument(result, depth);
                } while (take(','));
                if (!take(')')) {
                    fail("',' or ')'");
                }
            }
        }
        const std::string_view own = text_.substr(begin, place_ - begin);
        result.text = std::string(own.substr(0, own.find_last_not_of(' ') + 1));
        return result;
    }

    void argument(expression& owner, int depth) {
        const std::size_t before = place_;
        std::string key = word();
        if (take('=')) {
            for (const expression& given : owner.named) {
                if (given.key == key) {
                    lab::fail("policy ", owner.name, ": ", key, " is given twice");
                }
            }
            owner.named.push_back(parse(depth + 1));
            owner.named.back().key = std::move(key);
        } else {
            place_ = before;
            owner.positional.push_back(parse(depth + 1));
        }
    }

    std::string word() {
        skip_spaces();
        const std::size_t begin = place_;
        while (place_ < text_.size() && is_word(text_[place_])) {
            ++place_;
        }
        if (place_ == begin) {
            fail("a name or a value");
        }
        return std::string(text_.substr(begin, place_ - begin));
    }

    static bool is_word(char c) {
        return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' ||
               c == '-' || c == '+';
    }

    bool take(char c) {
        skip_spaces();
        if (place_ < text_.size() && text_[place_] == c) {
            ++place_;
            return true;
        }
        return false;
    }

    void skip_spaces() {
        while (place_ < text_.size() && text_[place_] == ' ') {
            ++place_;
        }
    }

    [[noreturn]] void fail(std::string_view expected) const {
        lab::fail("policy ",
                  in_quotes(text_),
                  ": at character ",
                  place_ + 1,
                  " there is ",
                  place_ < text_.size() ? in_quotes(text_.substr(place_, 1)) : "nothing more",
                  "; expected ",
                  expected);
    }

    std::string_view text_;
    std::size_t place_ = 0;
};

} // namespace

expression parse_expression(std::string_view text) { return expression_parser(text).whole(); }

std::vector<std::string> split_list(std::string_view text) {
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
        if (part.find_first_not_of(' ') == std::string::npos) {
            fail("list ", in_quotes(text), ": an entry between commas is empty");
        }
    }
    return parts;
}

} // namespace lab
