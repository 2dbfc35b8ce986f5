// SPDX-License-Identifier: Apache-2.0
#include "filler.hpp"

#include "error.hpp"
#include "utf8.hpp"

#include <utility>

namespace lab {
namespace {

/// Verses and lists without full stops must not become one sentence that fills the context [words].
constexpr std::size_t longest_sentence = 40;
constexpr std::string_view white_space = " \t\r\n\f\v";

[[nodiscard]] bool ends_sentence(std::string_view word) {
    const std::size_t last = word.find_last_not_of("\"')]");
    return last != std::string_view::npos && std::string_view(".!?").find(word[last]) < 3;
}

/// Text that spells a special token would become it.
[[nodiscard]] bool looks_special(std::string_view word) {
    return word.find("<|") != std::string_view::npos;
}

} // namespace

filler classic_filler() {
    return {{"The grass is green.",
             "The sky is blue.",
             "The sun is yellow.",
             "Here we go.",
             "There and back again."},
            5};
}

filler filler_of(std::string_view text) {
    if (const std::size_t offset = find_invalid_utf8(text); offset != std::string_view::npos) {
        fail("text is not UTF-8 at byte ", offset);
    }
    filler result;
    std::string sentence;
    std::size_t words = 0;
    const auto finish = [&] {
        if (!sentence.empty()) {
            result.sentences.push_back(std::exchange(sentence, {}));
            words = 0;
        }
    };
    for (std::size_t at = text.find_first_not_of(white_space); at != std::string_view::npos;) {
        const std::size_t end = text.find_first_of(white_space, at);
        const std::string_view word = text.substr(at, end - at);
        at = end == std::string_view::npos ? end : text.find_first_not_of(white_space, end);
        if (looks_special(word)) {
            continue;
        }
        sentence += sentence.empty() ? "" : " ";
        sentence += word;
        if (++words == longest_sentence || ends_sentence(word)) {
            finish();
        }
    }
    finish();
    if (result.sentences.empty()) {
        fail("text holds no words");
    }
    return result;
}

} // namespace lab
