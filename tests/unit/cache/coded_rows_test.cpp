// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/cache/coded_rows.hpp>
#include <kvcrush/cache/row_store.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/kivi.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/codec/turbo_quant.hpp>
#include <kvcrush/core/random.hpp>

#include "unit/attend/stored_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace kvcrush {
namespace {

using reference::normal_floats;
using indices = std::vector<token_index>;

constexpr std::size_t dim = 64;

/// A codec, and whether its rows lie in tiles.
struct kind {
    std::string name;
    any_codec codec;
    std::optional<tile_role> tiles_of{};

    [[nodiscard]] coded_rows no_rows() const {
        return {
            codec, dim, arithmetic::integer, tiles_of ? codec.tile(*tiles_of, dim) : std::nullopt};
    }
};

std::vector<kind> kinds() {
    std::vector<kind> all{{"f32", dense_codec<float>{}},
                          {"f16", dense_codec<f16>{}},
                          {"int8_row", int8_row_codec{}},
                          {"q8_0", q8_0_codec{}},
                          {"q4_0", q4_0_codec{}},
                          {"turbo_quant", turbo_quant_codec{}},
                          {"kivi_key of 4", kivi_key_codec{.bits = 2, .tokens = 4}},
                          {"kivi_key of 8", kivi_key_codec{.bits = 4, .tokens = 8}}};
    for (const tile_role role : {tile_role::keys, tile_role::values}) {
        for (const std::size_t bits : {2U, 3U, 4U, 5U}) {
            all.push_back({"turbo_quant in tiles", turbo_quant_codec{.bits = bits}, role});
        }
        all.push_back({"int8_row in tiles", int8_row_codec{}, role});
    }
    return all;
}

std::vector<float> decoded(const coded_rows& rows) {
    std::vector<float> out(rows.size() * dim);
    std::vector<float> room(rows.decode_room());
    rows.decode(0, rows.size(), out, room);
    return out;
}

std::vector<float> some_rows(std::span<const float> rows, std::span<const token_index> which) {
    std::vector<float> out;
    for (const token_index i : which) {
        const auto row = rows.subspan(i * dim, dim);
        out.insert(out.end(), row.begin(), row.end());
    }
    return out;
}

indices every(std::size_t step, std::size_t count) {
    indices kept;
    for (std::size_t i = 0; i < count; i += step) {
        kept.push_back(static_cast<token_index>(i));
    }
    return kept;
}

TEST(CodedRows, DecodesToWhatTheCodecMakesOfEachGroup) {
    for (const kind& kind : kinds()) {
        const auto& [name, codec, tiles_of] = kind;
        coded_rows rows = kind.no_rows();
        EXPECT_EQ(rows.size(), 0U);
        const std::vector<float> in = normal_floats(48 * dim, 1);
        ASSERT_TRUE(rows.push(std::span(in).first(16 * dim)));
        ASSERT_TRUE(rows.push(std::span(in).subspan(16 * dim)));
        ASSERT_TRUE(rows.push({}));
        ASSERT_EQ(rows.size(), 48U) << name;
        std::vector<float> wanted(in.size());
        const std::size_t floats = codec.group_size() * dim;
        std::vector<std::byte> bytes(codec.group_bytes(dim));
        for (std::size_t at = 0; at < in.size(); at += floats) {
            ASSERT_TRUE(codec.encode(std::span(in).subspan(at, floats), dim, bytes));
            codec.decode(bytes, dim, std::span(wanted).subspan(at, floats));
        }
        EXPECT_EQ(decoded(rows), wanted) << name;
        std::vector<float> middle(5 * dim);
        std::vector<float> room(rows.decode_room());
        rows.decode(7, 5, middle, room);
        EXPECT_EQ(middle, some_rows(wanted, indices{7, 8, 9, 10, 11})) << name;
    }
}

TEST(CodedRows, KeepsRowsBitForBitThroughAnyNumberOfEvictions) {
    for (const kind& kind : kinds()) {
        const auto& [name, codec, tiles_of] = kind;
        for (std::uint64_t seed = 0; seed < 20; ++seed) {
            coded_rows rows = kind.no_rows();
            std::vector<float> wanted;
            for (std::uint64_t round = 0; round < 4; ++round) {
                const std::vector<float> in = normal_floats(24 * dim, 100 * seed + round);
                ASSERT_TRUE(rows.push(in));
                const std::vector<float> all = decoded(rows);
                ASSERT_EQ(all.size(), wanted.size() + in.size());
                ASSERT_TRUE(std::equal(wanted.begin(), wanted.end(), all.begin()))
                    << name << ", seed " << seed << ", round " << round;
                indices kept;
                for (std::size_t i = 0; i < rows.size(); ++i) {
                    if (random_bits(seed, round, i) % (1 + seed) == 0) {
                        kept.push_back(static_cast<token_index>(i));
                    }
                }
                rows.keep(kept);
                ASSERT_EQ(rows.size(), kept.size()) << name;
                wanted = some_rows(all, kept);
                ASSERT_EQ(decoded(rows), wanted) << name << ", seed " << seed;
                rows.shrink_to_fit();
                ASSERT_EQ(decoded(rows), wanted) << name << ", seed " << seed;
            }
        }
    }
}

TEST(CodedRows, ARefusedRowChangesNothing) {
    for (const kind& kind : kinds()) {
        const auto& [name, codec, tiles_of] = kind;
        for (const bool after_eviction : {false, true}) {
            coded_rows rows = kind.no_rows();
            ASSERT_TRUE(rows.push(normal_floats(16 * dim, 2)));
            if (after_eviction) {
                rows.keep(every(3, 16));
            }
            const std::vector<float> before = decoded(rows);
            std::vector<float> bad = normal_floats(16 * dim, 3);
            bad[bad.size() - 2] = std::numeric_limits<float>::quiet_NaN();
            EXPECT_FALSE(rows.push(bad)) << name;
            EXPECT_EQ(decoded(rows), before) << name;
            // And what comes next finds its place.
            ASSERT_TRUE(rows.push(normal_floats(8 * dim, 4)));
            rows.pop(8);
            EXPECT_EQ(decoded(rows), before) << name;
        }
    }
}

TEST(CodedRows, DropsAGroupWithItsLastRow) {
    const kivi_key_codec codec{.bits = 4, .tokens = 8};
    coded_rows rows(codec, dim);
    ASSERT_TRUE(rows.push(normal_floats(32 * dim, 5)));
    const std::size_t group = codec.group_bytes(dim);
    rows.keep(indices{0, 9, 10, 31});
    rows.shrink_to_fit();
    EXPECT_EQ(rows.bytes_held(), 3 * group + 4 * sizeof(token_index));
    rows.keep(indices{1, 2});
    rows.shrink_to_fit();
    EXPECT_EQ(rows.bytes_held(), group + 2 * sizeof(token_index));
    rows.keep({});
    rows.shrink_to_fit();
    EXPECT_EQ(rows.size(), 0U);
    EXPECT_EQ(rows.bytes_held(), 0U);
    ASSERT_TRUE(rows.push(normal_floats(8 * dim, 6)));
    EXPECT_EQ(rows.size(), 8U);
}

TEST(CodedRows, HoldsNoByteMoreThanItsRowsOnceShrunk) {
    for (const kind& kind : kinds()) {
        const auto& [name, codec, tiles_of] = kind;
        coded_rows rows = kind.no_rows();
        for (std::uint64_t i = 0; i < 6; ++i) {
            ASSERT_TRUE(rows.push(normal_floats(8 * dim, i)));
            EXPECT_GE(rows.bytes_held(), 8 * (i + 1) * codec.group_bytes(dim) / codec.group_size());
        }
        rows.shrink_to_fit();
        EXPECT_EQ(rows.bytes_held(), 48 * codec.group_bytes(dim) / codec.group_size()) << name;
    }
}

TEST(CodedRows, RefusesWhatItsCodecCannotHold) {
    EXPECT_THROW(coded_rows(q4_0_codec{}, 80), std::invalid_argument);
    EXPECT_THROW(coded_rows(kivi_value_codec{}, 80), std::invalid_argument);
    EXPECT_THROW(row_store({int8_row_codec{}, q4_0_codec{}}, 80, 80), std::invalid_argument);
}

TEST(CodecPair, EncodesAsManyRowsAsBothCodecsNeed) {
    EXPECT_EQ((codec_pair{}.group_size()), 1U);
    EXPECT_EQ((codec_pair{kivi_key_codec{.tokens = 32}, kivi_value_codec{}}.group_size()), 32U);
    EXPECT_EQ((codec_pair{kivi_key_codec{.tokens = 8}, kivi_key_codec{.tokens = 12}}.group_size()),
              24U);
    EXPECT_EQ((codec_pair{kivi_key_codec{.tokens = 10}, kivi_key_codec{.tokens = 6}}.group_size()),
              30U);
}

TEST(RowStore, AValueThatIsRefusedTakesItsKeyAlong) {
    row_store store({int8_row_codec{}, dense_codec<f16>{}}, dim, dim);
    ASSERT_TRUE(store.push(normal_floats(dim, 1), normal_floats(dim, 2), indices{7}));
    std::vector<float> bad(dim, 1e5F); // no f16
    EXPECT_FALSE(store.push(normal_floats(dim, 3), bad, indices{8}));
    EXPECT_EQ(store.size(), 1U);
    EXPECT_EQ(store.keys().size(), 1U);
    EXPECT_EQ(store.values().size(), 1U);
    EXPECT_EQ(store.positions().values(), indices{7});
}

TEST(RowStore, PositionsFollowTheirRows) {
    row_store store({kivi_key_codec{.tokens = 4}, kivi_value_codec{}}, dim, dim);
    ASSERT_TRUE(store.push(
        normal_floats(8 * dim, 1), normal_floats(8 * dim, 2), indices{1, 2, 3, 5, 8, 13, 21, 34}));
    const std::vector<float> keys = decoded(store.keys());
    const std::vector<float> values = decoded(store.values());
    const indices kept{0, 4, 7};
    store.keep(kept);
    EXPECT_EQ(store.positions().values(), (indices{1, 8, 34}));
    EXPECT_EQ(decoded(store.keys()), some_rows(keys, kept));
    EXPECT_EQ(decoded(store.values()), some_rows(values, kept));
}

} // namespace
} // namespace kvcrush
