// SPDX-License-Identifier: Apache-2.0
#include "kv_cache.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace {

using lab::cache_type;
using lab::kv_cache;
using lab::layer_cache;

template <typename T>
class LayerCache : public testing::Test {};
using Elements = testing::Types<float, kvcrush::f16>;
TYPED_TEST_SUITE(LayerCache, Elements);

template <typename T>
void append(layer_cache<T>& cache, std::size_t head, std::uint32_t position) {
    std::vector<float> key(cache.head_dim(), static_cast<float>(position));
    const std::vector<float> value(cache.head_dim(), -static_cast<float>(position));
    key[0] = static_cast<float>(head);
    cache.append(head, key, value, position);
}

TYPED_TEST(LayerCache, KeepsRowsOfEachHeadApart) {
    layer_cache<TypeParam> cache(2, 3);
    append(cache, 0, 5);
    append(cache, 1, 6);
    append(cache, 1, 8);
    EXPECT_EQ(cache.rows(0), 1U);
    ASSERT_EQ(cache.rows(1), 2U);
    ASSERT_EQ(cache.keys(1).size(), 6U);
    EXPECT_EQ(kvcrush::to_float(cache.keys(1)[3]), 1.0F);
    EXPECT_EQ(kvcrush::to_float(cache.keys(1)[4]), 8.0F);
    EXPECT_EQ(kvcrush::to_float(cache.values(1)[5]), -8.0F);
    EXPECT_EQ(cache.positions(1)[0], 6U);
    EXPECT_TRUE(cache.hidden(1).empty());
}

TYPED_TEST(LayerCache, KeepFirstGivesMemoryBack) {
    layer_cache<TypeParam> cache(3, 4);
    for (std::uint32_t position = 0; position < 100; ++position) {
        append(cache, 0, position);
        append(cache, 1, position);
    }
    cache.hidden(0).assign(100, 1);
    cache.keep_first(0, 7);
    cache.keep_first(1, 0);
    EXPECT_EQ(cache.bytes_held(), 7 * 4 * 2 * sizeof(TypeParam));
    EXPECT_EQ(cache.position_bytes_held(), 7 * sizeof(std::uint32_t));
    EXPECT_EQ(cache.hidden(0).size(), 7U);
    EXPECT_EQ(cache.rows(0), 7U);
    EXPECT_EQ(kvcrush::to_float(cache.keys(0)[6 * 4 + 1]), 6.0F);
    EXPECT_EQ(cache.rows(1), 0U);
    append(cache, 1, 100); // goes on
    EXPECT_EQ(cache.positions(1)[0], 100U);
    EXPECT_THROW(cache.keep_first(0, 8), lab::input_error);
}

TYPED_TEST(LayerCache, ReservedRowsNeedNoMoreMemory) {
    layer_cache<TypeParam> cache(1, 4);
    cache.reserve(0, 10);
    const std::size_t reserved = cache.bytes_held();
    EXPECT_GE(reserved, 10 * 4 * 2 * sizeof(TypeParam));
    const TypeParam* place = cache.keys(0).data();
    for (std::uint32_t position = 0; position < 10; ++position) {
        append(cache, 0, position);
    }
    EXPECT_EQ(cache.bytes_held(), reserved);
    EXPECT_EQ(cache.keys(0).data(), place);
}

TEST(KvCache, RoundsToItsElementType) {
    const std::vector<float> row = {1.0F + 0x1p-13F};
    layer_cache<kvcrush::f16> half(1, 1);
    half.append(0, row, row, 0);
    EXPECT_EQ(kvcrush::to_float(half.keys(0)[0]), 1.0F);
    layer_cache<float> single(1, 1);
    single.append(0, row, row, 0);
    EXPECT_EQ(single.keys(0)[0], row[0]);
}

TEST(KvCache, CountsTokensSeenNotRows) {
    kv_cache cache(cache_type::f32, 2, 1, 4);
    EXPECT_EQ(cache.type(), cache_type::f32);
    EXPECT_EQ(cache.num_layers(), 2U);
    append(cache.layers<float>()[0], 0, 0);
    cache.advance(1);
    cache.layers<float>()[0].keep_first(0, 0);
    EXPECT_EQ(cache.tokens_seen(), 1U);
    EXPECT_EQ(cache.bytes_held(), 0U);
}

TEST(KvCache, CopiesAreIndependent) {
    kv_cache cache(cache_type::f16, 1, 1, 4);
    append(cache.layers<kvcrush::f16>()[0], 0, 3);
    cache.advance(4);
    kv_cache copy = cache;
    cache.layers<kvcrush::f16>()[0].keep_first(0, 0);
    EXPECT_EQ(copy.type(), cache_type::f16);
    EXPECT_EQ(copy.tokens_seen(), 4U);
    EXPECT_EQ(copy.layers<kvcrush::f16>()[0].rows(0), 1U);
    EXPECT_EQ(copy.bytes_held(), 4 * 2 * sizeof(kvcrush::f16));
}

} // namespace
