// SPDX-License-Identifier: Apache-2.0
/// @file
/// Text to token ids and back.
#pragma once

#include "byte_pairs.hpp"
#include "gguf.hpp"

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lab {

/// The byte-level BPE tokenizer inside a model file: model "gpt2" with the pre-tokenizer "smollm".
class tokenizer {
public:
    static constexpr std::size_t npos = static_cast<std::size_t>(-1);

    /// @throws input_error if metadata is missing, inconsistent, or describes another kind of tokenizer
    explicit tokenizer(const gguf_file& file);

    /// Special tokens written out in the text (<|im_start|>) become their ids; none is put in front.
    /// A byte that has no token of its own (some control characters) is left out, as in the reference tokenizer.
    /// @param[in] max_tokens  stops once there are so many: the result is the beginning of the full one
    /// @throws input_error naming the offset of the first byte that is not UTF-8
    /// @note  O(n log n)
    [[nodiscard]] std::vector<int> encode(std::string_view text,
                                          std::size_t max_tokens = npos) const;

    /// The bytes of all ids. Single tokens may end inside a character, so the result need not be valid UTF-8.
    /// @throws input_error for an id outside the vocabulary
    [[nodiscard]] std::string decode(std::span<const int> ids) const;
    [[nodiscard]] std::string_view token_bytes(int id) const;

    [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
    [[nodiscard]] std::optional<int> end_token() const noexcept { return end_token_; }
    [[nodiscard]] std::optional<int> begin_token() const noexcept { return begin_token_; }

private:
    void encode_plain(std::string_view text, std::size_t max_tokens, std::vector<int>& ids) const;
    [[nodiscard]] std::optional<int> special_at(std::string_view text) const noexcept;

    std::vector<std::string> bytes_; ///< what each id stands for
    std::array<int, 256> byte_tokens_{};
    byte_pairs pairs_;
    std::array<std::vector<int>, 256> specials_; ///< by first byte, longest first
    std::optional<int> begin_token_;
    std::optional<int> end_token_;
};

} // namespace lab
