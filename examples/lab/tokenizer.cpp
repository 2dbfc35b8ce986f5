// SPDX-License-Identifier: Apache-2.0
#include "tokenizer.hpp"

#include "byte_alphabet.hpp"
#include "error.hpp"
#include "pretokenizer.hpp"
#include "utf8.hpp"

#include <algorithm>
#include <limits>
#include <unordered_map>

namespace lab {
namespace {

constexpr int no_token = -1;
constexpr std::int64_t control_type = 3;
constexpr std::int64_t user_defined_type = 4;

using vocabulary = std::unordered_map<std::string_view, int>;

vocabulary index_of(std::span<const std::string_view> entries, const std::string& file) {
    if (entries.empty() ||
        entries.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
        fail("model ",
             file,
             ": vocabulary has ",
             entries.size(),
             " tokens; allowed: 1 to 2147483647");
    }
    vocabulary index;
    for (const std::string_view entry : entries) {
        if (!index.emplace(entry, static_cast<int>(index.size())).second) {
            fail("model ", file, ": token ", in_quotes(entry), " occurs twice in the vocabulary");
        }
    }
    return index;
}

byte_pairs read_merges(const gguf_file& file, const vocabulary& index) {
    byte_pairs pairs;
    const auto id_of = [&](std::string_view merge, std::string_view entry) {
        const auto found = index.find(entry);
        if (found == index.end()) {
            fail("model ",
                 file.name(),
                 ": merge ",
                 in_quotes(merge),
                 " needs token ",
                 in_quotes(entry),
                 ", which is not in the vocabulary");
        }
        return found->second;
    };
    for (const std::string_view merge : file.get_strings("tokenizer.ggml.merges")) {
        const std::size_t space = merge.find(' ');
        if (space == std::string_view::npos ||
            merge.find(' ', space + 1) != std::string_view::npos) {
            fail("model ",
                 file.name(),
                 ": merge ",
                 in_quotes(merge),
                 " must be two tokens and one space");
        }
        const std::string_view left = merge.substr(0, space);
        const std::string_view right = merge.substr(space + 1);
        const int left_id = id_of(merge, left);
        const int right_id = id_of(merge, right);
        pairs.add(left_id, right_id, id_of(merge, std::string(left) + std::string(right)));
    }
    return pairs;
}

std::optional<int>
read_id(const gguf_file& file, std::string_view key, std::size_t vocabulary_size) {
    const auto id = file.find_uint(key);
    if (!id) {
        return std::nullopt;
    }
    if (*id >= vocabulary_size) {
        fail("model ",
             file.name(),
             ": metadata key ",
             in_quotes(key),
             " is ",
             *id,
             "; allowed: 0 to ",
             vocabulary_size - 1);
    }
    return static_cast<int>(*id);
}

void require_string(const gguf_file& file, std::string_view key, std::string_view needed) {
    const std::string_view value = file.get_string(key);
    if (value != needed) {
        fail("model ",
             file.name(),
             ": metadata key ",
             in_quotes(key),
             " is ",
             in_quotes(value),
             "; supported: ",
             in_quotes(needed));
    }
}

} // namespace

tokenizer::tokenizer(const gguf_file& file) {
    require_string(file, "tokenizer.ggml.model", "gpt2");
    require_string(file, "tokenizer.ggml.pre", "smollm");
    const auto entries = file.get_strings("tokenizer.ggml.tokens");
    const vocabulary index = index_of(entries, file.name());
    const auto types = file.get_integers("tokenizer.ggml.token_type");
    if (types.size() != entries.size()) {
        fail("model ",
             file.name(),
             ": there are ",
             types.size(),
             " token types for ",
             entries.size(),
             " tokens; one each is needed");
    }
    pairs_ = read_merges(file, index);
    for (std::size_t byte = 0; byte < byte_tokens_.size(); ++byte) {
        const auto found = index.find(stand_in_of(static_cast<unsigned char>(byte)));
        byte_tokens_[byte] = found == index.end() ? no_token : found->second;
    }
    bytes_.reserve(entries.size());
    for (std::size_t id = 0; id < entries.size(); ++id) {
        const bool special = types[id] == control_type || types[id] == user_defined_type;
        bytes_.push_back(special ? std::string(entries[id]) : bytes_of(entries[id]));
        if (special && !entries[id].empty()) {
            specials_[static_cast<unsigned char>(entries[id].front())].push_back(
                static_cast<int>(id));
        }
    }
    for (auto& group : specials_) {
        std::ranges::stable_sort(
            group, std::ranges::greater{}, [this](int id) { return token_bytes(id).size(); });
    }
    begin_token_ = read_id(file, "tokenizer.ggml.bos_token_id", entries.size());
    end_token_ = read_id(file, "tokenizer.ggml.eos_token_id", entries.size());
}

std::optional<int> tokenizer::special_at(std::string_view text) const noexcept {
    for (const int id : specials_[static_cast<unsigned char>(text.front())]) {
        if (text.starts_with(bytes_[static_cast<std::size_t>(id)])) {
            return id;
        }
    }
    return std::nullopt;
}

void tokenizer::encode_plain(std::string_view text,
                             std::size_t max_tokens,
                             std::vector<int>& ids) const {
    pretokenizer pieces(text);
    std::vector<int> tokens;
    for (std::string_view piece = pieces.next(); !piece.empty(); piece = pieces.next()) {
        if (ids.size() >= max_tokens) {
            return;
        }
        tokens.clear();
        for (const char letter : piece) {
            const int token = byte_tokens_[static_cast<unsigned char>(letter)];
            if (token != no_token) {
                tokens.push_back(token);
            }
        }
        pairs_.merge(tokens);
        ids.insert(ids.end(), tokens.begin(), tokens.end());
    }
}

std::vector<int> tokenizer::encode(std::string_view text, std::size_t max_tokens) const {
    const std::size_t invalid = find_invalid_utf8(text);
    if (invalid != std::string_view::npos) {
        fail("text is not UTF-8 at byte ",
             invalid,
             " (value ",
             static_cast<int>(static_cast<unsigned char>(text[invalid])),
             "); valid UTF-8 is needed");
    }
    std::vector<int> ids;
    std::size_t plain = 0; // start of what has not been encoded yet
    for (std::size_t offset = 0; offset < text.size() && ids.size() < max_tokens;) {
        const auto special = special_at(text.substr(offset));
        if (!special) {
            ++offset;
            continue;
        }
        encode_plain(text.substr(plain, offset - plain), max_tokens, ids);
        ids.push_back(*special);
        offset += token_bytes(*special).size();
        plain = offset;
    }
    encode_plain(text.substr((std::min)(plain, text.size())), max_tokens, ids);
    ids.resize((std::min)(ids.size(), max_tokens));
    return ids;
}

std::string_view tokenizer::token_bytes(int id) const {
    if (id < 0 || static_cast<std::size_t>(id) >= bytes_.size()) {
        fail("token id is ", id, "; allowed: 0 to ", bytes_.size() - 1);
    }
    return bytes_[static_cast<std::size_t>(id)];
}

std::string tokenizer::decode(std::span<const int> ids) const {
    std::string text;
    for (const int id : ids) {
        text += token_bytes(id);
    }
    return text;
}

} // namespace lab
