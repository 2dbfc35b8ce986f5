// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/cache/sequence.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/hadamard.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/kivi.hpp>
#include <kvcrush/codec/mean_centred.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/codec/turbo_quant.hpp>
#include <kvcrush/compressor.hpp>
#include <kvcrush/core/kv_view.hpp>
#include <kvcrush/core/random.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/select/top_k.hpp>

#include "reference/attention.hpp"
#include "unit/attend/stored_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace kvcrush {
namespace {

using reference::normal_floats;
using indices = std::vector<token_index>;

constexpr std::size_t num_heads = 3;
constexpr std::size_t key_dim = 64;
constexpr std::size_t value_dim = 128;

constexpr layer_extent extent{
    .num_kv_heads = num_heads, .key_dim = key_dim, .value_dim = value_dim};

row_storage options(std::vector<storage_tier> tiers, std::size_t window = 16) {
    return {.sinks = {q8_0_codec{}, q8_0_codec{}}, .tiers = std::move(tiers), .window = window};
}

std::vector<std::pair<std::string, std::vector<storage_tier>>> tier_lists() {
    const turbo_quant_codec turbo{};
    return {
        {"dense alone", {}},
        {"f16", {{dense_codec<f16>{}, dense_codec<f16>{}}}},
        {"int8_row", {{int8_row_codec{}, int8_row_codec{}}}},
        {"q8_0 and q4_0", {{q8_0_codec{}, q4_0_codec{}}}},
        {"hadamard(q4_0)",
         {{hadamard_codec<q4_0_codec>{}, hadamard_codec<q4_0_codec>{.signs = true}}}},
        {"turbo_quant", {{turbo, turbo_quant_codec{.bits = 3}}}},
        {"mean_centred(turbo_quant)", {{mean_centred_codec<turbo_quant_codec>{}, turbo}}},
        {"mean_centred(int8_row)", {{mean_centred_codec<int8_row_codec>{}, int8_row_codec{}}}},
        {"two tiers",
         {{int8_row_codec{}, int8_row_codec{}},
          {mean_centred_codec<turbo_quant_codec>{}, q4_0_codec{}}}},
        {"kivi", {{kivi_key_codec{.bits = 4, .tokens = 8}, kivi_value_codec{}}}},
        {"kivi, then q4_0",
         {{kivi_key_codec{.bits = 2, .tokens = 4}, kivi_value_codec{.bits = 2}},
          {q4_0_codec{}, q4_0_codec{}}}},
        {"mean_centred(kivi)",
         {{mean_centred_codec<kivi_key_codec>{.inner = {.bits = 2, .tokens = 8}},
           kivi_value_codec{}}}},
    };
}

/// Keys of all heads of a token; their channels have means.
std::vector<float> keys_of(std::uint64_t token) {
    std::vector<float> keys = normal_floats(num_heads * key_dim, 2 * token);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        keys[i] += i % 7 == 0 ? 2.0F : 0.25F;
    }
    return keys;
}
std::vector<float> values_of(std::uint64_t token) {
    return normal_floats(num_heads * value_dim, 2 * token + 1);
}

void append(kv_sequence& layer, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t token = layer.tokens_seen();
        ASSERT_TRUE(layer.append(keys_of(token), values_of(token)));
    }
}

indices positions(const kv_sequence& layer, std::size_t head) {
    indices rows;
    for (const row_store& store : layer.heads()[head].stores()) {
        const indices own = store.positions().values();
        rows.insert(rows.end(), own.begin(), own.end());
    }
    return rows;
}

/// rows[i] is the row of the i-th oldest token.
indices reading_order(const kv_sequence& layer, std::size_t head) {
    indices rows;
    for (const stored_head::place& place : layer.heads()[head].by_age()) {
        rows.push_back(place.row);
    }
    return rows;
}

/// All rows by age.
reference::rows_of_head decoded(const kv_sequence& layer, std::size_t head) {
    const stored_head& from = layer.heads()[head];
    reference::rows_of_head rows;
    rows.count = layer.rows(head);
    rows.keys.resize(rows.count * key_dim);
    rows.values.resize(rows.count * value_dim);
    std::vector<float> room(from.read_room());
    std::size_t i = 0;
    for (const token_index row : reading_order(layer, head)) {
        from.read_key(row, std::span(rows.keys).subspan(i * key_dim, key_dim), room);
        from.read_value(row, std::span(rows.values).subspan(i * value_dim, value_dim), room);
        ++i;
    }
    return rows;
}

/// All that can be seen of a sequence from outside.
struct content {
    std::size_t tokens_seen = 0;
    std::vector<indices> places;
    std::vector<std::vector<std::size_t>> sizes;
    std::vector<std::vector<std::byte>> bytes;
    std::vector<std::vector<float>> rows;
    friend bool operator==(const content&, const content&) = default;
};

content content_of(const kv_sequence& layer) {
    content all;
    all.tokens_seen = layer.tokens_seen();
    for (std::size_t head = 0; head < num_heads; ++head) {
        all.places.push_back(positions(layer, head));
        all.sizes.emplace_back();
        for (const row_store& store : layer.heads()[head].stores()) {
            all.sizes.back().push_back(store.size());
            for (const coded_rows* rows : {&store.keys(), &store.values()}) {
                EXPECT_EQ(rows->size(), store.size());
                const stored_rows tiles = rows->rows(true);
                all.bytes.emplace_back(tiles.data,
                                       tiles.data +
                                           rows->num_tiled() / code_tile::num_rows * tiles.stride);
                const stored_rows stored = rows->rows(false);
                std::size_t groups = 0;
                for (std::size_t i = 0; i < rows->size() - rows->num_tiled(); ++i) {
                    const std::size_t row = stored.index == nullptr ? i : stored.index[i];
                    groups = std::max(groups, row / rows->codec().group_size() + 1);
                }
                all.bytes.emplace_back(stored.data, stored.data + groups * stored.stride);
            }
        }
        const reference::rows_of_head rows = decoded(layer, head);
        all.rows.push_back(rows.keys);
        all.rows.push_back(rows.values);
    }
    return all;
}

/// Keeps about one row of `part`, another choice per head.
selection some_of(const kv_sequence& layer, std::uint64_t seed, std::uint64_t part) {
    const std::size_t heads = num_heads;
    selection kept;
    std::size_t total = 0;
    for (std::size_t head = 0; head < heads; ++head) {
        total += layer.rows(head);
    }
    kept.reserve(heads, total);
    for (std::size_t head = 0; head < heads; ++head) {
        for (std::size_t i = 0; i < layer.rows(head); ++i) {
            if (random_bits(seed, head, i) % (part + head) == 0) {
                kept.extend(1)[0] = static_cast<token_index>(i);
            }
        }
        kept.end_head();
    }
    return kept;
}

selection nothing(std::size_t heads) {
    selection kept;
    kept.reserve(heads, 0);
    for (std::size_t head = 0; head < heads; ++head) {
        kept.end_head();
    }
    return kept;
}

std::vector<float> attended(kv_sequence& layer, std::size_t group, std::size_t num_queries = 1) {
    const std::size_t heads = group * num_heads;
    const std::size_t dim = key_dim;
    const std::vector<float> queries = normal_floats(heads * num_queries * dim, 4711);
    std::vector<float> output(heads * num_queries * value_dim, -7.0F);
    layer.attend(query_view(queries, heads, num_queries, dim), output);
    return output;
}

void expect_exact(kv_sequence& layer,
                  const std::string& what,
                  std::size_t group = 2,
                  std::size_t num_queries = 1) {
    const std::size_t heads = group * num_heads;
    std::vector<reference::rows_of_head> rows;
    for (std::size_t head = 0; head < num_heads; ++head) {
        rows.push_back(decoded(layer, head));
    }
    const std::vector<float> queries = normal_floats(heads * num_queries * key_dim, 4711);
    const reference::attention_result wanted =
        reference::attention_over_rows(queries,
                                       rows,
                                       heads,
                                       num_queries,
                                       key_dim,
                                       value_dim,
                                       1.0 / std::sqrt(static_cast<double>(key_dim)));
    const std::vector<float> found = attended(layer, group, num_queries);
    for (std::size_t i = 0; i < found.size(); ++i) {
        ASSERT_NEAR(
            static_cast<double>(found[i]), wanted.output[i], 1e-5 * wanted.magnitude[i] + 1e-30)
            << what << ", element " << i;
    }
}

TEST(KvSequence, AttendsToWhatItDecodesToAtEveryStage) {
    for (const auto& [name, tiers] : tier_lists()) {
        for (const std::size_t group : std::initializer_list<std::size_t>{1, 3}) {
            kv_sequence layer(extent, options(tiers));
            expect_exact(layer, name + ", empty", group);
            append(layer, 1);
            expect_exact(layer, name + ", one token", group);
            append(layer, 80);
            expect_exact(layer, name + ", dense", group);
            ASSERT_TRUE(layer.flush());
            expect_exact(layer, name + ", encoded", group);
            append(layer, 10);
            ASSERT_TRUE(layer.flush(3));
            append(layer, 2);
            expect_exact(layer, name + ", encoded again", group);
            expect_exact(layer, name + ", three queries", group, 3);
            layer.evict(some_of(layer, 1, 2));
            expect_exact(layer, name + ", evicted", group);
            append(layer, 30);
            ASSERT_TRUE(layer.flush(0));
            expect_exact(layer, name + ", all encoded", group);
            layer.evict(some_of(layer, 2, 3));
            append(layer, 1);
            expect_exact(layer, name + ", evicted again", group);
            layer.evict(nothing(num_heads));
            expect_exact(layer, name + ", nothing left", group);
            append(layer, 40);
            ASSERT_TRUE(layer.flush());
            expect_exact(layer, name + ", begun anew", group);
            EXPECT_EQ(layer.tokens_seen(), 164U);
        }
    }
}

TEST(KvSequence, AttendsInIntegersWhereItIsToldTo) {
    const storage_tier rows{mean_centred_codec<turbo_quant_codec>{}, turbo_quant_codec{.bits = 3}};
    kv_sequence exact(extent, options({rows}));
    row_storage how = options({rows});
    how.attention = arithmetic::integer;
    kv_sequence in_integers(extent, how);
    for (kv_sequence* layer : {&exact, &in_integers}) {
        append(*layer, 300);
        ASSERT_TRUE(layer->flush());
    }
    const std::vector<float> wanted = attended(exact, 3);
    const std::vector<float> found = attended(in_integers, 3);
    // As in the tests of attention: 8 bits for queries, centroids and weights.
    for (std::size_t i = 0; i < found.size(); ++i) {
        ASSERT_NEAR(found[i], wanted[i], 4e-2F) << "element " << i;
    }
    EXPECT_EQ(found != wanted, simd::best() != simd::isa::scalar);
}

TEST(KvSequence, AttendsToRowsOfAllTiersAndToHeadsOfDifferentLengths) {
    for (const auto& [name, tiers] : tier_lists()) {
        if (tiers.empty()) {
            continue;
        }
        kv_sequence layer(extent, options(tiers));
        append(layer, 100);
        for (std::size_t head = 0; head < num_heads; ++head) {
            std::vector<std::uint8_t> tier_of(80);
            for (std::size_t i = 0; i < tier_of.size(); ++i) {
                tier_of[i] = static_cast<std::uint8_t>(random_bits(3, head, i) % tiers.size());
            }
            ASSERT_TRUE(layer.encode(head, tier_of));
        }
        expect_exact(layer, name);
        selection kept; // all, one and none
        kept.reserve(num_heads, 102);
        kept.extend_range(0, 100);
        kept.end_head();
        kept.extend_range(50, 51);
        kept.end_head();
        kept.end_head();
        layer.evict(kept);
        EXPECT_EQ(layer.rows(0), 100U);
        EXPECT_EQ(positions(layer, 1), indices{50});
        EXPECT_EQ(layer.rows(2), 0U);
        expect_exact(layer, name + ", ragged");
        const std::vector<float> output = attended(layer, 1);
        for (std::size_t c = 0; c < value_dim; ++c) {
            EXPECT_EQ(output[2 * value_dim + c], 0.0F) << "a head without rows";
        }
    }
}

TEST(KvSequence, FlushedAtOnceOrTokenByTokenTheBytesAreTheSame) {
    for (const auto& [name, tiers] : tier_lists()) {
        for (const std::size_t window : std::initializer_list<std::size_t>{0, 5, 16}) {
            kv_sequence at_once(extent, options(tiers, window));
            kv_sequence by_token(extent, options(tiers, window));
            if (at_once.storage().centres_keys()) { // then the first flush fixes the mean
                append(at_once, 40);
                append(by_token, 40);
                ASSERT_TRUE(at_once.flush());
                ASSERT_TRUE(by_token.flush());
            }
            for (std::size_t i = 0; i < 91; ++i) {
                append(at_once, 1);
                append(by_token, 1);
                ASSERT_TRUE(by_token.flush());
            }
            ASSERT_TRUE(at_once.flush());
            EXPECT_EQ(content_of(at_once), content_of(by_token)) << name << ", window " << window;
        }
    }
}

TEST(KvSequence, EvictionLeavesTheRowsThatStayBitForBit) {
    for (const auto& [name, tiers] : tier_lists()) {
        kv_sequence layer(extent, options(tiers));
        append(layer, 90);
        ASSERT_TRUE(layer.flush());
        for (std::uint64_t seed = 0; seed < 3; ++seed) {
            const selection kept = some_of(layer, seed, 2);
            const auto rows_by_position = [&layer](std::size_t head) {
                std::map<token_index, std::vector<float>> rows;
                const reference::rows_of_head all = decoded(layer, head);
                indices sorted = positions(layer, head);
                std::sort(sorted.begin(), sorted.end());
                for (std::size_t i = 0; i < sorted.size(); ++i) {
                    std::vector<float>& row = rows[sorted[i]];
                    row.assign(all.keys.begin() + static_cast<std::ptrdiff_t>(i * key_dim),
                               all.keys.begin() + static_cast<std::ptrdiff_t>((i + 1) * key_dim));
                    row.insert(row.end(),
                               all.values.begin() + static_cast<std::ptrdiff_t>(i * value_dim),
                               all.values.begin() +
                                   static_cast<std::ptrdiff_t>((i + 1) * value_dim));
                }
                return rows;
            };
            std::vector<std::map<token_index, std::vector<float>>> expected;
            for (std::size_t head = 0; head < num_heads; ++head) {
                const auto all = rows_by_position(head);
                indices sorted = positions(layer, head);
                std::sort(sorted.begin(), sorted.end());
                expected.emplace_back();
                for (const token_index i : kept.kept(head)) {
                    expected.back()[sorted[i]] = all.at(sorted[i]);
                }
            }
            layer.evict(kept);
            for (std::size_t head = 0; head < num_heads; ++head) {
                EXPECT_EQ(layer.rows(head), kept.kept(head).size());
                EXPECT_EQ(rows_by_position(head), expected[head]) << name << ", head " << head;
            }
            append(layer, 20);
            ASSERT_TRUE(layer.flush());
        }
        const content before = content_of(layer);
        layer.evict(selection{});
        EXPECT_EQ(content_of(layer), before) << "a selection without heads changes nothing";
    }
}

TEST(KvSequence, ReadsRowsInTheOrderOfTheirTokens) {
    kv_sequence layer(
        extent, options({{int8_row_codec{}, int8_row_codec{}}, {q4_0_codec{}, q4_0_codec{}}}));
    append(layer, 10);
    EXPECT_EQ(reading_order(layer, 0), (indices{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
    ASSERT_TRUE(layer.encode(0, std::vector<std::uint8_t>{1, 1, 0, 0, 1, 0, 1, 0}));
    EXPECT_EQ(positions(layer, 0), (indices{0, 1, 2, 3, 5, 7, 4, 6, 8, 9}));
    EXPECT_EQ(reading_order(layer, 0), (indices{0, 1, 2, 3, 6, 4, 7, 5, 8, 9}));
    EXPECT_EQ(layer.dense_rows(0), 2U);
    EXPECT_EQ(layer.dense_rows(1), 10U);
    // Each row still tells its token.
    const reference::rows_of_head rows = decoded(layer, 0);
    for (std::size_t t = 0; t < 10; ++t) {
        const std::vector<float> keys = keys_of(t);
        for (std::size_t c = 0; c < key_dim; ++c) {
            EXPECT_NEAR(rows.keys[t * key_dim + c], keys[c], 0.35F) << t;
        }
    }
}

TEST(KvSequence, NanAndInfinityInAnyHeadChangeNothing) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    for (const auto& [name, tiers] : tier_lists()) {
        kv_sequence layer(extent, options(tiers));
        append(layer, 50);
        ASSERT_TRUE(layer.flush());
        const content before = content_of(layer);
        for (const float bad : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity}) {
            for (std::size_t head = 0; head < num_heads; ++head) {
                std::vector<float> keys = keys_of(50);
                std::vector<float> values = values_of(50);
                keys[head * key_dim + 5] = bad;
                EXPECT_FALSE(layer.append(keys, values)) << name << ", head " << head;
                keys = keys_of(50);
                values[(head + 1) * value_dim - 1] = bad;
                EXPECT_FALSE(layer.append(keys, values)) << name << ", head " << head;
            }
        }
        EXPECT_EQ(content_of(layer), before) << name;
        append(layer, 3);
        EXPECT_EQ(layer.tokens_seen(), 53U);
        EXPECT_EQ(positions(layer, 2).back(), 52U);
        // Not even before the first token.
        kv_sequence fresh(extent, options(tiers));
        EXPECT_FALSE(fresh.append(std::vector<float>(num_heads * key_dim, infinity), values_of(0)));
        EXPECT_EQ(fresh.tokens_seen(), 0U);
        EXPECT_EQ(content_of(fresh), content_of(kv_sequence(extent, options(tiers))));
    }
}

TEST(KvSequence, RowsThatATierCannotHoldStayInTheWindow) {
    row_storage how =
        options({{q8_0_codec{}, q8_0_codec{}},
                 {mean_centred_codec<kivi_key_codec>{.inner = {.tokens = 4}}, kivi_value_codec{}}},
                2);
    how.dense = {dense_codec<float>{}, dense_codec<float>{}};
    for (const bool in_keys : {false, true}) {
        kv_sequence layer(extent, how);
        for (std::size_t token = 0; token < 40; ++token) {
            std::vector<float> keys = keys_of(token);
            std::vector<float> values = values_of(token);
            if (token == 25) { // too large for an f16, in head 1
                (in_keys ? keys[key_dim] : values[value_dim]) = 4e7F;
            }
            ASSERT_TRUE(layer.append(keys, values));
        }
        const content before = content_of(layer);
        std::vector<std::uint8_t> tier_of(36, 1);
        std::fill_n(tier_of.begin(), 12, std::uint8_t{0});
        EXPECT_FALSE(layer.encode(1, tier_of));
        EXPECT_EQ(content_of(layer), before);
        EXPECT_TRUE(layer.encode(0, tier_of));
        EXPECT_TRUE(layer.encode(2, tier_of));
        EXPECT_EQ(layer.dense_rows(1), 40U);
        EXPECT_EQ(layer.dense_rows(0), 4U);
        // Once the row is evicted, the others can go.
        selection kept;
        kept.reserve(num_heads, 120);
        kept.extend_range(0, 40);
        kept.end_head();
        kept.extend_range(0, 25);
        kept.extend_range(26, 40);
        kept.end_head();
        kept.extend_range(0, 40);
        kept.end_head();
        layer.evict(kept);
        tier_of.pop_back();
        EXPECT_TRUE(layer.encode(1, tier_of));
        expect_exact(layer, "after eviction");
    }
}

TEST(KvSequence, ACopyIsASnapshot) {
    for (const auto& [name, tiers] : tier_lists()) {
        kv_sequence layer(extent, options(tiers));
        append(layer, 70);
        ASSERT_TRUE(layer.flush());
        const std::vector<float> wanted = attended(layer, 2);
        const content before = content_of(layer);
        kv_sequence copy(layer);
        layer.evict(some_of(layer, 5, 2));
        append(layer, 60);
        ASSERT_TRUE(layer.flush(0));
        expect_exact(layer, name);
        EXPECT_EQ(content_of(copy), before) << name;
        EXPECT_EQ(attended(copy, 2), wanted) << name;
        layer = copy;
        EXPECT_EQ(attended(layer, 2), wanted) << name;
        {
            const kv_sequence dropped(std::move(copy));
            EXPECT_EQ(content_of(dropped), before) << name;
        }
        EXPECT_EQ(attended(layer, 2), wanted) << name;
    }
}

TEST(KvSequence, HoldsTheBytesOfItsRowsOnceShrunk) {
    for (const auto& [name, tiers] : tier_lists()) {
        kv_sequence layer(extent, options(tiers));
        EXPECT_EQ(layer.bytes_held(), 0U);
        append(layer, 200);
        ASSERT_TRUE(layer.flush());
        layer.shrink_to_fit();
        std::size_t wanted = 0;
        for (std::size_t head = 0; head < num_heads; ++head) {
            for (const row_store& store : layer.heads()[head].stores()) {
                for (const coded_rows* rows : {&store.keys(), &store.values()}) {
                    wanted += rows->size() / rows->codec().group_size() *
                              rows->codec().group_bytes(rows->dim());
                }
                wanted += store.positions().bytes_held();
                EXPECT_LE(store.positions().bytes_held(), 4 * sizeof(std::uint64_t));
            }
            wanted += layer.storage().centres_keys() ? key_dim * sizeof(float) : 0;
        }
        EXPECT_EQ(layer.bytes_held(), wanted) << name;
        const std::size_t full = layer.bytes_held();
        selection kept;
        kept.reserve(num_heads, 3 * 24);
        for (std::size_t head = 0; head < num_heads; ++head) {
            kept.extend_range(0, 24);
            kept.end_head();
        }
        layer.evict(kept); // gives memory back by itself
        EXPECT_LT(layer.bytes_held(), full / 3) << name;
        layer.evict(nothing(num_heads));
        EXPECT_LE(layer.bytes_held(), num_heads * key_dim * sizeof(float)) << name;
    }
}

TEST(KvSequence, AGroupWaitsUntilItIsFull) {
    kv_sequence layer(extent,
                      options({{kivi_key_codec{.tokens = 32}, kivi_value_codec{}}}, /*window=*/10));
    append(layer, 4 + 10 + 31);
    ASSERT_TRUE(layer.flush());
    EXPECT_EQ(layer.dense_rows(0), 41U); // the sinks have left
    append(layer, 1);
    ASSERT_TRUE(layer.flush());
    EXPECT_EQ(layer.dense_rows(0), 10U);
    EXPECT_EQ(layer.heads()[0].stores()[1].size(), 32U);
    append(layer, 31);
    ASSERT_TRUE(layer.flush(0)); // no window at all: 9 are left over
    EXPECT_EQ(layer.dense_rows(0), 9U);
    EXPECT_EQ(layer.heads()[0].stores()[1].size(), 64U);
}

TEST(KvSequence, ARowThatWaitedFindsItsPlaceInTheTierItIsToldLater) {
    // Row 5 waits for a group, 6 goes to the other tier, and then 5 is told to go there as well.
    kv_sequence layer(extent,
                      options({{int8_row_codec{}, int8_row_codec{}},
                               {kivi_key_codec{.tokens = 4}, kivi_value_codec{}}},
                              0));
    append(layer, 10);
    ASSERT_TRUE(layer.encode(0, std::vector<std::uint8_t>{0, 0, 0, 0, 0, 1, 0, 1}));
    EXPECT_EQ(positions(layer, 0), (indices{0, 1, 2, 3, 4, 6, 5, 7, 8, 9}));
    EXPECT_EQ(layer.dense_rows(0), 4U);
    append(layer, 10);
    ASSERT_TRUE(layer.flush());
    for (std::size_t head = 0; head < num_heads; ++head) {
        const indices order = reading_order(layer, head);
        const indices rows = positions(layer, head);
        for (std::size_t t = 0; t < 20; ++t) {
            EXPECT_EQ(rows[order[t]], t);
        }
        const reference::rows_of_head all = decoded(layer, head);
        for (std::size_t t = 0; t < 20; ++t) {
            const std::vector<float> keys = keys_of(t);
            for (std::size_t c = 0; c < key_dim; ++c) {
                ASSERT_NEAR(all.keys[t * key_dim + c], keys[head * key_dim + c], 0.35F)
                    << "head " << head << ", token " << t;
            }
        }
        EXPECT_EQ(layer.dense_rows(head), 0U); // rows find their place among older and younger ones
    }
    expect_exact(layer, "after waiting");
}

TEST(KvSequence, SinksAndDenseRowsAreNeverCentred) {
    const mean_centred_codec<int8_row_codec> centred{};
    row_storage how = options({{centred, int8_row_codec{}}}, 2);
    how.sinks = {centred, int8_row_codec{}};
    how.dense = {mean_centred_codec<dense_codec<float>>{}, dense_codec<float>{}};
    kv_sequence layer(extent, how);
    for (std::size_t i = 0; i < 40; ++i) {
        append(layer, 1);
        ASSERT_TRUE(layer.flush()); // the first ones meet sinks alone, and there is no mean yet
    }
    expect_exact(layer, "centred");
    const reference::rows_of_head rows = decoded(layer, 1);
    for (std::size_t t = 0; t < 40; ++t) {
        const std::vector<float> keys = keys_of(t);
        for (std::size_t c = 0; c < key_dim; ++c) {
            ASSERT_NEAR(rows.keys[t * key_dim + c], keys[key_dim + c], 0.05F) << t;
        }
    }
}

TEST(KvSequence, TakesRowsOfOneHeadWithGapsBetweenTheirPositions) {
    kv_sequence layer(extent, options({{int8_row_codec{}, q4_0_codec{}}}, 1));
    for (const token_index position : {0U, 2U, 3U, 70U, 71U, 500U}) {
        ASSERT_TRUE(layer.append_row(1,
                                     std::span<const float>(keys_of(position)).first(key_dim),
                                     std::span<const float>(values_of(position)).first(value_dim),
                                     position));
    }
    EXPECT_EQ(layer.tokens_seen(), 501U);
    ASSERT_TRUE(layer.flush());
    EXPECT_EQ(layer.heads()[1].stores()[0].positions().values(), (indices{0, 2, 3}));
    EXPECT_EQ(layer.heads()[1].stores()[1].positions().values(), (indices{70, 71}));
    EXPECT_EQ(layer.heads()[1].stores()[2].positions().values(), (indices{500}));
    append(layer, 1);
    EXPECT_EQ(layer.rows(0), 1U);
    EXPECT_EQ(positions(layer, 0), indices{501});
    expect_exact(layer, "gaps");
}

TEST(KvSequence, APolicyOfTheLibraryEvicts) {
    for (const auto& [name, tiers] : tier_lists()) {
        kv_sequence layer(extent, options(tiers));
        append(layer, 100);
        ASSERT_TRUE(layer.flush());
        std::vector<float> keys;
        std::vector<float> values;
        for (std::size_t head = 0; head < num_heads; ++head) {
            const reference::rows_of_head rows = decoded(layer, head);
            keys.insert(keys.end(), rows.keys.begin(), rows.keys.end());
            values.insert(values.end(), rows.values.begin(), rows.values.end());
        }
        const kv_view<float> kv(keys,
                                values,
                                {.num_kv_heads = num_heads,
                                 .seq_len = 100,
                                 .key_dim = key_dim,
                                 .value_dim = value_dim});
        compressor crush(knorm_scorer{}, top_k_selector{});
        crush.plan({kv.shape(), num_heads}, budget::tokens(45));
        const selection& kept = crush.select(kv);
        layer.evict(kept);
        for (std::size_t head = 0; head < num_heads; ++head) {
            indices rows = positions(layer, head);
            std::sort(rows.begin(), rows.end());
            const auto wanted = kept.kept(head);
            EXPECT_EQ(rows, indices(wanted.begin(), wanted.end())) << name;
            EXPECT_EQ(rows.size(), 45U);
        }
        expect_exact(layer, name);
        append(layer, 20);
        ASSERT_TRUE(layer.flush());
        expect_exact(layer, name);
    }
}

TEST(KvSequence, SaysWhatIsWrongWithItsOptions) {
    EXPECT_THROW(kv_sequence(layer_extent{}), std::invalid_argument);
    EXPECT_THROW(kv_sequence({4, std::size_t{1} << 62U, 32}), std::invalid_argument);
    row_storage how = options({{q4_0_codec{}, q4_0_codec{}}});
    EXPECT_THROW(kv_sequence({num_heads, 80, value_dim}, how), std::invalid_argument);
    how = options({});
    how.sinks = {kivi_key_codec{}, kivi_value_codec{}};
    EXPECT_THROW(kv_sequence(extent, how), std::invalid_argument);
    how = options({});
    how.dense.values = kivi_key_codec{};
    EXPECT_THROW(kv_sequence(extent, how), std::invalid_argument);
    how = options(std::vector<storage_tier>(65, storage_tier{.share = 0.01}));
    EXPECT_THROW(kv_sequence(extent, how), std::invalid_argument);
    how = options({{.share = 0.7}, {.share = 0.7}, {}});
    EXPECT_THROW(kv_sequence(extent, how), std::invalid_argument);
    how = options({{.share = 0.0}, {}});
    EXPECT_THROW(kv_sequence(extent, how), std::invalid_argument);
}

TEST(KvSequence, AHeadThatCannotBeEncodedDoesNotHoldTheOthersUp) {
    row_storage how = options({{q8_0_codec{}, q8_0_codec{}}}, 2);
    how.dense = {dense_codec<float>{}, dense_codec<float>{}};
    kv_sequence layer(extent, how);
    for (std::size_t token = 0; token < 40; ++token) {
        std::vector<float> keys = keys_of(token);
        if (token == 25) {
            keys[0] = 4e7F; // head 0
        }
        ASSERT_TRUE(layer.append(keys, values_of(token)));
    }
    EXPECT_FALSE(layer.flush());
    EXPECT_EQ(layer.dense_rows(0), 40U);
    EXPECT_EQ(layer.dense_rows(1), 2U);
    EXPECT_EQ(layer.dense_rows(2), 2U);
}

/// Calls that hand over something of another size: each must throw, and change nothing.
TEST(KvSequence, RefusesWhatDoesNotFitInEveryBuild) {
    kv_sequence layer(extent, options({{int8_row_codec{}, int8_row_codec{}}}));
    append(layer, 50);
    ASSERT_TRUE(layer.flush());
    const content before = content_of(layer);
    const std::vector<float> floats(100 * num_heads * value_dim, 0.5F);
    const std::span<const float> all(floats);
    const auto refuses = [](const auto& call) { EXPECT_THROW(call(), std::invalid_argument); };
    const auto append_some = [&](std::size_t keys, std::size_t values) {
        refuses([&] { static_cast<void>(layer.append(all.first(keys), all.first(values))); });
    };
    append_some(num_heads * key_dim / 2, num_heads * value_dim / 2); // half a token
    append_some(num_heads * key_dim, 2 * num_heads * value_dim);
    append_some(num_heads * key_dim + 1, num_heads * value_dim);
    const auto append_row = [&](std::size_t head, std::size_t dim, token_index position) {
        refuses([&] {
            static_cast<void>(
                layer.append_row(head, all.first(dim), all.first(value_dim), position));
        });
    };
    append_row(num_heads, key_dim, 50);
    append_row(0, key_dim - 1, 50);
    append_row(0, key_dim, 49); // that token is there
    append_row(0, key_dim, (std::numeric_limits<token_index>::max)());
    selection far; // a row that is not there
    far.reserve(num_heads, 3);
    for (std::size_t head = 0; head < num_heads; ++head) {
        far.extend(1)[0] = 50;
        far.end_head();
    }
    refuses([&] { layer.evict(far); });
    selection descending;
    descending.reserve(num_heads, 6);
    selection twice;
    twice.reserve(num_heads, 6);
    for (std::size_t head = 0; head < num_heads; ++head) {
        descending.extend(2)[0] = 4000000000U;
        descending.end_head();
        std::ranges::fill(twice.extend(2), token_index{0});
        twice.end_head();
    }
    refuses([&] { layer.evict(descending); });
    refuses([&] { layer.evict(twice); });
    refuses([&] { layer.evict(nothing(num_heads + 1)); });
    refuses([&] { static_cast<void>(layer.encode(0, std::vector<std::uint8_t>(17, 0))); });
    refuses([&] { static_cast<void>(layer.encode(0, std::vector<std::uint8_t>(1, 1))); });
    refuses([&] { static_cast<void>(layer.encode(num_heads, std::vector<std::uint8_t>(1, 0))); });
    refuses([&] { static_cast<void>(layer.store(0, std::vector<std::uint8_t>(49, 0))); });
    refuses([&] { layer.set_storage({}); });
    std::vector<float> output(num_heads * 2 * value_dim);
    const auto attend =
        [&](std::size_t heads, std::size_t queries, std::size_t dim, std::size_t size) {
            refuses([&] {
                layer.attend(query_view(floats, heads, queries, dim),
                             std::span(output).first(size));
            });
        };
    attend(num_heads, 1, key_dim / 2, num_heads * value_dim); // another head_dim
    attend(num_heads, 1, 4 * key_dim, num_heads * value_dim);
    attend(num_heads + 1, 1, key_dim, output.size()); // heads that do not divide
    attend(num_heads, 1, key_dim, num_heads * value_dim - 1);
    attend(num_heads, 2, key_dim, num_heads * value_dim);
    attend(num_heads, 20, key_dim, output.size()); // rows of queries are encoded already
    EXPECT_EQ(content_of(layer), before);
}

TEST(KvSequence, TwoRowsFarApartTakeFewBytes) {
    kv_sequence layer({.num_kv_heads = 1, .key_dim = 2, .value_dim = 2});
    const std::vector<float> row{1.0F, 2.0F};
    ASSERT_TRUE(layer.append_row(0, row, row, 0));
    ASSERT_TRUE(layer.append_row(0, row, row, 4'294'967'294U));
    EXPECT_LT(layer.bytes_held(), 4096U);
    EXPECT_EQ(positions(layer, 0), (indices{0, 4'294'967'294U}));
    EXPECT_THROW(static_cast<void>(layer.append(row, row)), std::invalid_argument);
}

TEST(KvSequence, RowsMoveToLessPreciseTiersOnlyAndTheOthersStayBitForBit) {
    const mean_centred_codec<turbo_quant_codec> fine{{.bits = 5}};
    const mean_centred_codec<turbo_quant_codec> coarse{{.bits = 3}};
    kv_sequence layer(
        extent,
        options({{fine, turbo_quant_codec{.bits = 5}, 0.5}, {coarse, turbo_quant_codec{.bits = 3}}},
                0));
    append(layer, 100);
    std::vector<std::uint8_t> first(100);
    for (std::size_t i = 0; i < first.size(); ++i) {
        first[i] = static_cast<std::uint8_t>(i % 2);
    }
    for (std::size_t head = 0; head < num_heads; ++head) {
        ASSERT_TRUE(layer.store(head, first));
    }
    const std::vector<reference::rows_of_head> before{
        decoded(layer, 0), decoded(layer, 1), decoded(layer, 2)};
    append(layer, 20);
    // Every fourth row goes down, odd ones are asked up, the new ones are shared out.
    std::vector<std::uint8_t> next(120);
    for (std::size_t i = 0; i < next.size(); ++i) {
        next[i] = static_cast<std::uint8_t>(i < 100 ? (i % 4 == 0 ? 1 : 0) : i % 2);
    }
    for (std::size_t head = 0; head < num_heads; ++head) {
        ASSERT_TRUE(layer.store(head, next));
        EXPECT_EQ(layer.dense_rows(head), 0U);
        EXPECT_EQ(layer.heads()[head].stores()[0].size(), 4U);
        EXPECT_EQ(layer.heads()[head].stores()[1].size(), 24U + 10U); // 6, 10, ..., 98 and new ones
        const indices order = reading_order(layer, head);
        const indices places = positions(layer, head);
        const reference::rows_of_head rows = decoded(layer, head);
        for (std::size_t t = 0; t < 120; ++t) {
            EXPECT_EQ(places[order[t]], t);
            for (std::size_t c = 0; c < key_dim && t < 100; ++c) {
                const float now = rows.keys[t * key_dim + c];
                const float then = before[head].keys[t * key_dim + c];
                if (t % 4 != 0 || t < 4) {
                    ASSERT_EQ(now, then) << "row " << t << " was encoded again";
                } else {
                    ASSERT_NEAR(now, then, 1.5F) << t;
                }
            }
        }
    }
    expect_exact(layer, "after the second round");
}

} // namespace
} // namespace kvcrush
