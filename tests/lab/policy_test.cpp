// SPDX-License-Identifier: Apache-2.0
#include "codec_parser.hpp"
#include "crush_parser.hpp"
#include "policy.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

namespace lab {
namespace {

using testing::HasSubstr;

std::string message_of(const std::string& text) {
    try {
        static_cast<void>(parse_policies(text));
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing was thrown";
}

TEST(Policy, NamesChooseTheLibraryTypes) {
    EXPECT_TRUE(parse_policy("full").full);
    EXPECT_TRUE(std::holds_alternative<kvcrush::knorm_scorer>(parse_policy("knorm").scorer));
    EXPECT_NE(parse_policy("knorm").selector.as<kvcrush::top_k_selector>(), nullptr);
}

TEST(Policy, ParametersAreSetByName) {
    const policy how =
        parse_policy("snapkv(window=8, "
                     "pool=avg,kernel=5,reduce=max,order=pool_first,shared=1,sinks=2,recent=9)");
    const auto& scorer = std::get<kvcrush::snapkv_scorer>(how.scorer);
    EXPECT_EQ(scorer.observation_window, 8U);
    EXPECT_EQ(scorer.pool, kvcrush::pooling::avg);
    EXPECT_EQ(scorer.pooling_kernel_size, 5U);
    EXPECT_EQ(scorer.reduce_heads, kvcrush::head_reduction::max);
    EXPECT_EQ(scorer.order, kvcrush::pooling_order::pool_first);
    EXPECT_TRUE(scorer.shared);
    EXPECT_EQ(how.areas, (kvcrush::area_sizes{2, 9}));
}

TEST(Policy, CompositionReadsAsComposition) {
    const policy how = parse_policy(
        "kvcrush(h2o(normalise=none,last=256),anchor=alternate,share=0.1,pick=step,quantile=0.25)");
    EXPECT_EQ(std::get<kvcrush::h2o_scorer>(how.scorer).last, 256U);
    const auto* selector = how.selector.as<kvcrush::kvcrush_selector<kvcrush::step_picker>>();
    ASSERT_NE(selector, nullptr);
    EXPECT_EQ(selector->anchor.kind, kvcrush::anchor_kind::alternate);
    EXPECT_EQ(selector->share, 0.1);
    EXPECT_EQ(selector->signature.quantile, 0.25);

    const policy bits = parse_policy("kvcrush(knorm,bits=snapkv(window=16))");
    const auto* with_bits =
        bits.selector.as<kvcrush::kvcrush_selector<kvcrush::linspace_picker, attention_scorer>>();
    ASSERT_NE(with_bits, nullptr);
    EXPECT_EQ(std::get<kvcrush::snapkv_scorer>(with_bits->bits.chosen).observation_window, 16U);
}

TEST(Policy, SecondScoresKeysAndPagesAreSelectorsOfTheirOwn) {
    const policy dual = parse_policy("kvcrush(snapkv,pick=second_score,second=h2o(last=256))");
    const auto* second = dual.selector.as<kvcrush::kvcrush_selector<second_scorer>>();
    ASSERT_NE(second, nullptr);
    EXPECT_EQ(std::get<kvcrush::h2o_scorer>(second->picker.second.chosen).last, 256U);

    const policy keys = parse_policy("kvcrush(snapkv,signature=key_sign,pick=farthest,channels=0)");
    const auto* key_sign =
        keys.selector.as<kvcrush::kvcrush_selector<kvcrush::farthest_picker,
                                                   kvcrush::own_scores,
                                                   kvcrush::key_sign_signature>>();
    ASSERT_NE(key_sign, nullptr);
    EXPECT_EQ(key_sign->signature.channels, 0U);

    const policy pages = parse_policy("kvcrush(h2o,signature=page,page=8,anchor=mean,recent=16)");
    const auto* page = pages.selector.as<kvcrush::page_selector<>>();
    ASSERT_NE(page, nullptr);
    EXPECT_EQ(page->page_size, 8U);
    EXPECT_EQ(page->anchor.kind, kvcrush::anchor_kind::mean);
    EXPECT_EQ(pages.areas.num_recent_tokens, 16U);
}

TEST(Policy, CommasInParenthesesBelongToTheExpression) {
    const auto list = parse_policies("full,kvcrush(snapkv,share=0.5),random(seed=3)");
    ASSERT_EQ(list.size(), 3U);
    EXPECT_EQ(list[1].text, "kvcrush(snapkv,share=0.5)");
    EXPECT_EQ(std::get<kvcrush::random_scorer>(list[2].scorer).seed, 3U);
}

TEST(Policy, AllIsEveryPolicyWithItsDefaults) {
    const auto list = parse_policies("all");
    EXPECT_TRUE(list.front().full);
    std::set<std::string> texts;
    for (const policy& how : list) {
        EXPECT_TRUE(texts.insert(how.text).second) << how.text << " stands there twice";
    }
    // Every name that `policies` prints is tried; kvcrush with each portrait is left to the user.
    for (const policy_help& entry : list_policies()) {
        const std::string name = entry.name.substr(0, entry.name.find('('));
        if (name.starts_with("POLICY")) { // +codec and +tiered stand behind any of them
            continue;
        }
        EXPECT_TRUE(std::any_of(texts.begin(), texts.end(), [&](const std::string& text) {
            return text.starts_with(name);
        })) << name;
    }
}

TEST(Policy, AllocationsWrapAnyPolicy) {
    const policy how = parse_policy("ada_kv(kvcrush(snapkv,share=0.1),floor=0.5,recent=16)");
    ASSERT_NE(how.allocator.as<kvcrush::ada_kv_allocator>(), nullptr);
    EXPECT_EQ(how.allocator.as<kvcrush::ada_kv_allocator>()->floor, 0.5);
    EXPECT_NE(how.selector.as<kvcrush::kvcrush_selector<>>(), nullptr);
    EXPECT_EQ(how.areas.num_recent_tokens, 16U);
    EXPECT_TRUE(parse_policy("pyramid_kv(ada_kv(snapkv))").planner);
    EXPECT_TRUE(parse_policy("kvzip").planner);
}

TEST(Policy, MistakesAreNamedWithWhatIsAllowed) {
    EXPECT_THAT(message_of("snapvk"),
                HasSubstr("policy \"snapvk\" is unknown; allowed: all, full, random, "));
    EXPECT_THAT(message_of("snapkv(windwo=8)"),
                HasSubstr("there is no parameter \"windwo\"; it has window, pool, kernel"));
    EXPECT_THAT(message_of("snapkv(pool=median)"),
                HasSubstr("pool is \"median\"; allowed: max|avg|none"));
    EXPECT_THAT(message_of("snapkv(window=-1)"),
                HasSubstr("window is \"-1\"; allowed: a whole number"));
    EXPECT_THAT(message_of("snapkv(window=99999999999999999999)"),
                HasSubstr("allowed: a whole number"));
    EXPECT_THAT(message_of("snapkv(kernel=4)"), HasSubstr("kernel is 4; it must be odd"));
    EXPECT_THAT(message_of("snapkv(8)"), HasSubstr("\"8\" has no name; write parameter=value"));
    EXPECT_THAT(message_of("kvcrush"), HasSubstr("takes one base scorer"));
    EXPECT_THAT(message_of("kvcrush(snapkv,h2o)"), HasSubstr("2 are given"));
    EXPECT_THAT(message_of("kvcrush(snapkv,share=1.5)"),
                HasSubstr("share is 1.5; it must lie in [0, 1]"));
    EXPECT_THAT(message_of("kvcrush(snapkv,share=nan)"), HasSubstr("share"));
    EXPECT_THAT(message_of("kvcrush(snapkv,anchor=middle)"),
                HasSubstr("allowed: own|zeros|ones|alternate"));
    EXPECT_THAT(message_of("kvcrush(snapkv,pick=best)"),
                HasSubstr("allowed: linspace|step|farthest|most_important|second_score"));
    EXPECT_THAT(message_of("kvcrush(snapkv,signature=face)"),
                HasSubstr("allowed: head|key_sign|page"));
    EXPECT_THAT(message_of("kvcrush(snapkv,pick=second_score)"), HasSubstr("go together"));
    EXPECT_THAT(message_of("kvcrush(snapkv,second=h2o)"), HasSubstr("go together"));
    EXPECT_THAT(message_of("kvcrush(snapkv,second=h2o,pick=second_score,signature=page)"),
                HasSubstr("leave signature and bits out"));
    EXPECT_THAT(message_of("kvcrush(snapkv,bits=h2o,signature=key_sign)"),
                HasSubstr("bits=SCORER is for signature=head"));
    EXPECT_THAT(message_of("kvcrush(snapkv,page=16)"), HasSubstr("there is no parameter \"page\""));
    EXPECT_THAT(message_of("kvcrush(snapkv,signature=page,page=0)"),
                HasSubstr("page_size is 0; it must lie in [1, 4096]"));
    EXPECT_THAT(message_of("kvcrush(snapkv,anchors=9)"), HasSubstr("it must lie in [1, 8]"));
    EXPECT_THAT(message_of("kvcrush(snapkv,bits=knorm)"), HasSubstr("allowed: h2o, snapkv"));
    EXPECT_THAT(message_of("kvcrush(kvcrush(snapkv))"), HasSubstr("\"kvcrush\" is unknown here"));
    EXPECT_THAT(message_of("full(x=1)"), HasSubstr("takes no parameters"));
    EXPECT_THAT(message_of("kvcrush(h2o,share=0.5,share=0.6)"), HasSubstr("share is given twice"));
    EXPECT_THAT(message_of("ada_kv(full)"), HasSubstr("full has none"));
    EXPECT_THAT(message_of("pyramid_kv(pyramid_kv(snapkv))"), HasSubstr("stands inside itself"));
    EXPECT_THAT(message_of("kv_compress(pyramid_kv(snapkv))"), HasSubstr("says already"));
    EXPECT_THAT(message_of("ada_kv(kvzip)"), HasSubstr("kvzip says already"));
    EXPECT_THAT(message_of("ada_kv(ada_kv(snapkv))"), HasSubstr("stands inside itself"));
    EXPECT_THAT(message_of("chunk_kv"), HasSubstr("takes one base scorer"));
    EXPECT_THAT(message_of("chunk_kv(ada_kv(snapkv))"), HasSubstr("\"ada_kv\" is unknown here"));
}

TEST(Policy, BrokenExpressionsSayWhere) {
    EXPECT_THAT(message_of("snapkv(window=8"),
                HasSubstr("there is nothing more; expected ',' or ')'"));
    EXPECT_THAT(message_of("snapkv)"), HasSubstr("at character 7"));
    EXPECT_THAT(message_of("snapkv(,)"), HasSubstr("expected a name or a value"));
    EXPECT_THAT(message_of(""), HasSubstr("empty"));
    EXPECT_THAT(message_of("full,,random"), HasSubstr("empty"));
    EXPECT_THAT(message_of(std::string(1000, '(')), HasSubstr("character 1"));
    std::string deep;
    for (int i = 0; i < 100; ++i) {
        deep += "a(";
    }
    EXPECT_THAT(message_of(deep), HasSubstr("parentheses inside each other"));
}

TEST(Policy, TheListNamesEveryParameter) {
    for (const policy_help& entry : list_policies()) {
        if (entry.name == "full") {
            continue;
        }
        EXPECT_FALSE(entry.about.empty()) << entry.name;
        std::string names;
        for (const policy_help::row& row : entry.parameters) {
            names += row.name + " ";
        }
        // Made of policies that have areas.
        const std::vector<std::string_view> presets = preset_names();
        const bool of_others =
            entry.name.starts_with("POLICY") ||
            std::find(presets.begin(), presets.end(), entry.name) != presets.end();
        if (!of_others) {
            EXPECT_THAT(names, HasSubstr("sinks recent")) << entry.name;
        }
    }
}

} // namespace
} // namespace lab
