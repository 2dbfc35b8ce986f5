// SPDX-License-Identifier: Apache-2.0
#include "codec_parser.hpp"
#include "policy.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace lab {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string message_of(const std::string& text) {
    try {
        static_cast<void>(parse_policies(text));
    } catch (const std::invalid_argument& error) {
        const std::string message = error.what();
        EXPECT_EQ(message.find('\n'), std::string::npos) << message;
        return message;
    }
    return "nothing was thrown";
}

codec_choice choice_of(const std::string& text) {
    const policy how = parse_policy(text);
    EXPECT_TRUE(how.codec.has_value()) << text;
    return how.codec.value_or(codec_choice{});
}

TEST(CodecParser, EveryNameGivesTheCodecOfThatSize) {
    const std::vector<std::pair<std::string, std::size_t>> known{{"q8_0", 68},
                                                                 {"q4_0", 36},
                                                                 {"q4_1", 40},
                                                                 {"q5_0", 44},
                                                                 {"q5_1", 48},
                                                                 {"iq4_nl", 36},
                                                                 {"f16", 128},
                                                                 {"bf16", 128},
                                                                 {"f32", 256},
                                                                 {"turbo_quant", 34}};
    for (const auto& [name, bytes] : known) { // a row of 64 channels
        const codec_choice choice = choice_of("full+codec(k=" + name + ",v=" + name + ")");
        ASSERT_EQ(choice.tiers.size(), 1U) << name;
        EXPECT_EQ(choice.tiers[0].keys.name(), name);
        EXPECT_EQ(choice.tiers[0].values.name(), name);
        EXPECT_EQ(choice.tiers[0].keys.group_bytes(64), bytes) << name;
        EXPECT_FALSE(choice.tiers[0].keys.centres_keys()) << name;
    }
    const codec_choice row = choice_of("full+codec(k=int8_row,v=int8_row)");
    EXPECT_EQ(row.tiers[0].keys.name(), "int8_row");
}

TEST(CodecParser, CodecsStandInsideEachOther) {
    const codec_choice choice =
        choice_of("snapkv+codec(k=mean_centred(hadamard(q4_0,signs=1,seed=7)),v=hadamard(q5_1))");
    EXPECT_TRUE(choice.tiers[0].keys.centres_keys());
    EXPECT_FALSE(choice.tiers[0].values.centres_keys());
    EXPECT_EQ(choice.tiers[0].keys.group_bytes(64), 36U);
    EXPECT_EQ(choice.tiers[0].values.name(), "hadamard");
    EXPECT_EQ(choice.tiers[0].values.group_bytes(64), 48U);
    EXPECT_TRUE(choice_of("knorm+codec(k=mean_centred(turbo_quant(bits=2)),v=turbo_quant(bits=3))")
                    .tiers[0]
                    .keys.centres_keys());
    EXPECT_TRUE(choice_of("knorm+codec(k=mean_centred(q4_0),v=q4_0)").tiers[0].keys.centres_keys());
}

TEST(CodecParser, ValuesAreSetByNameAndHaveDefaults) {
    const codec_choice plain = choice_of("h2o+codec(k=q4_0,v=q4_1)");
    EXPECT_EQ(plain.sinks.keys.name(), "q8_0");
    EXPECT_EQ(plain.sinks.values.name(), "q8_0");
    EXPECT_EQ(plain.window, 128U);
    EXPECT_EQ(plain.first_share, 1.0);
    EXPECT_FALSE(plain.keep.has_value());

    const codec_choice chosen =
        choice_of("h2o+codec(v=q4_1,sinks=f16,window=8,keep=0.5,k=q4_0)"); // in any order
    EXPECT_EQ(chosen.tiers[0].keys.name(), "q4_0");
    EXPECT_EQ(chosen.tiers[0].values.name(), "q4_1");
    EXPECT_EQ(chosen.sinks.keys.name(), "f16");
    EXPECT_EQ(chosen.sinks.values.name(), "f16");
    EXPECT_EQ(chosen.window, 8U);
    EXPECT_EQ(chosen.keep, 0.5);
    EXPECT_FALSE(choice_of("h2o+codec(k=q4_0,v=q4_1,keep=0)").keep.has_value());

    EXPECT_EQ(parse_policy("full+codec(k=q8_0,v=q8_0)").codec->attention,
              kvcrush::arithmetic::integer);
    EXPECT_EQ(parse_policy("full+codec(k=q8_0,v=q8_0,exact=1)").codec->attention,
              kvcrush::arithmetic::exact);
    const policy own = parse_policy("h2o+codec(k=q4_0,v=q4_0,keep=0.5)");
    EXPECT_EQ(own.ratios({0.1, 0.2}), std::vector<double>{0.5});
    EXPECT_EQ(parse_policy("h2o+codec(k=q4_0,v=q4_0)").ratios({0.1, 0.2}),
              (std::vector<double>{0.1, 0.2}));
}

TEST(CodecParser, TiersAreFromPreciseToCheap) {
    const codec_choice choice =
        choice_of("snapkv(recent=8)+tiered(k=q8_0,v=q5_0,k2=mean_centred(q4_0),v2=q4_1,share=0.3)");
    ASSERT_EQ(choice.tiers.size(), 2U);
    EXPECT_EQ(choice.tiers[0].keys.name(), "q8_0");
    EXPECT_EQ(choice.tiers[0].values.name(), "q5_0");
    EXPECT_TRUE(choice.tiers[1].keys.centres_keys());
    EXPECT_EQ(choice.tiers[1].values.name(), "q4_1");
    EXPECT_EQ(choice.first_share, 0.3);
    EXPECT_EQ(choice_of("h2o+tiered(k=q8_0,v=q8_0,k2=q4_0,v2=q4_0)").first_share, 0.5);
}

TEST(CodecParser, FullKeepsEverythingWhateverTheRatio) {
    const policy how = parse_policy("full+codec(k=q8_0,v=q8_0)");
    EXPECT_FALSE(how.full) << "it is compressed";
    EXPECT_EQ(how.ratios({0.25}), std::vector<double>{1.0});
    EXPECT_EQ(how.text, "full+codec(k=q8_0,v=q8_0)");
}

TEST(CodecParser, SplitsOnlyOutsideParentheses) {
    using parts = std::pair<std::string, std::optional<std::string>>;
    EXPECT_EQ(split_codec("h2o"), parts("h2o", std::nullopt));
    EXPECT_EQ(split_codec("h2o+codec(k=q8_0)"), parts("h2o", "codec(k=q8_0)"));
    EXPECT_EQ(split_codec("ada_kv(h2o)+tiered(k=q8_0)"), parts("ada_kv(h2o)", "tiered(k=q8_0)"));
    EXPECT_EQ(split_codec("ada_kv(h2o+codec(k=q8_0))").second, std::nullopt);
    EXPECT_THAT(message_of("ada_kv(snapkv+codec(k=q8_0,v=q8_0))"), HasSubstr("snapkv+codec"));
}

TEST(CodecParser, SpacesDoNotMatter) {
    const auto list =
        parse_policies("full, snapkv +codec( k = q8_0 , v = hadamard( q4_0 ) ) , four_times");
    ASSERT_EQ(list.size(), 3U);
    EXPECT_EQ(list[1].codec.value_or(codec_choice{}).tiers.size(), 1U);
    EXPECT_TRUE(list[2].codec.has_value());
}

TEST(CodecParser, RatiosMayCountBytes) {
    policy how = parse_policy("snapkv+codec(k=q8_0,v=q8_0,bytes=1)");
    how.set_head_dim(64);
    const std::vector<double> ratios = how.ratios({0.25, 0.5, 1.0});
    EXPECT_NEAR(ratios[0], 0.25 * 0.975 * 32.0 / 17.0, 1e-9) << "34 bytes for 32 channels of 64";
    EXPECT_LE(ratios[1], 1.0);
    EXPECT_EQ(ratios[2], 1.0) << "never more than there are";
    EXPECT_THAT(message_of("snapkv+codec(k=q8_0,v=q8_0,bytes=1,keep=0.5)"), HasSubstr("bytes"));
}

TEST(CodecParser, PresetsArePoliciesWrittenOut) {
    EXPECT_THAT(expand_preset("four_times"), HasSubstr("seed=0"));
    EXPECT_THAT(expand_preset("four_times(seed=3)"), HasSubstr("seed=3"));
    EXPECT_THAT(expand_preset("eight_times( seed = 12 )"),
                AllOf(HasSubstr("seed=12"), HasSubstr("keep=")));
    EXPECT_EQ(expand_preset("snapkv(window=8)"), "snapkv(window=8)");
    EXPECT_EQ(expand_preset("four_timeses"), "four_timeses");
    EXPECT_EQ(expand_preset("kvcrush_auto"), "ada_kv(horizons(snapkv))");
    EXPECT_THAT(expand_preset("kvcrush_auto(bytes=1,seed=4)"),
                AllOf(HasSubstr("seed=4"), HasSubstr("bytes=1")));
    EXPECT_EQ(expand_preset("kvcrush_auto+codec(k=q8_0,v=q8_0)"),
              "ada_kv(horizons(snapkv))+codec(k=q8_0,v=q8_0)");
    for (const std::string_view name : preset_names()) {
        if (name == "kvcrush_auto") {
            continue;
        }
        const policy how = parse_policy(name);
        EXPECT_EQ(how.text, name) << "shown as it was given";
        ASSERT_TRUE(how.codec.has_value()) << name;
        EXPECT_FALSE(how.full) << name;
        EXPECT_TRUE(how.codec->keep.has_value()) << name << " aims at bytes, not at a keep ratio";
    }
    EXPECT_THAT(message_of("four_times(seed=-1)"), HasSubstr("seed is \"-1\""));
    EXPECT_THAT(message_of("four_times(bits=3)"),
                AllOf(HasSubstr("\"bits\""), HasSubstr("it has seed")));
    EXPECT_THAT(message_of("four_times(snapkv)"), HasSubstr("no policy"));
    EXPECT_THAT(message_of("four_times(seed=1,seed=2)"), HasSubstr("seed is given twice"));
    EXPECT_THAT(message_of("four_timeses"), HasSubstr("four_times, eight_times, sixteen_times"));
    EXPECT_THAT(message_of("four_times+codec(k=q8_0,v=q8_0)"),
                HasSubstr("four_times says already how rows are stored"));
}

TEST(CodecParser, MistakesAreNamedWithWhatIsAllowed) {
    EXPECT_THAT(message_of("h2o+codec(k=q3_0,v=q4_0)"),
                AllOf(HasSubstr("\"q3_0\" is unknown here"),
                      HasSubstr("q8_0, q4_0, q4_1, q5_0, q5_1, iq4_nl, int8_row, "),
                      HasSubstr("f16, bf16, f32, turbo_quant, "),
                      HasSubstr("hadamard(CODEC), mean_centred(CODEC)")));
    EXPECT_THAT(message_of("h2o+codec(k=q4_0,v=Q4_0)"), HasSubstr("\"Q4_0\" is unknown here"));
    EXPECT_THAT(message_of("h2o+codec(k=8,v=q4_0)"), HasSubstr("\"8\" is unknown here"));
    EXPECT_THAT(message_of("h2o+codec(k=q4_0,v=q4_0,size=3)"),
                AllOf(HasSubstr("there is no parameter \"size\""),
                      HasSubstr("it has k, v, sinks, window")));
    EXPECT_THAT(message_of("h2o+codec(k=q4_0,v=q4_0,window=-1)"),
                HasSubstr("window is \"-1\"; allowed: a whole number"));
    EXPECT_THAT(message_of("h2o+codec(k=q4_0,v=q4_0,window=hadamard(q4_0))"),
                HasSubstr("window takes a plain value"));
    EXPECT_THAT(message_of("h2o+codec(k=q4_0,k=q8_0,v=q4_0)"), HasSubstr("k is given twice"));
    EXPECT_THAT(message_of("h2o+codec(q4_0)"), HasSubstr("\"q4_0\" has no name; write k=CODEC"));
    EXPECT_THAT(message_of("h2o+codecs(k=q4_0,v=q4_0)"),
                HasSubstr("\"codecs\" is unknown behind +; allowed: codec, tiered"));
    EXPECT_THAT(message_of("h2o+codec(k=q4_0,v=q4_0)+codec(k=q4_0,v=q4_0)"),
                HasSubstr("expected the end"));
    EXPECT_THAT(message_of("h2o+codec(k=q4_0,v=q4_0"), HasSubstr("expected ',' or ')'"));
    EXPECT_THAT(message_of("+codec(k=q4_0,v=q4_0)"), HasSubstr("expected a name"));
    EXPECT_THAT(message_of("h3o+codec(k=q4_0,v=q4_0)"), HasSubstr("\"h3o\" is unknown"));
    EXPECT_THAT(message_of("h2o+pages(k=q4_0)"), HasSubstr("POLICY+codec(...)"));
    EXPECT_THAT(message_of("full(x=1)+codec(k=q4_0,v=q4_0)"), HasSubstr("takes no parameters"));
}

TEST(CodecParser, KeysAndValuesMustBothBeChosen) {
    for (const char* text : {"h2o+codec",
                             "h2o+codec()",
                             "h2o+codec(k=q8_0)",
                             "h2o+codec(v=q8_0)",
                             "h2o+codec(sinks=q8_0,window=3)"}) {
        EXPECT_THAT(message_of(text), HasSubstr("policy codec needs k and v")) << text;
    }
    EXPECT_THAT(message_of("h2o+tiered(k=q8_0,v=q8_0,k2=q4_0)"),
                HasSubstr("policy tiered needs k, v, k2 and v2"));
    EXPECT_THAT(message_of("h2o+codec(k=q8_0,v=q8_0,k2=q4_0,v2=q4_0)"),
                HasSubstr("there is no parameter \"k2\""));
}

TEST(CodecParser, CodecsThatDoNotFitTogetherAreRefused) {
    EXPECT_THAT(message_of("h2o+codec(k=q8_0,v=mean_centred(q8_0))"),
                HasSubstr("mean_centred is for keys"));
    EXPECT_THAT(message_of("h2o+codec(k=q8_0,v=q8_0,sinks=mean_centred(q8_0))"),
                HasSubstr("mean_centred is for keys"));
    EXPECT_THAT(message_of("h2o+tiered(k=q8_0,v=q8_0,k2=q8_0,v2=mean_centred(q8_0))"),
                HasSubstr("mean_centred is for keys"));
    EXPECT_THAT(message_of("h2o+codec(k=mean_centred(mean_centred(q8_0)),v=q8_0)"),
                HasSubstr("\"mean_centred\" is unknown here"));
    EXPECT_THAT(message_of("h2o+codec(k=hadamard(mean_centred(q8_0)),v=q8_0)"),
                HasSubstr("\"mean_centred(q8_0)\" cannot be turned; allowed: q8_0, q4_0"));
    EXPECT_THAT(message_of("h2o+codec(k=hadamard(hadamard(q8_0)),v=q8_0)"),
                HasSubstr("cannot be turned"));
    EXPECT_THAT(message_of("h2o+codec(k=hadamard(turbo_quant),v=q8_0)"),
                HasSubstr("cannot be turned"));
    for (const char* none : {"hadamard", "hadamard()", "hadamard(q4_0,q8_0)", "mean_centred"}) {
        EXPECT_THAT(message_of("h2o+codec(v=q8_0,k=" + std::string(none) + ")"),
                    HasSubstr("takes one codec"))
            << none;
    }
    EXPECT_THAT(message_of("h2o+codec(v=q8_0,k=mean_centred(q4_0,seed=1))"),
                HasSubstr("takes a codec and no parameters"));
    EXPECT_THAT(message_of("h2o+codec(v=q8_0,k=hadamard(q4_0,angle=1))"),
                AllOf(HasSubstr("\"angle\""), HasSubstr("it has signs, seed")));
    EXPECT_THAT(message_of("h2o+codec(v=q8_0,k=hadamard(q4_0,signs=2))"), HasSubstr("signs is"));
    EXPECT_THAT(message_of("h2o+codec(v=q8_0,k=q4_0(bits=4))"), HasSubstr("\"bits\""));
    EXPECT_THAT(message_of("h2o+codec(v=q8_0,k=q4_0(q8_0))"), HasSubstr("has no name"));
    EXPECT_THAT(message_of("h2o+codec(v=q8_0,k=turbo_quant(bits=6))"),
                HasSubstr("bits is 6; it must be 2, 3, 4 or 5"));
}

TEST(CodecParser, SharesAndRatiosOutOfRangeAreRefused) {
    for (const char* share : {"0", "-0.5", "1.01", "nan", "inf"}) {
        EXPECT_THAT(message_of("h2o+tiered(k=q8_0,v=q8_0,k2=q4_0,v2=q4_0,share=" +
                               std::string(share) + ")"),
                    AllOf(HasSubstr("share is"), HasSubstr("(0, 1]")))
            << share;
    }
    for (const char* keep : {"-0.5", "1.01", "nan", "inf"}) {
        EXPECT_THAT(message_of("h2o+codec(k=q8_0,v=q8_0,keep=" + std::string(keep) + ")"),
                    AllOf(HasSubstr("keep is"), HasSubstr("[0, 1]")))
            << keep;
    }
    EXPECT_THAT(message_of("h2o+codec(k=q8_0,v=q8_0,share=0.5)"),
                HasSubstr("there is no parameter \"share\""))
        << "there is but one tier";
    EXPECT_THAT(message_of("full+codec(k=q8_0,v=q8_0,keep=0.5)"),
                HasSubstr("policy full keeps everything"));
}

TEST(CodecParser, TiersNeedAnOrderOfTokens) {
    const std::string tiers = "+tiered(k=q8_0,v=q8_0,k2=q4_0,v2=q4_0)";
    EXPECT_THAT(message_of("full" + tiers), HasSubstr("full knows no importance"));
    EXPECT_THAT(message_of("kvzip" + tiers), HasSubstr("kvzip gives no order of tokens"));
    EXPECT_THAT(message_of("pyramid_kv(snapkv)" + tiers), HasSubstr("gives no order of tokens"));
    EXPECT_TRUE(parse_policy("ada_kv(snapkv)" + tiers).codec.has_value());
    EXPECT_TRUE(parse_policy("kvcrush(snapkv)" + tiers).codec.has_value());
}

TEST(CodecParser, AllHoldsEachPresetOnce) {
    const auto list = parse_policies("all");
    for (const std::string_view name : preset_names()) {
        EXPECT_EQ(std::count_if(list.begin(),
                                list.end(),
                                [&](const policy& how) { return how.text == name; }),
                  1)
            << name;
    }
}

TEST(CodecParser, TheListShowsCodecsAndPresets) {
    std::string names;
    for (const policy_help& entry : list_codecs()) {
        EXPECT_FALSE(entry.about.empty()) << entry.name;
        names += entry.name + " ";
    }
    EXPECT_THAT(names, AllOf(HasSubstr("+codec("), HasSubstr("+tiered("), HasSubstr("four_times")));
    EXPECT_THAT(list_codecs().front().about, AllOf(HasSubstr("q8_0"), HasSubstr("iq4_nl")));
}

} // namespace
} // namespace lab
