// SPDX-License-Identifier: Apache-2.0
// Through a whole model: prefill, compress, go on; then compress what is compressed already and go on again.
#include <kvcrush/core/random.hpp>

#include "compression.hpp"
#include "eviction.hpp"
#include "policy.hpp"
#include "tiny_model.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace lab {
namespace {

using kvcrush::kv_cache;

/// A cache of floats that holds what another one decodes to.
kv_cache decoded(const llama& model, const kv_cache& from) {
    kv_cache result = model.make_cache(cache_type::f32);
    const std::size_t dim = from.shape().head_dim;
    for (std::size_t l = 0; l < from.num_layers(); ++l) {
        for (std::size_t head = 0; head < from.shape().num_kv_heads; ++head) {
            const std::vector<float> keys = lab_test::rows_of(from, l, head, true);
            const std::vector<float> values = lab_test::rows_of(from, l, head, false);
            const std::vector<std::size_t> positions = lab_test::positions_of(from, l, head);
            for (std::size_t r = 0; r < positions.size(); ++r) {
                EXPECT_TRUE(result.layer(l).append_row(
                    head,
                    std::span(keys).subspan(r * dim, dim),
                    std::span(values).subspan(r * dim, dim),
                    static_cast<kvcrush::token_index>(positions[r])));
            }
        }
    }
    return result;
}

std::vector<int> some_tokens(std::size_t count) {
    std::vector<int> tokens;
    for (std::size_t i = 0; i < count; ++i) {
        tokens.push_back(static_cast<int>(kvcrush::random_bits(3, 0, i) % 50));
    }
    return tokens;
}

TEST(CompressedCache, AModelGoesOnAsOnTheDecodedRows) {
    const llama model = lab_test::load(lab_test::tiny_model().file());
    std::vector<int> tokens = some_tokens(300);
    for (const char* text :
         {"knorm+codec(k=int8_row,v=int8_row,sinks=int8_row)",
          "full+codec(k=mean_centred(int8_row),v=f16,sinks=f16)",
          "knorm+tiered(k=f16,v=f16,k2=int8_row,v2=int8_row,sinks=f16,share=0.5)",
          "ada_kv(snapkv)+tiered(k=f16,v=f16,k2=int8_row,v2=int8_row,sinks=f16,share=0.5)"}) {
        const policy how = parse_policy(text);
        kv_cache prefilled = model.make_cache(cache_type::f16);
        static_cast<void>(model.forward(tokens, prefilled, 0));
        kv_cache cache = copy_for(prefilled, how);
        std::vector<int> seen = tokens;
        for (std::size_t round = 0; round < 3; ++round) {
            const timed_compression done = compress(cache, {model, seen}, how.at(0.5));
            if (round == 0) {
                const bool keeps_all = how.how.keep == kvcrush::cache_budget::everything();
                EXPECT_EQ(done.kept_tokens_mean, keeps_all ? 300.0 : 150.0) << text;
            }
            EXPECT_EQ(done.bytes_held, cache.bytes_held()) << text;
            kv_cache floats = decoded(model, cache);
            for (const int id : {7, 41, 3, 3, 19}) {
                const std::vector<int> next{id};
                const matrix coded_logits = model.forward(next, cache, 1);
                const matrix logits = model.forward(next, floats, 1);
                for (std::size_t i = 0; i < logits.cols(); ++i) {
                    // The new rows are f16 in the one cache and f32 in the other.
                    EXPECT_NEAR(coded_logits.row(0)[i], logits.row(0)[i], 2e-3) << text;
                }
                seen.push_back(id);
            }
            EXPECT_EQ(cache.tokens_seen(), 305U + 5 * round);
        }
    }
}

/// The same numbers as a cache that never held the evicted rows: the reference hides them.
TEST(CompressedCache, EvictedRowsAreGoneAndNothingElse) {
    const lab_test::tiny_model tiny;
    const llama model = lab_test::load(tiny.file());
    lab_test::tiny_reference reference(tiny);
    const std::vector<int> ids = some_tokens(120);
    kv_cache cache = model.make_cache(cache_type::f32);
    static_cast<void>(model.forward(std::span(ids).first(80), cache, 0));
    for (const int id : std::span(ids).first(80)) {
        reference.read(id);
    }
    const std::vector<kvcrush::layer_choice> choice = lab_test::random_choice(cache, 5);
    for (std::size_t l = 0; l < choice.size(); ++l) {
        for (std::size_t head = 0; head < tiny.num_kv_heads; ++head) {
            const auto kept = choice[l].kept.kept(head);
            for (std::size_t row = 0; row < 80; ++row) {
                if (!std::binary_search(kept.begin(), kept.end(), row)) {
                    reference.hide(l, head, row);
                }
            }
        }
    }
    const std::size_t before = cache.bytes_held();
    cache.apply(choice);
    EXPECT_LT(cache.bytes_held(), before);
    EXPECT_EQ(cache.tokens_seen(), 80U);
    // A block of queries, then single ones.
    const matrix together = model.forward(std::span(ids).subspan(80, 36), cache, 36);
    for (std::size_t t = 0; t < 36; ++t) {
        EXPECT_LT(lab_test::largest_difference(together.row(t), reference.read(ids[80 + t])), 1e-4);
    }
    for (const int id : std::span(ids).subspan(116)) {
        const matrix logits = model.forward({&id, 1}, cache, 1);
        EXPECT_LT(lab_test::largest_difference(logits.row(0), reference.read(id)), 1e-4);
    }
    EXPECT_EQ(cache.layer(0).rows(0), 40U); // none of the first 80 was kept
    EXPECT_EQ(lab_test::positions_of(cache, 0, 0).front(), 80U);
    EXPECT_EQ(cache.layer(0).rows(1), 120U);
    EXPECT_EQ(lab_test::positions_of(cache, 1, 1).back(), 119U);
}

} // namespace
} // namespace lab
