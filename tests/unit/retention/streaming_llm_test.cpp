// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/retention/streaming_llm.hpp>
#include <kvcrush/select/top_k.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <initializer_list>
#include <vector>

namespace kvcrush {
namespace {

static_assert(KeyScorer<streaming_llm_scorer, kv_view<f16>>);

// Known answer 11 of the specification.
TEST(StreamingLlmScorer, KeepsSinksAndTheNewest) {
    std::vector<float> memory(10);
    const kv_view<float> kv(memory, memory, kv_shape{1, 10, 1, 1});
    compressor crush(streaming_llm_scorer{}, top_k_selector{});
    for (const std::size_t recent : std::initializer_list<std::size_t>{
             0, 1, 4}) { // the middle budget goes to the newest whatever is protected
        crush.plan({kv.shape()}, budget::tokens(6, {2, recent}));
        EXPECT_EQ(test::list(crush.select(kv).kept(0)),
                  (std::vector<token_index>{0, 1, 6, 7, 8, 9}))
            << recent;
    }
}

} // namespace
} // namespace kvcrush
