// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
#include <kvcrush/cache/kv_cache.hpp>
#include <kvcrush/presets.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

namespace kvcrush {
namespace {

class Presets : public testing::Test {
protected:
    template <typename Preset>
    selection run(const Preset& form) {
        compressor crush(form.scorer, form.selector, form.allocator);
        crush.plan({shape_, num_q_heads}, form.tokens);
        return crush.select(kv_view<float>(keys_, keys_, shape_),
                            query_view(queries_, num_q_heads, num_queries, shape_.key_dim));
    }

    void SetUp() override {
        for (std::size_t i = 0; i < keys_.size(); ++i) {
            keys_[i] = random_unit(1, 0, i) - 0.5F;
        }
        for (std::size_t i = 0; i < queries_.size(); ++i) {
            queries_[i] = 6.0F * (random_unit(1, 1, i) - 0.5F);
        }
    }

    static constexpr std::size_t num_q_heads = 4;
    static constexpr std::size_t num_queries = 256;
    const kv_shape shape_{2, 1600, 8, 8};
    std::vector<float> keys_ = std::vector<float>(2 * 1600 * 8);
    std::vector<float> queries_ = std::vector<float>(num_q_heads * num_queries * 8);
};

/// The units of `size` tokens behind 32 sinks of which a head keeps any token; all of them must be whole.
std::set<std::size_t> whole_units(std::span<const token_index> kept, std::size_t size) {
    std::set<std::size_t> units;
    std::size_t tokens = 0;
    for (const token_index token : kept) {
        if (token >= 32 && token < 1600 - 128) {
            units.insert((token - 32) / size);
            ++tokens;
        }
    }
    EXPECT_EQ(tokens, units.size() * size);
    return units;
}

TEST_F(Presets, TokensKeepAShareOfTheSequence) {
    EXPECT_EQ(run(kvcrush_tokens(0.25)).kept(0).size(), 400U);
}

TEST_F(Presets, PagesKeepTwentyOfThem) {
    const selection kept = run(kvcrush_vllm_pages());
    for (std::size_t head = 0; head < 2; ++head) {
        EXPECT_EQ(kept.kept(head).size(), 480U);
        EXPECT_EQ(whole_units(kept.kept(head), 16).size(), 20U);
    }
    EXPECT_NE(test::list(kept.kept(0)), test::list(kept.kept(1))) << "each head has its own pages";
}

TEST_F(Presets, GroupsKeepSixteenOfThemInAllHeads) {
    const selection kept = run(kvcrush_contrib_groups());
    EXPECT_EQ(kept.kept(0).size(), 672U);
    EXPECT_EQ(whole_units(kept.kept(0), 32).size(), 16U);
    EXPECT_EQ(test::list(kept.kept(0)), test::list(kept.kept(1)));
}

/// Bytes that a recipe holds of 1000 tokens, over those in f16.
double share_of_bytes(const recipe& how) {
    constexpr std::size_t tokens = 1000;
    const model_shape model{.num_layers = 1, .num_q_heads = 4, .num_kv_heads = 2, .head_dim = 64};
    kv_cache cache(model, how);
    const auto draw = [](std::size_t count, std::uint64_t stream) {
        std::vector<float> row(count);
        for (std::size_t i = 0; i < count; ++i) {
            row[i] = random_unit(3, stream, i) - 0.4F;
        }
        return row;
    };
    const std::vector<float> rows = draw(tokens * 2 * 64, 0);
    EXPECT_TRUE(cache.append(0, rows, rows));
    cache.observe(0, draw(tokens * 4 * 64, 1));
    cache.compress();
    return static_cast<double>(cache.bytes_held()) / (2 * 2 * tokens * 64 * sizeof(f16));
}

TEST_F(Presets, RowsTakeTheBytesOfTheirNames) {
    EXPECT_LE(share_of_bytes(four_times()), 1.0 / 4);
    EXPECT_LE(share_of_bytes(eight_times()), 1.0 / 8);
    EXPECT_LE(share_of_bytes(sixteen_times()), 1.0 / 16);
    EXPECT_GE(share_of_bytes(four_times()), 0.98 / 4);
    EXPECT_GE(share_of_bytes(eight_times()), 0.98 / 8);
    EXPECT_GE(share_of_bytes(sixteen_times()), 0.98 / 16);
    EXPECT_LE(share_of_bytes(kvcrush_auto_bytes(0.2)), 0.2);
    EXPECT_GE(share_of_bytes(kvcrush_auto_bytes(0.2)), 0.19);
    EXPECT_LE(share_of_bytes(kvcrush_auto(0.25)), 0.2515); // positions
}

TEST_F(Presets, AutoGivesHeadsWhatTheyNeedAndNoMoreInAll) {
    for (std::size_t i = 0; i < keys_.size() / 2; ++i) {
        keys_[i] *= 20.0F; // the first head looks at few tokens
    }
    const selection kept = run(kvcrush_auto(0.25));
    EXPECT_EQ(kept.kept(0).size() + kept.kept(1).size(), 800U);
    EXPECT_NE(kept.kept(0).size(), kept.kept(1).size());
}

} // namespace
} // namespace kvcrush
