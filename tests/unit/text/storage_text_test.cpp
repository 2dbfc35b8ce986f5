// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/presets.hpp>

#include "unit/text/recipe_text.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace kvcrush {
namespace {

using testing::AllOf;
using testing::HasSubstr;

row_storage rows_of(const std::string& text) {
    const recipe how = parse(text);
    EXPECT_TRUE(how.rows.encodes()) << text;
    return how.rows;
}

TEST(StorageText, EveryNameGivesTheCodecOfThatSize) {
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
        const row_storage rows = rows_of("full+codec(k=" + name + ",v=" + name + ")");
        ASSERT_EQ(rows.tiers.size(), 1U) << name;
        EXPECT_EQ(rows.tiers[0].keys.name(), name);
        EXPECT_EQ(rows.tiers[0].values.name(), name);
        EXPECT_EQ(rows.tiers[0].keys.group_bytes(64), bytes) << name;
        EXPECT_FALSE(rows.tiers[0].keys.centres_keys()) << name;
    }
    EXPECT_EQ(rows_of("full+codec(k=int8_row,v=int8_row)").tiers[0].keys.name(), "int8_row");
}

TEST(StorageText, CodecsStandInsideEachOther) {
    const row_storage rows =
        rows_of("snapkv+codec(k=mean_centred(hadamard(q4_0,signs=1,seed=7)),v=hadamard(q5_1))");
    EXPECT_TRUE(rows.tiers[0].keys.centres_keys());
    EXPECT_FALSE(rows.tiers[0].values.centres_keys());
    EXPECT_EQ(rows.tiers[0].keys.group_bytes(64), 36U);
    EXPECT_EQ(rows.tiers[0].keys.text(), "mean_centred(hadamard(q4_0,signs=1,seed=7))");
    EXPECT_EQ(rows.tiers[0].values.name(), "hadamard");
    EXPECT_EQ(rows.tiers[0].values.arguments(), "q5_1");
    EXPECT_EQ(rows.tiers[0].values.group_bytes(64), 48U);
    EXPECT_TRUE(rows_of("knorm+codec(k=mean_centred(turbo_quant(bits=2)),v=turbo_quant(bits=3))")
                    .tiers[0]
                    .keys.centres_keys());
    EXPECT_TRUE(rows_of("knorm+codec(k=mean_centred(q4_0),v=q4_0)").tiers[0].keys.centres_keys());
}

TEST(StorageText, ValuesAreSetByNameAndHaveDefaults) {
    const recipe plain = parse("h2o+codec(k=q4_0,v=q4_1)");
    EXPECT_EQ(plain.rows.sinks.keys.name(), "q8_0");
    EXPECT_EQ(plain.rows.sinks.values.name(), "q8_0");
    EXPECT_EQ(plain.rows.num_sink_tokens, 4U);
    EXPECT_EQ(plain.rows.window, 128U);
    EXPECT_EQ(plain.rows.tiers[0].share, 1.0);
    EXPECT_EQ(plain.rows.attention, arithmetic::integer);
    EXPECT_EQ(plain.keep, cache_budget{});

    const recipe chosen = parse("h2o+codec(v=q4_1,sinks=f16,window=8,keep=0.5,sink_rows=2,exact=1,"
                                "k=q4_0)"); // in any order
    EXPECT_EQ(chosen.rows.tiers[0].keys.name(), "q4_0");
    EXPECT_EQ(chosen.rows.tiers[0].values.name(), "q4_1");
    EXPECT_EQ(chosen.rows.sinks.keys.name(), "f16");
    EXPECT_EQ(chosen.rows.sinks.values.name(), "f16");
    EXPECT_EQ(chosen.rows.num_sink_tokens, 2U);
    EXPECT_EQ(chosen.rows.window, 8U);
    EXPECT_EQ(chosen.rows.attention, arithmetic::exact);
    EXPECT_EQ(chosen.keep, cache_budget::keep_ratio(0.5));
    EXPECT_EQ(parse("h2o+codec(k=q4_0,v=q4_1,keep=0)").keep, cache_budget{});
    EXPECT_EQ(parse("h2o+codec(k=q4_0,v=q4_1,keep=1)").keep, cache_budget::everything());
}

TEST(StorageText, TiersAreFromPreciseToCheap) {
    const row_storage rows =
        rows_of("snapkv(recent=8)+tiered(k=q8_0,v=q5_0,k2=mean_centred(q4_0),v2=q4_1,share=0.3)");
    ASSERT_EQ(rows.tiers.size(), 2U);
    EXPECT_EQ(rows.tiers[0].keys.name(), "q8_0");
    EXPECT_EQ(rows.tiers[0].values.name(), "q5_0");
    EXPECT_TRUE(rows.tiers[1].keys.centres_keys());
    EXPECT_EQ(rows.tiers[1].values.name(), "q4_1");
    EXPECT_EQ(rows.tiers[0].share, 0.3);
    EXPECT_EQ(rows_of("h2o+tiered(k=q8_0,v=q8_0,k2=q4_0,v2=q4_0)").tiers[0].share, 0.5);
}

TEST(StorageText, FullKeepsEverythingWhateverTheRatio) {
    const recipe how = parse("full+codec(k=q8_0,v=q4_0)");
    EXPECT_EQ(how.keep, cache_budget::everything());
    EXPECT_EQ(how.keep.with_ratio(0.25), cache_budget::everything());
    EXPECT_EQ(canonical("full+codec(k=q8_0,v=q4_0)"), "full+codec(k=q8_0,v=q4_0)");
    EXPECT_EQ(parse("full").keep, cache_budget::everything());
}

TEST(StorageText, SuffixesStandOutsideParentheses) {
    EXPECT_THAT(message_of("ada_kv(snapkv+codec(k=q8_0,v=q8_0))"),
                HasSubstr("\"snapkv+codec\" is unknown"));
    EXPECT_EQ(canonical(" snapkv +codec( k = q8_0 , v = hadamard( q4_0 ) ) "),
              "snapkv+codec(k=q8_0,v=hadamard(q4_0))")
        << "spaces do not matter";
}

TEST(StorageText, RatiosMayCountBytes) {
    const recipe how = parse("snapkv+codec(k=q8_0,v=q8_0,bytes=1)");
    EXPECT_EQ(how.keep, cache_budget::of_bytes());
    const cache_budget quarter = how.keep.with_ratio(0.25);
    const double share = quarter.token_share(how.rows, {4096, 64, 64}, 6);
    EXPECT_NEAR(share, 0.25 * 32.0 / 17.0, 0.01) << "34 bytes for 32 channels of 64";
    EXPECT_THAT(message_of("snapkv+codec(k=q8_0,v=q8_0,bytes=1,keep=0.5)"), HasSubstr("bytes"));
    EXPECT_THAT(message_of("snapkv+codec(k=q8_0,v=q8_0,keep=0.5)+keep(ratio=0.5)"),
                HasSubstr("says already how much stays"));
    EXPECT_THAT(message_of("snapkv+keep(ratio=0.5)+codec(k=q8_0,v=q8_0,keep=0.5)"),
                HasSubstr("says already how much stays"));
}

TEST(StorageText, PresetsAreThoseOfTheLibrary) {
    EXPECT_EQ(canonical("four_times"), written(four_times()));
    EXPECT_EQ(canonical("four_times(seed=3)"), written(four_times(3)));
    EXPECT_EQ(canonical("eight_times( seed = 12 )"), written(eight_times(12)));
    EXPECT_EQ(canonical("sixteen_times"), written(sixteen_times()));
    EXPECT_NE(canonical("four_times"), canonical("four_times(seed=3)"));
    EXPECT_EQ(canonical("kvcrush_auto"), "ada_kv(horizons(snapkv))");
    EXPECT_EQ(canonical("kvcrush_auto+keep(ratio=0.25)"), written(kvcrush_auto()));
    EXPECT_EQ(canonical("kvcrush_auto(bytes=1,seed=4)+keep(bytes=0.2)"),
              written(kvcrush_auto_bytes(0.2, 4)));
    EXPECT_EQ(canonical("kvcrush_auto+codec(k=q8_0,v=q8_0)"),
              "ada_kv(horizons(snapkv))+codec(k=q8_0,v=q8_0)");
    EXPECT_EQ(written(kvcrush_tokens(0.5)), "kvcrush(snapkv)+keep(ratio=0.5)");
    EXPECT_EQ(written(kvcrush_vllm_pages()),
              "kvcrush(snapkv(window=16,pool=none),signature=page,sinks=32,recent=128)"
              "+keep(tokens=480)");
    EXPECT_THAT(message_of("four_times(seed=-1)"), HasSubstr("seed is \"-1\""));
    EXPECT_THAT(message_of("four_times(bits=3)"),
                AllOf(HasSubstr("\"bits\""), HasSubstr("it has seed")));
    EXPECT_THAT(message_of("four_times(snapkv)"), HasSubstr("no policy"));
    EXPECT_THAT(message_of("four_times(seed=1,seed=2)"), HasSubstr("\"seed\" is given twice"));
    EXPECT_THAT(message_of("four_timeses"), HasSubstr("four_times, eight_times, sixteen_times"));
    EXPECT_THAT(message_of("four_times+codec(k=q8_0,v=q8_0)"),
                HasSubstr("four_times says already how rows are stored"));
    EXPECT_THAT(message_of("kvcrush_auto(bytes=1)+codec(k=q8_0,v=q8_0)"),
                HasSubstr("kvcrush_auto says already how rows are stored"));
}

TEST(StorageText, MistakesAreNamedWithWhatIsAllowed) {
    EXPECT_THAT(message_of("h2o+codec(k=q3_0,v=q4_0)"),
                AllOf(HasSubstr("\"q3_0\" is unknown here"),
                      HasSubstr("q8_0, q4_0, q4_1, q5_0, q5_1, iq4_nl, int8_row, "),
                      HasSubstr("f16, bf16, f32, turbo_quant, "),
                      HasSubstr("hadamard(CODEC), mean_centred(CODEC)")));
    EXPECT_THAT(message_of("h2o+codec(k=q4_0,v=q4_0,size=3)"),
                AllOf(HasSubstr("there is no parameter \"size\""),
                      HasSubstr("it has k, v, sinks, window")));
    const std::vector<std::pair<std::string, std::string>> mistakes{
        {"h2o+codec(k=q4_0,v=Q4_0)", "\"Q4_0\" is unknown here"},
        {"h2o+codec(k=8,v=q4_0)", "\"8\" is unknown here"},
        {"h2o+codec(k=q4_0,v=q4_0,window=-1)", "window is \"-1\"; allowed: a whole number"},
        {"h2o+codec(k=q4_0,v=q4_0,window=hadamard(q4_0))", "window takes a plain value"},
        {"h2o+codec(k=q4_0,k=q8_0,v=q4_0)", "\"k\" is given twice"},
        {"h2o+codec(q4_0)", "\"q4_0\" has no name; write k=CODEC"},
        {"h2o+codecs(k=q4_0,v=q4_0)", "\"codecs\" is unknown behind +; allowed: codec, tiered"},
        {"h2o+codec(k=q4_0,v=q4_0)+codec(k=q4_0,v=q4_0)", "+codec is given twice"},
        {"h2o+codec(k=q4_0,v=q4_0)+tiered(k=q4_0,v=q4_0,k2=q4_0,v2=q4_0)",
         "says already how rows are stored"},
        {"h2o+codec(k=q4_0,v=q4_0", "expected ',' or ')'"},
        {"+codec(k=q4_0,v=q4_0)", "expected a name"},
        {"h3o+codec(k=q4_0,v=q4_0)", "\"h3o\" is unknown"},
        {"h2o+pages(k=q4_0)", "POLICY+codec(...)"},
        {"full(x=1)+codec(k=q4_0,v=q4_0)", "takes no parameters"},
        {"h2o+codec(k=q4_0,v=q4_0,sinks=kivi_key)", "codecs of single rows"}};
    for (const auto& [text, message] : mistakes) {
        EXPECT_THAT(message_of(text), HasSubstr(message)) << text;
    }
}

TEST(StorageText, KeysAndValuesMustBothBeChosen) {
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

TEST(StorageText, CodecsThatDoNotFitTogetherAreRefused) {
    for (const char* values : {"codec(k=q8_0,v=mean_centred(q8_0))",
                               "codec(k=q8_0,v=q8_0,sinks=mean_centred(q8_0))",
                               "tiered(k=q8_0,v=q8_0,k2=q8_0,v2=mean_centred(q8_0))"}) {
        EXPECT_THAT(message_of("h2o+" + std::string(values)),
                    HasSubstr("mean_centred is for keys"));
    }
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

TEST(StorageText, SharesAndRatiosOutOfRangeAreRefused) {
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

TEST(StorageText, TiersNeedAnOrderOfTokens) {
    const std::string tiers = "+tiered(k=q8_0,v=q8_0,k2=q4_0,v2=q4_0)";
    EXPECT_THAT(message_of("full" + tiers), HasSubstr("full knows no importance"));
    EXPECT_THAT(message_of("kvzip" + tiers), HasSubstr("kvzip gives no order of tokens"));
    EXPECT_THAT(message_of("dbudget_kv" + tiers), HasSubstr("gives no order of tokens"));
    EXPECT_TRUE(parse("ada_kv(snapkv)" + tiers).rows.encodes());
    EXPECT_TRUE(parse("kvcrush(snapkv)" + tiers).rows.encodes());
    EXPECT_TRUE(parse("pyramid_kv(snapkv)" + tiers).rows.encodes())
        << "how many stay says nothing against which come first";
}

} // namespace
} // namespace kvcrush
