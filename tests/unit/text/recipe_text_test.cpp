// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/recipe_text.hpp>

#include "unit/text/recipe_text.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush {

recipe parse(std::string_view text) { return parse_recipe(text); }
std::string written(const recipe& how) { return to_text(how); }
std::string canonical(std::string_view text) { return to_text(parse_recipe(text)); }

std::string message_of(std::string_view text) {
    try {
        static_cast<void>(parse_recipe(text));
    } catch (const std::invalid_argument& error) {
        const std::string message = error.what();
        EXPECT_EQ(message.find('\n'), std::string::npos) << message;
        return message;
    }
    return "nothing was thrown";
}

namespace {

using testing::HasSubstr;

TEST(RecipeText, NamesChooseTheLibraryTypes) {
    EXPECT_TRUE(parse("full").keeps_everything());
    const recipe how = parse("knorm");
    EXPECT_NE(how.scorer.as<knorm_scorer>(), nullptr);
    EXPECT_NE(how.selector.as<top_k_selector>(), nullptr);
    EXPECT_NE(how.allocator.as<uniform_allocator>(), nullptr);
    EXPECT_FALSE(how.model_allocator);
    EXPECT_FALSE(how.rows.encodes());
    EXPECT_EQ(how.keep, cache_budget{}) << "whoever runs it says how much is kept";
}

TEST(RecipeText, ParametersAreSetByName) {
    const recipe how =
        parse("snapkv(window=8, "
              "pool=avg,kernel=5,reduce=max,order=pool_first,shared=1,sinks=2,recent=9)");
    const auto* const scorer = how.scorer.as<snapkv_scorer>();
    ASSERT_NE(scorer, nullptr);
    EXPECT_EQ(scorer->observation_window, 8U);
    EXPECT_EQ(scorer->pool, pooling::avg);
    EXPECT_EQ(scorer->pooling_kernel_size, 5U);
    EXPECT_EQ(scorer->reduce_heads, head_reduction::max);
    EXPECT_EQ(scorer->order, pooling_order::pool_first);
    EXPECT_TRUE(scorer->shared);
    EXPECT_EQ(how.areas, (area_sizes{2, 9}));
}

TEST(RecipeText, CompositionReadsAsComposition) {
    const recipe how = parse(
        "kvcrush(h2o(normalise=none,last=256),anchor=alternate,share=0.1,pick=step,quantile=0.25)");
    EXPECT_EQ(how.scorer.as<h2o_scorer>()->last, 256U);
    const auto* const selector = how.selector.as<kvcrush_selector<step_picker>>();
    ASSERT_NE(selector, nullptr);
    EXPECT_EQ(selector->anchor.kind, anchor_kind::alternate);
    EXPECT_EQ(selector->share, 0.1);
    EXPECT_EQ(selector->signature.quantile, 0.25);

    const recipe bits = parse("kvcrush(knorm,bits=snapkv(window=16))");
    const auto* const with_bits = bits.selector.as<kvcrush_selector<linspace_picker, any_scorer>>();
    ASSERT_NE(with_bits, nullptr);
    EXPECT_EQ(with_bits->bits.as<snapkv_scorer>()->observation_window, 16U);
}

TEST(RecipeText, SecondScoresKeysAndPagesAreSelectorsOfTheirOwn) {
    const recipe dual = parse("kvcrush(snapkv,pick=second_score,second=h2o(last=256))");
    const auto* const second =
        dual.selector.as<kvcrush_selector<second_score_picker<any_scorer>>>();
    ASSERT_NE(second, nullptr);
    EXPECT_EQ(second->picker.second.as<h2o_scorer>()->last, 256U);

    const recipe keys = parse("kvcrush(snapkv,signature=key_sign,pick=farthest,channels=0)");
    const auto* const key_sign =
        keys.selector.as<kvcrush_selector<farthest_picker, own_scores, key_sign_signature>>();
    ASSERT_NE(key_sign, nullptr);
    EXPECT_EQ(key_sign->signature.channels, 0U);

    const recipe pages = parse("kvcrush(h2o,signature=page,page=8,anchor=mean,recent=16)");
    const auto* const page = pages.selector.as<page_selector<>>();
    ASSERT_NE(page, nullptr);
    EXPECT_EQ(page->page_size, 8U);
    EXPECT_EQ(page->anchor.kind, anchor_kind::mean);
    EXPECT_EQ(pages.areas.num_recent_tokens, 16U);
}

TEST(RecipeText, AllocationsWrapAnyPolicy) {
    const recipe how = parse("ada_kv(kvcrush(snapkv,share=0.1),floor=0.5,recent=16)");
    ASSERT_NE(how.allocator.as<ada_kv_allocator>(), nullptr);
    EXPECT_EQ(how.allocator.as<ada_kv_allocator>()->floor, 0.5);
    EXPECT_NE(how.selector.as<kvcrush_selector<>>(), nullptr);
    EXPECT_EQ(how.areas.num_recent_tokens, 16U);
    const recipe both = parse("pyramid_kv(ada_kv(snapkv),beta=10)");
    ASSERT_TRUE(both.model_allocator);
    EXPECT_EQ(both.model_allocator.policy_name(), "pyramid_kv");
    EXPECT_EQ(both.model_allocator.arguments(), "beta=10");
    EXPECT_NE(both.allocator.as<ada_kv_allocator>(), nullptr);
    EXPECT_EQ(canonical("ada_kv(pyramid_kv(snapkv))"), "pyramid_kv(ada_kv(snapkv))");
    EXPECT_EQ(parse("kvzip").model_allocator.policy_name(), "kvzip");
    EXPECT_EQ(parse("duo_attention(snapkv)").model_allocator.arguments(), "");
}

TEST(RecipeText, BudgetsStandBehindThePolicy) {
    EXPECT_EQ(parse("snapkv+keep(ratio=0.25)").keep, cache_budget::keep_ratio(0.25));
    EXPECT_EQ(parse("snapkv+keep(tokens=1024)").keep, cache_budget::tokens(1024));
    EXPECT_EQ(parse("snapkv+keep(bytes=0.25)").keep, cache_budget::byte_ratio(0.25));
    EXPECT_EQ(parse("snapkv + keep( mib = 512 )").keep, cache_budget::bytes(512U << 20U));
    EXPECT_EQ(parse("snapkv+keep(mib=0.5)").keep, cache_budget::bytes(512U << 10U));
    EXPECT_EQ(parse("snapkv+keep(bytes)").keep, cache_budget::of_bytes());
    EXPECT_EQ(parse("kvcrush_auto(bytes=1)+keep(mib=64)").keep, cache_budget::bytes(64U << 20U));
    const recipe how = parse("snapkv+when(every=16,rows=900)+keep(ratio=2.5e-1)");
    EXPECT_EQ(how.when.every, 16U);
    EXPECT_EQ(how.when.rows, 900U);
    EXPECT_EQ(how.keep, cache_budget::keep_ratio(0.25));
}

TEST(RecipeText, MistakesAreNamedWithWhatIsAllowed) {
    const std::vector<std::pair<std::string, std::string>> mistakes{
        {"snapvk", "policy \"snapvk\" is unknown; allowed: full, random, "},
        {"snapkv(windwo=8)", "there is no parameter \"windwo\"; it has window, pool, kernel"},
        {"snapkv(pool=median)", "pool is \"median\"; allowed: max|avg|none"},
        {"snapkv(window=-1)", "window is \"-1\"; allowed: a whole number"},
        {"snapkv(window=99999999999999999999)", "allowed: a whole number"},
        {"snapkv(kernel=4)", "kernel is 4; it must be odd"},
        {"snapkv(8)", "\"8\" has no name; write parameter=value"},
        {"kvcrush", "takes one base scorer"},
        {"kvcrush(snapkv,h2o)", "2 are given"},
        {"kvcrush(snapkv,share=1.5)", "share is 1.5; it must lie in [0, 1]"},
        {"kvcrush(snapkv,share=nan)", "share"},
        {"kvcrush(snapkv,anchor=middle)", "allowed: own|zeros|ones|alternate"},
        {"kvcrush(snapkv,pick=best)",
         "allowed: linspace|step|farthest|most_important|second_score"},
        {"kvcrush(snapkv,signature=face)", "allowed: head|key_sign|page"},
        {"kvcrush(snapkv,signature=head(rule=mean))", "signature takes a plain value"},
        {"kvcrush(snapkv,pick=second_score)", "go together"},
        {"kvcrush(snapkv,second=h2o)", "go together"},
        {"kvcrush(snapkv,second=h2o,pick=second_score,signature=page)",
         "leave signature and bits out"},
        {"kvcrush(snapkv,second=h2o,pick=second_score,anchor=ones)",
         "there is no parameter \"anchor\""},
        {"kvcrush(snapkv,bits=h2o,signature=key_sign)", "bits=SCORER is for signature=head"},
        {"kvcrush(snapkv,bits=h2o,signature=page)", "bits=SCORER is for signature=head"},
        {"kvcrush(snapkv,page=16)", "there is no parameter \"page\""},
        {"kvcrush(snapkv,signature=page,page=0)", "page_size is 0; it must lie in [1, 4096]"},
        {"kvcrush(snapkv,anchors=9)", "it must lie in [1, 8]"},
        {"kvcrush(snapkv,bits=ada_kv)", "\"ada_kv\" is unknown here; allowed: random, "},
        {"kvcrush(kvcrush(snapkv))", "\"kvcrush\" is unknown here"},
        {"full(x=1)", "takes no parameters"},
        {"full()", "takes no parameters"},
        {"kvcrush(h2o,share=0.5,share=0.6)", "\"share\" is given twice"},
        {"ada_kv(full)", "full has none"},
        {"pyramid_kv(pyramid_kv(snapkv))", "stands inside itself"},
        {"kv_compress(pyramid_kv(snapkv))", "says already"},
        {"ada_kv(kvzip)", "kvzip says already"},
        {"ada_kv(ada_kv(snapkv))", "stands inside itself"},
        {"ada_kv(pyramid_kv(ada_kv(snapkv)))", "says already what each head keeps"},
        {"chunk_kv", "takes one base scorer"},
        {"chunk_kv(ada_kv(snapkv))", "\"ada_kv\" is unknown here"},
        {"snapkv+keep(ratio=1.5)", "it must lie in (0, 1]"},
        {"snapkv+keep(ratio=nan)", "it must lie in (0, 1]"},
        {"snapkv+keep(bytes=0)", "it must lie in (0, 1]"},
        {"snapkv+keep(tokens=1e3)", "tokens is \"1e3\"; allowed: a whole number"},
        {"snapkv+keep(tokens=9007199254740993)", "it must be 2^53 at most"},
        {"snapkv+keep(mib=-1)", "mib is -1; it must lie in [0, 2^33]"},
        {"snapkv+keep(mib=inf)", "it must lie in [0, 2^33]"},
        {"snapkv+keep", "takes one of ratio, tokens, bytes and mib"},
        {"snapkv+keep(ratio=0.5,tokens=3)", "2 are given"},
        {"snapkv+keep(0.5)", "\"0.5\" has no name; write ratio=NUMBER"},
        {"snapkv+keep(share=0.5)", "it has ratio, tokens, bytes, mib"},
        {"snapkv+keep(ratio=0.5)+keep(ratio=0.5)", "+keep is given twice"},
        {"full+keep(ratio=0.5)", "policy full keeps everything and takes no keep"},
        {"four_times+keep(ratio=0.5)", "four_times says already how much stays"},
        {"kvcrush_auto(bytes=1)+keep(ratio=0.5)", "counts bytes, and keep something else"},
        {"snapkv+when(64)", "\"64\" has no name; write every=TOKENS"},
        {"snapkv+when(often=1)", "it has every, rows"}};
    for (const auto& [text, message] : mistakes) {
        EXPECT_THAT(message_of(text), HasSubstr(message)) << text;
    }
}

TEST(RecipeText, BrokenExpressionsSayWhere) {
    EXPECT_THAT(message_of("snapkv(window=8"),
                HasSubstr("there is nothing more; expected ',' or ')'"));
    EXPECT_THAT(message_of("snapkv)"), HasSubstr("at character 7"));
    EXPECT_THAT(message_of("snapkv(,)"), HasSubstr("expected a name or a value"));
    EXPECT_THAT(message_of("snapkv+"), HasSubstr("nothing more; expected a name or a value"));
    EXPECT_THAT(message_of(""), HasSubstr("there is nothing more"));
    EXPECT_THAT(message_of(std::string(1000, '(')), HasSubstr("character 1"));
    std::string deep;
    for (int i = 0; i < 100; ++i) {
        deep += "a(";
    }
    EXPECT_THAT(message_of(deep), HasSubstr("parentheses inside each other"));
}

} // namespace
} // namespace kvcrush
