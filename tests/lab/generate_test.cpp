// SPDX-License-Identifier: Apache-2.0
#include "error.hpp"
#include "generate.hpp"
#include "tiny_model.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <vector>

namespace {

using lab::cache_type;
using lab::generation_options;
using kvcrush::kv_cache;
using lab::llama;

TEST(MostLikely, TakesTheFirstOfTheLargestAndNeverNan) {
    EXPECT_EQ(lab::most_likely(std::vector<float>{1.0F, 3.0F, 3.0F, 2.0F}), 1);
    EXPECT_EQ(lab::most_likely(std::vector<float>{NAN, -INFINITY, NAN}), 1);
    EXPECT_EQ(lab::most_likely(std::vector<float>{-1.0F, NAN, 5.0F}), 2);
    EXPECT_EQ(lab::most_likely(std::vector<float>{NAN, NAN}), 0);
}

TEST(Generate, TakesTheMostLikelyTokenEachTime) {
    const llama model = lab_test::load(lab_test::tiny_model().file());
    const std::vector<int> prompt = {3, 1, 4, 1, 5};
    kv_cache cache = model.make_cache(cache_type::f32);
    const auto tokens = generate(model, cache, prompt, {.max_new_tokens = 10});
    ASSERT_EQ(tokens.size(), 10U);
    EXPECT_EQ(cache.tokens_seen(), 14U); // the last token is not read back
    kv_cache again = model.make_cache(cache_type::f32);
    std::vector<int> text = prompt;
    lab::matrix logits = model.forward(prompt, again, 1);
    for (const int token : tokens) {
        EXPECT_EQ(token, lab::most_likely(logits.row(0)));
        logits = model.forward({&token, 1}, again, 1);
    }
}

TEST(Generate, StopsAfterTheEndTokenAndIncludesIt) {
    const llama model = lab_test::load(lab_test::tiny_model().file());
    const std::vector<int> prompt = {3, 1, 4, 1, 5};
    kv_cache cache = model.make_cache(cache_type::f32);
    const auto all = generate(model, cache, prompt, {.max_new_tokens = 10});
    const int end = all[4];
    const auto length = static_cast<std::size_t>(std::ranges::find(all, end) - all.begin()) + 1;
    kv_cache again = model.make_cache(cache_type::f32);
    generation_options options{.max_new_tokens = 10};
    options.end_token = end;
    const auto tokens = generate(model, again, prompt, options);
    EXPECT_EQ(tokens,
              std::vector<int>(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(length)));
}

TEST(Generate, ShowsEveryTokenBeforeTheModelReadsIt) {
    const llama model = lab_test::load(lab_test::tiny_model().file());
    kv_cache cache = model.make_cache(cache_type::f16);
    std::vector<int> seen;
    const generation_options options{.max_new_tokens = 5};
    const auto tokens =
        generate(model, cache, std::vector<int>{7, 8}, options, [&](std::size_t number, int token) {
            EXPECT_EQ(number, seen.size());
            EXPECT_EQ(cache.tokens_seen(), 2 + number);
            seen.push_back(token);
            kvcrush::selection first; // a cache may be compressed here
            first.reserve(2, 2 * 8);
            first.extend_range(0, 1);
            first.end_head();
            first.extend_range(0, cache.layer(0).rows(1));
            first.end_head();
            cache.layer(0).evict(first);
        });
    EXPECT_EQ(seen, tokens);
    EXPECT_EQ(cache.layer(0).rows(0), 1U);
    EXPECT_EQ(cache.layer(0).rows(1), 6U);
    EXPECT_EQ(cache.layer(1).rows(0), 6U);
}

TEST(Generate, RefusesWhatCannotFit) {
    const llama model = lab_test::load(lab_test::tiny_model().file());
    kv_cache cache = model.make_cache(cache_type::f32);
    const auto refuses = [&](const std::vector<int>& text, std::size_t count) {
        EXPECT_THROW(static_cast<void>(generate(model, cache, text, {.max_new_tokens = count})),
                     lab::input_error);
    };
    refuses({}, 1);
    const std::vector<int> prompt(690, 1);
    refuses(prompt, 12);
    EXPECT_EQ(cache.tokens_seen(), 0U);
    EXPECT_TRUE(generate(model, cache, prompt, {.max_new_tokens = 0}).empty());
    EXPECT_EQ(generate(model, cache, prompt, {.max_new_tokens = 11}).size(), 11U);
    EXPECT_EQ(cache.tokens_seen(), 700U);
}

} // namespace
