// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>

#include "unit/text/recipe_text.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace kvcrush {
namespace {

using testing::HasSubstr;
using namespace std::literals;

/// A recipe whose text is stable, or a message of one printable line that does not flood the terminal.
void expect_recipe_or_message(const std::string& text) {
    try {
        const std::string once = canonical(text);
        EXPECT_EQ(canonical(once), once) << text;
    } catch (const std::invalid_argument& error) {
        const std::string_view message = error.what();
        EXPECT_LT(message.size(), 2000U);
        for (const char letter : message) {
            ASSERT_TRUE(letter >= ' ' && letter <= '~') << message;
        }
    }
}

TEST(HostileText, NothingButPrintableAsciiIsEchoed) {
    EXPECT_THAT(message_of("snapkv\0(window=8)"s),
                HasSubstr("there is \"\\x00\"; expected the end"));
    EXPECT_THAT(message_of("sn\xC3\xA4pkv"), HasSubstr("there is \"\\xc3\""));
    EXPECT_THAT(message_of("snapkv(window=8\n)"), HasSubstr("there is \"\\x0a\""));
    EXPECT_THAT(message_of("snapkv(window=\x1B[31m8)"), HasSubstr("\\x1b"));
    EXPECT_THAT(message_of("\xEF\xBB\xBFsnapkv"), HasSubstr("at character 1"));
    EXPECT_THAT(message_of("snapkv\t"), HasSubstr("\\x09"));
}

TEST(HostileText, LongAndDeepTextIsRefused) {
    EXPECT_THAT(message_of(std::string(1U << 20U, 'a')),
                HasSubstr("the text has 1048576 characters; at most 16384 are allowed"));
    for (const std::string_view piece :
         {"a", "a(", "snapkv(", "ada_kv(", "a=", "a,", "(", "+", "-"}) {
        for (const std::size_t times : {100U, 4000U}) {
            std::string text;
            while (text.size() < times) {
                text += piece;
            }
            EXPECT_LT(message_of(text).size(), 2000U) << piece;
            expect_recipe_or_message(text);
        }
    }
    std::string many = "snapkv(";
    for (int i = 0; i < 2000; ++i) {
        many += 'a' + std::to_string(i) + "=1,";
    }
    EXPECT_THAT(message_of(many + "window=1)"), HasSubstr("there is no parameter \"a0\""));
    const std::string name(5000, 'x');
    for (const std::string& text : {name,
                                    name + "(a=1,a=2)",
                                    "snapkv(" + name + "=1)",
                                    "snapkv(window=" + name + ")",
                                    "snapkv(" + name + ")",
                                    "ada_kv(" + name + ")",
                                    "snapkv+" + name,
                                    "snapkv+codec(k=" + name + ",v=q4_0)",
                                    "snapkv+codec(" + name + "=q4_0(a=1))",
                                    "kvcrush(snapkv,pick=" + name + ")",
                                    "snapkv(" + name + "=1," + name + "=2)"}) {
        EXPECT_LT(message_of(text).size(), 2000U) << text.substr(0, 40);
        EXPECT_NE(message_of(text), "nothing was thrown") << text.substr(0, 40);
    }
}

TEST(HostileText, NumbersOutOfRangeAreNoNumbers) {
    for (const char* value :
         {"1e999", "-1e999", "1e", "0x10", "1.5.2", "--1", "+1", "1+1", "nan(1)"}) {
        EXPECT_NE(message_of("kvcrush(snapkv,share=" + std::string(value) + ")"),
                  "nothing was thrown")
            << value;
    }
    for (const char* value : {"18446744073709551616", "-1", "1.0", "1e3", "0x10", "true", ""}) {
        EXPECT_NE(message_of("snapkv(window=" + std::string(value) + ")"), "nothing was thrown")
            << value;
    }
    EXPECT_EQ(message_of("kvcrush(snapkv,share=2.5e-1)"), "nothing was thrown");
    EXPECT_EQ(message_of("keyformer(temperature=1.5e+0)"), "nothing was thrown");
    EXPECT_EQ(message_of("snapkv(window=18446744073709551615)"), "nothing was thrown")
        << "all queries that there are";
}

TEST(HostileText, MutationsGiveARecipeOrAMessage) {
    const std::vector<std::string> texts{
        "kvcrush(h2o(last=256),anchor=alternate,share=0.25,pick=step)+codec(k=q8_0,v=q4_0)",
        "ada_kv(kvcrush(snapkv,pick=second_score,second=h2o(last=64)),floor=0.5)+keep(ratio=0.25)",
        "pyramid_kv(ada_kv(snapkv(window=8,pool=avg)),beta=10)+keep(mib=512)+when(every=16)",
        "glob+tiered(k=mean_centred(turbo_quant(bits=5)),v=turbo_quant,k2=hadamard(q4_0,signs=1),"
        "v2=kivi_value(bits=2),share=0.46,keep=0.6)",
        "kvcrush(snapkv,signature=page,page=8,anchors=2,seed=3,sinks=2,recent=5)",
        "kvzip(chunk=100,level=head)",
        "four_times(seed=3)",
        "full+codec(k=fp8_e4m3,v=bf16,sinks=f16,window=3,exact=1)"};
    constexpr std::string_view likely = "(),=+. 0123456789ekqvbs_-\0\xFF"sv;
    constexpr std::uint64_t seed = 11;
    for (std::uint64_t round = 0; round < 6000; ++round) {
        std::string text = texts[round % texts.size()];
        std::uint64_t draw = 0;
        const auto number = [&](std::size_t below) {
            return static_cast<std::size_t>(random_bits(seed, round, draw++) % below);
        };
        for (std::size_t change = number(4) + 1; change > 0 && !text.empty(); --change) {
            const std::size_t at = number(text.size());
            const char letter =
                number(4) == 0 ? static_cast<char>(number(256)) : likely[number(likely.size())];
            switch (number(5)) {
            case 0: text[at] = letter; break;
            case 1: text.insert(at, 1, letter); break;
            case 2: text.erase(at, number(8) + 1); break;
            case 3: text.insert(at, text.substr(number(text.size()), number(30))); break;
            default: std::swap(text[at], text[number(text.size())]);
            }
        }
        SCOPED_TRACE("seed " + std::to_string(seed) + ", round " + std::to_string(round));
        expect_recipe_or_message(text);
    }
}

} // namespace
} // namespace kvcrush
