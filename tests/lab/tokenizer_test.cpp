// SPDX-License-Identifier: Apache-2.0
#include "byte_alphabet.hpp"
#include "byte_pairs.hpp"
#include "error.hpp"
#include "gguf_builder.hpp"
#include "model_path.hpp"
#include "pretokenizer.hpp"
#include "tokenizer.hpp"
#include "utf8.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace {

using lab_test::gguf_builder;
using lab_test::temporary_file;

std::vector<std::string> pieces_of(std::string_view text) {
    lab::pretokenizer pretokenizer(text);
    std::vector<std::string> pieces;
    for (auto piece = pretokenizer.next(); !piece.empty(); piece = pretokenizer.next()) {
        pieces.emplace_back(piece);
    }
    return pieces;
}

using list = std::vector<std::string>;

TEST(Pretokenizer, FollowsTheGpt2Pattern) {
    EXPECT_EQ(pieces_of(""), list());
    EXPECT_EQ(pieces_of("Hello world"), (list{"Hello", " world"}));
    EXPECT_EQ(pieces_of("x = y+1;"), (list{"x", " =", " y", "+", "1", ";"}));
    EXPECT_EQ(pieces_of("we've DON'T 'single'"),
              (list{"we", "'ve", " DON", "'", "T", " '", "single", "'"}));
    EXPECT_EQ(pieces_of("'s't're've'm'll'd'x"),
              (list{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'", "x"}));
    EXPECT_EQ(pieces_of("!'s"), (list{"!'", "s"}));
    EXPECT_EQ(pieces_of("a  b"), (list{"a", " ", " b"}));
    EXPECT_EQ(pieces_of("a\n\n b"), (list{"a", "\n\n", " b"}));
    EXPECT_EQ(pieces_of("a \nb"), (list{"a", " ", "\n", "b"}));
    EXPECT_EQ(pieces_of("a\tb"), (list{"a", "\t", "b"}));
    EXPECT_EQ(pieces_of("a   "), (list{"a", "   "}));
    EXPECT_EQ(pieces_of(" "), (list{" "}));
    EXPECT_EQ(pieces_of("  42"), (list{" ", " 42"}));
}

TEST(Pretokenizer, KnowsUnicodeClasses) {
    EXPECT_EQ(pieces_of("naïve日本\u00BD\u2167!"), (list{"naïve日本", "\u00BD\u2167", "!"}));
    EXPECT_EQ(pieces_of("a\u00A0\u2003b"), (list{"a", "\u00A0", "\u2003", "b"}));
    EXPECT_EQ(pieces_of("e\u0301x"), (list{"e", "\u0301", "x"})); // a combining mark is no letter
    EXPECT_EQ(pieces_of("\U0001F642\u200D"), (list{"\U0001F642\u200D"}));
}

TEST(Utf8, AcceptsExactlyTheCharacters) {
    using namespace std::string_view_literals;
    constexpr auto npos = std::string_view::npos;
    EXPECT_EQ(lab::find_invalid_utf8(
                  "\x00\x7F\u0080\u07FF\u0800\uD7FF\uE000\uFFFF\U00010000\U0010FFFF"sv),
              npos);
    for (const std::string_view wrong : {"\x80"sv,
                                         "\xC0\x80"sv,
                                         "\xC1\xBF"sv,
                                         "\xC2"sv,
                                         "\xC2z"sv,
                                         "\xE0\x9F\xBF"sv,
                                         "\xED\xA0\x80"sv,
                                         "\xE1\x80"sv,
                                         "\xF0\x8F\xBF\xBF"sv,
                                         "\xF4\x90\x80\x80"sv,
                                         "\xF5\x80\x80\x80"sv,
                                         "\xFF"sv,
                                         "\xF0\x90\x80z"sv}) {
        EXPECT_EQ(lab::find_invalid_utf8("ab" + std::string(wrong)), 2U);
    }
}

TEST(ByteAlphabet, GivesEveryByteAPrintableStandIn) {
    EXPECT_EQ(lab::stand_in_of('A'), "A");
    EXPECT_EQ(lab::stand_in_of(' '), "\u0120");
    EXPECT_EQ(lab::stand_in_of('\n'), "\u010A");
    EXPECT_EQ(lab::stand_in_of(0xE9), "\u00E9");
    EXPECT_EQ(lab::stand_in_of(0xAD), "\u0143"); // the last of those that do not print
    std::string all;
    std::string bytes;
    for (int byte = 0; byte < 256; ++byte) {
        all += lab::stand_in_of(static_cast<unsigned char>(byte));
        bytes += static_cast<char>(byte);
    }
    EXPECT_EQ(lab::bytes_of(all), bytes);
    EXPECT_EQ(lab::bytes_of("\u4E2D x"), "\u4E2D x"); // not written in stand-ins
}

std::vector<int> merged(const lab::byte_pairs& pairs, std::vector<int> tokens) {
    pairs.merge(tokens);
    return tokens;
}

TEST(BytePairs, MergesTheEarliestRuleThenTheLeftmostPair) {
    lab::byte_pairs pairs;
    pairs.add(2, 3, 10);  // bc
    pairs.add(1, 2, 11);  // ab
    pairs.add(1, 1, 12);  // aa
    pairs.add(12, 1, 13); // aaa
    pairs.add(2, 3, 99);  // a second time: ignored
    EXPECT_EQ(merged(pairs, {}), (std::vector<int>{}));
    EXPECT_EQ(merged(pairs, {1}), (std::vector<int>{1}));
    EXPECT_EQ(merged(pairs, {1, 2, 3}), (std::vector<int>{1, 10}));
    EXPECT_EQ(merged(pairs, {1, 2, 2, 3}), (std::vector<int>{11, 10}));
    EXPECT_EQ(merged(pairs, {1, 1, 1}), (std::vector<int>{13}));
    EXPECT_EQ(merged(pairs, {1, 1, 1, 1, 1}), (std::vector<int>{12, 13}));
    EXPECT_EQ(merged(pairs, {3, 2, 1}), (std::vector<int>{3, 2, 1}));
}

/// Letters a to d, a space, two merges and two special tokens; every other byte has no token.
gguf_builder small_vocabulary(const std::string& model = "gpt2",
                              const std::string& pre = "smollm") {
    gguf_builder builder;
    builder.string("tokenizer.ggml.model", model).string("tokenizer.ggml.pre", pre);
    builder.u32("tokenizer.ggml.bos_token_id", 7).u32("tokenizer.ggml.eos_token_id", 8);
    return builder;
}

const std::vector<std::string> tokens = {
    "a", "b", "c", "d", "\u0120", "ab", "\u0120ab", "<x>", "<x>y"};
const std::vector<std::int32_t> types = {1, 1, 1, 1, 1, 1, 1, 3, 4};
const std::vector<std::string> merges = {"a b", "\u0120 ab"};

std::string complaint_about(const gguf_builder& builder) {
    const temporary_file file(builder.bytes(), "t.gguf");
    try {
        const lab::tokenizer tokenizer{lab::gguf_file{file.path()}};
        return "";
    } catch (const lab::input_error& error) {
        return error.what();
    }
}

lab::tokenizer small_tokenizer() {
    gguf_builder builder = small_vocabulary();
    builder.strings("tokenizer.ggml.tokens", tokens).numbers("tokenizer.ggml.token_type", 5, types);
    builder.strings("tokenizer.ggml.merges", merges);
    const temporary_file file(builder.bytes());
    return lab::tokenizer(lab::gguf_file(file.path()));
}

TEST(Tokenizer, SplitsOffTheLongestSpecialToken) {
    const lab::tokenizer tokenizer = small_tokenizer();
    EXPECT_EQ(tokenizer.size(), 9U);
    EXPECT_EQ(tokenizer.begin_token(), 7);
    EXPECT_EQ(tokenizer.end_token(), 8);
    EXPECT_EQ(tokenizer.encode("ab ab<x>c<x>y<x"), (std::vector<int>{5, 6, 7, 2, 8}));
    EXPECT_EQ(tokenizer.decode(std::vector<int>{5, 6, 7, 2, 8}), "ab ab<x>c<x>y");
    EXPECT_EQ(tokenizer.token_bytes(4), " ");
    const lab::tokenizer copy =
        tokenizer; // NOLINT(performance-unnecessary-copy-initialization): what is tested
    EXPECT_EQ(copy.encode("<x>"), std::vector<int>{7});
}

TEST(Tokenizer, StopsEarlyWithABeginningOfTheWhole) {
    const lab::tokenizer tokenizer = small_tokenizer();
    const std::string text = "ab ab cd<x>ab  d<x>y<x>a";
    const std::vector<int> all = tokenizer.encode(text);
    for (std::size_t count = 0; count <= all.size() + 1; ++count) {
        const auto expected = std::vector<int>(
            all.begin(), all.begin() + static_cast<std::ptrdiff_t>((std::min)(count, all.size())));
        EXPECT_EQ(tokenizer.encode(text, count), expected);
    }
}

TEST(Tokenizer, NamesTheByteThatIsNotUtf8) {
    const lab::tokenizer tokenizer = small_tokenizer();
    try {
        static_cast<void>(tokenizer.encode("ab\xC3"));
        ADD_FAILURE();
    } catch (const lab::input_error& error) {
        EXPECT_STREQ(error.what(),
                     "text is not UTF-8 at byte 2 (value 195); valid UTF-8 is needed");
    }
    EXPECT_THROW(static_cast<void>(tokenizer.encode("ab\xC3", 1)),
                 lab::input_error); // also behind the stop
    EXPECT_THROW(static_cast<void>(tokenizer.token_bytes(9)), lab::input_error);
    EXPECT_THROW(static_cast<void>(tokenizer.decode(std::vector<int>{0, -1})), lab::input_error);
}

TEST(Tokenizer, RefusesOtherKindsAndBrokenVocabularies) {
    const auto with = [](const std::vector<std::string>& words,
                         const std::vector<std::int32_t>& kinds,
                         const std::vector<std::string>& pairs) {
        gguf_builder builder = small_vocabulary();
        builder.strings("tokenizer.ggml.tokens", words)
            .numbers("tokenizer.ggml.token_type", 5, kinds);
        return complaint_about(builder.strings("tokenizer.ggml.merges", pairs));
    };
    EXPECT_EQ(with(tokens, types, merges), "");
    EXPECT_EQ(
        complaint_about(small_vocabulary("llama")),
        "model t.gguf: metadata key \"tokenizer.ggml.model\" is \"llama\"; supported: \"gpt2\"");
    EXPECT_EQ(complaint_about(small_vocabulary("gpt2", "llama-bpe")),
              "model t.gguf: metadata key \"tokenizer.ggml.pre\" is \"llama-bpe\"; supported: "
              "\"smollm\"");
    EXPECT_EQ(complaint_about(small_vocabulary()),
              "model t.gguf: metadata key \"tokenizer.ggml.tokens\" is missing; it is required");
    EXPECT_EQ(complaint_about(gguf_builder()),
              "model t.gguf: metadata key \"tokenizer.ggml.model\" is missing; it is required");
    EXPECT_EQ(with({}, {}, {}), "model t.gguf: vocabulary has 0 tokens; allowed: 1 to 2147483647");
    EXPECT_EQ(with({"a", "a"}, {1, 1}, {}),
              "model t.gguf: token \"a\" occurs twice in the vocabulary");
    EXPECT_EQ(with({"a", "b"}, {1}, {}),
              "model t.gguf: there are 1 token types for 2 tokens; one each is needed");
    EXPECT_EQ(with(tokens, types, {"a z"}),
              "model t.gguf: merge \"a z\" needs token \"z\", which is not in the vocabulary");
    EXPECT_EQ(with(tokens, types, {"a c"}),
              "model t.gguf: merge \"a c\" needs token \"ac\", which is not in the vocabulary");
    EXPECT_EQ(with(tokens, types, {"ab"}),
              "model t.gguf: merge \"ab\" must be two tokens and one space");
    EXPECT_EQ(with(tokens, types, {"a b c"}),
              "model t.gguf: merge \"a b c\" must be two tokens and one space");
    EXPECT_EQ(with({"a"}, {1}, {}),
              "model t.gguf: metadata key \"tokenizer.ggml.bos_token_id\" is 7; allowed: 0 to 0");
}

TEST(ModelTokenizer, ReproducesEveryRecordedId) {
    const lab::tokenizer tokenizer{lab::gguf_file{lab_test::require_model()}};
    const auto recorded = lab_test::known_answer("smollm2_tokens.json");
    ASSERT_EQ(recorded.at("cases").size(), 30U);
    for (const auto& item : recorded.at("cases")) {
        const auto text = item.at("text").get<std::string>();
        const auto ids = item.at("ids").get<std::vector<int>>();
        EXPECT_EQ(tokenizer.encode(text), ids) << text;
        EXPECT_EQ(tokenizer.decode(ids), text);
    }
    EXPECT_EQ(tokenizer.begin_token(), 1);
    EXPECT_EQ(tokenizer.end_token(), 2);
    EXPECT_EQ(tokenizer.size(), 49152U);
    for (int id = 0; id < 49152; ++id) { // every token stands for something
        EXPECT_FALSE(tokenizer.token_bytes(id).empty());
    }
}

TEST(ModelTokenizer, ReadsHostileTextsInReasonableTime) {
    const lab::tokenizer tokenizer{lab::gguf_file{lab_test::require_model()}};
    const std::size_t size = std::size_t{1} << 20U;
    for (const char letter :
         {'a', ' ', '\n', '0', '\'', '<', '-', '\x04'}) { // the last one has no token
        const std::string text(size, letter);
        const auto ids = tokenizer.encode(text);
        EXPECT_EQ(tokenizer.decode(ids), letter == '\x04' ? "" : text);
    }
    std::string many;
    while (many.size() < size) {
        many += "<|im_start|><|im_star<";
    }
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(many)), many);
}

} // namespace
