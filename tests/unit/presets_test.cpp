// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/compressor.hpp>
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

/// @param first_tier  share of the rows that get tier 0
std::size_t bytes_of_rows(const sequence_options& options, std::size_t tokens, double first_tier) {
    kv_sequence layer(options);
    std::vector<float> row(options.num_kv_heads * options.key_dim);
    for (std::size_t t = 0; t < tokens; ++t) {
        for (std::size_t c = 0; c < row.size(); ++c) {
            row[c] = random_unit(3, t, c) - 0.4F;
        }
        EXPECT_TRUE(layer.append(row, row));
    }
    for (std::size_t head = 0; head < options.num_kv_heads; ++head) {
        std::vector<std::uint8_t> tiers(layer.dense_rows(head), 0);
        for (std::size_t t = 0; t < tiers.size(); ++t) {
            tiers[t] = random_unit(4, 0, t) < static_cast<float>(first_tier) ? 0 : 1;
        }
        EXPECT_TRUE(layer.encode(head, tiers));
    }
    layer.shrink_to_fit();
    return layer.bytes_held();
}

TEST_F(Presets, RowsTakeAQuarterOfTheirHalves) {
    constexpr std::size_t tokens = 1000;
    constexpr std::size_t quarter = 2 * 2 * tokens * 64 * sizeof(f16) / 4;
    EXPECT_LE(bytes_of_rows(four_times_rows(2, 64), tokens, 1.0), quarter);
    // kvcrush_auto keeps a few tokens less.
    const std::size_t bytes =
        bytes_of_rows(kvcrush_auto_rows(2, 64), tokens * 97 / 100, kvcrush_auto_first_tier);
    EXPECT_LE(bytes, quarter * 101 / 100);
    EXPECT_GE(bytes, quarter * 98 / 100);
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
