// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/cache/kv_cache.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/recipe/kvzip_plan.hpp>

#include "unit/recipe/model_cache.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

using testing::HasSubstr;

std::string message_of(const std::function<void()>& work) {
    try {
        work();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing was thrown";
}

/// A model that looks at the row that it repeats: its query points where the key of that row does.
class Kvzip : public testing::Test {
protected:
    void SetUp() override { feed(cache_, 120); }

    /// Rows of repeated tokens: the request first, which looks nowhere, then the context again.
    void repeat(std::span<const std::int32_t> tokens, kv_cache& copy) {
        ++passes_;
        for (std::size_t l = 0; l < num_layers; ++l) {
            const std::vector<float> rows(tokens.size() * num_kv_heads * head_dim, 0.0F);
            std::vector<float> queries(tokens.size() * num_q_heads * head_dim, 0.0F);
            for (std::size_t t = 0; t < tokens.size(); ++t) {
                if (tokens[t] == 77) { // the token that head 1 of layer 2 is asked for
                    for (std::size_t c = 0; c < head_dim && l == 2; ++c) {
                        queries[(t * num_q_heads + 2) * head_dim + c] = 50.0F * key_77_[c];
                    }
                }
            }
            EXPECT_TRUE(copy.append(l, rows, rows));
            copy.observe(l, queries);
        }
    }

    compress_request request() {
        return {.replay = [this](std::span<const std::int32_t> tokens,
                                 kv_cache& copy) { repeat(tokens, copy); },
                .context = ids_,
                .repeat_request = asks_};
    }

    kv_cache cache_ = kv_cache(shape_of_model(),
                               {.model_allocator = kvzip{.reconstruction = {.chunk_size = 50}},
                                .areas = {4, 0},
                                .keep = cache_budget::keep_ratio(0.25)});
    std::vector<std::int32_t> ids_ = [] {
        std::vector<std::int32_t> ids(120);
        std::iota(ids.begin(), ids.end(), 0);
        return ids;
    }();
    std::vector<std::int32_t> asks_{900, 901};
    std::vector<float> key_77_ = [] {
        std::vector<float> key(head_dim);
        const std::size_t width = num_kv_heads * head_dim;
        for (std::size_t c = 0; c < head_dim; ++c) {
            key[c] = 4.0F * (random_unit(7 + 2, 1, 77 * width + head_dim + c) - 0.5F);
        }
        return key;
    }();
    std::size_t passes_ = 0;
};

TEST_F(Kvzip, WhatIsLookedAtForRepeatingStays) {
    const std::size_t before = cache_.tokens_seen();
    const auto choice = cache_.choose(request());
    EXPECT_EQ(passes_, 3U) << "116 rows behind the sinks, 50 at a time";
    EXPECT_EQ(cache_.tokens_seen(), before) << "the model repeats behind a copy";
    std::size_t total = 0;
    for (const layer_choice& layer : choice) {
        total += layer.kept.total();
    }
    EXPECT_EQ(total, num_layers * num_kv_heads * 30);
    const auto kept = choice[2].kept.kept(1);
    EXPECT_TRUE(std::binary_search(kept.begin(), kept.end(), token_index{77}));
}

TEST_F(Kvzip, WhatItNeedsIsNamed) {
    compress_request none = request();
    none.replay = {};
    EXPECT_THAT(message_of([&] { static_cast<void>(cache_.choose(none)); }),
                HasSubstr("kvzip: the model has to repeat its context"));
    compress_request other = request();
    other.context = other.context.first(100);
    EXPECT_THAT(message_of([&] { static_cast<void>(cache_.choose(other)); }),
                HasSubstr("the context has 100 token ids; the cache has seen 120"));
}

TEST_F(Kvzip, SaysWhatItIsMadeOf) {
    const any_model_allocator how =
        kvzip{.reconstruction = {.chunk_size = 64}, .selector = {.level = kvzip_level::head}};
    EXPECT_EQ(how.arguments(), "chunk=64,level=head");
    EXPECT_THROW(any_model_allocator(kvzip{.reconstruction = {.chunk_size = 0}}),
                 std::invalid_argument);
}

TEST_F(Kvzip, ACacheIsCompressedOnce) {
    cache_.compress(request());
    EXPECT_EQ(rows_of(cache_), num_layers * num_kv_heads * 30);
    EXPECT_THAT(message_of([&] { cache_.compress(request()); }),
                HasSubstr("kvzip: compresses a cache once, right after it was filled"));
}

} // namespace
} // namespace kvcrush
