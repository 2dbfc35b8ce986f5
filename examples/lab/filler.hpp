// SPDX-License-Identifier: Apache-2.0
/// @file
/// The hay that needles are hidden in.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace lab {

/// Sentences without end: after the last one the first comes again.
struct filler {
    std::vector<std::string> sentences;
    /// Sentences that a needle does not part: the five of the classic filler.
    std::size_t unit = 1;

    [[nodiscard]] const std::string& sentence(std::size_t number) const {
        return sentences[number % sentences.size()];
    }
};

/// "The grass is green. The sky is blue. ..." of the passkey papers.
/// @see arXiv:2305.16300
[[nodiscard]] filler classic_filler();

/// The sentences of a text, white space folded; those beyond 40 words are cut.
/// @throws input_error for a text without a word, or where it is not UTF-8
[[nodiscard]] filler filler_of(std::string_view text);

} // namespace lab
