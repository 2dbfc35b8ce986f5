// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/paged_kv_view.hpp>

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

static_assert(PagedKvSource<paged_kv_view<f16>> &&
              PagedKvSource<paged_kv_view<const float, per_head_table>>);
static_assert(std::is_trivially_copyable_v<paged_kv_view<f16>>);

constexpr std::size_t heads = 2;
constexpr std::size_t page_size = 4;
constexpr std::size_t dim = 3;

struct pool_of_four {
    std::vector<float> memory = std::vector<float>(4 * heads * page_size * dim);
    page_pool pool{4,
                   page_size,
                   page_strides::hnd(heads, page_size, dim),
                   page_strides::nhd(heads, page_size, dim)};

    paged_kv_view<float> view(std::span<const page_index> table, std::size_t seq_len) {
        return {memory, memory, pool, shared_table{table}, kv_shape{heads, seq_len, dim, dim}};
    }
};

TEST(PagedKvView, FollowsTheBlockTable) {
    pool_of_four data;
    const std::array<page_index, 2> table{3, 1};
    const auto kv = data.view(table, 6);
    EXPECT_EQ(kv.num_pages(), 2U);
    EXPECT_EQ(kv.key(1, 5).data(), data.memory.data() + ((1 * heads + 1) * page_size + 1) * dim);
    EXPECT_EQ(kv.value(1, 2).data(), data.memory.data() + ((3 * page_size + 2) * heads + 1) * dim);
}

TEST(PagedKvView, EachHeadMayHaveItsOwnTable) {
    std::vector<float> memory(6 * page_size * dim);
    const std::array<page_index, 4> table{0, 5, 2, 4};
    const page_pool pool{6,
                         page_size,
                         page_strides::per_head(page_size, dim),
                         page_strides::per_head(page_size, dim)};
    const paged_kv_view<float, per_head_table> kv(
        memory, memory, pool, {table, heads}, kv_shape{heads, 7, dim, dim});
    EXPECT_EQ(kv.key(1, 6).data(), memory.data() + (4 * page_size + 2) * dim);
    EXPECT_EQ(kv.key(0, 4).data(), memory.data() + 5 * page_size * dim);
}

TEST(PagedKvView, RefusesBadTablesAndPools) {
    pool_of_four data;
    const std::array<page_index, 2> outside{3, 4};
    const std::array<page_index, 2> negative{-1, 0};
    const std::array<page_index, 1> one{0};
    EXPECT_THROW(data.view(outside, 6), std::invalid_argument);
    EXPECT_THROW(data.view(negative, 6), std::invalid_argument);
    EXPECT_THROW(data.view(one, 5), std::invalid_argument);
    EXPECT_NO_THROW(data.view(one, 4));
    data.memory.pop_back();
    EXPECT_THROW(data.view(one, 4), std::invalid_argument);
    data.memory.push_back(0.0F);
    data.pool.page_size = 0;
    EXPECT_THROW(data.view(one, 4), std::invalid_argument);
}

TEST(PagedKvView, RefusesStridesThatWrapAround) {
    pool_of_four data;
    const std::array<page_index, 1> one{0};
    data.pool.key.dim = (std::numeric_limits<std::size_t>::max)();
    EXPECT_THROW(data.view(one, 4), std::invalid_argument);
    const std::size_t huge = (std::size_t{1} << 62) + 1;
    data.pool = {1, huge, page_strides::hnd(heads, huge, dim), page_strides::hnd(heads, huge, dim)};
    EXPECT_THROW(data.view(one, 2), std::invalid_argument);
}

TEST(PagedKvView, TablesPerHeadDivideEvenly) {
    std::vector<float> memory(8 * page_size * dim);
    const std::array<page_index, 7> table{0, 1, 2, 3, 4, 5, 6};
    const page_strides strides = page_strides::per_head(page_size, dim);
    const page_pool pool{8, page_size, strides, strides};
    EXPECT_THROW((paged_kv_view<float, per_head_table>(
                     memory, memory, pool, {table, heads}, kv_shape{heads, 7, dim, dim})),
                 std::invalid_argument);
}

TEST(PagedKvView, SharedPagesNeedAHeadStride) {
    pool_of_four data;
    data.pool.key.head = 0;
    const std::array<page_index, 1> one{0};
    EXPECT_THROW(data.view(one, 4), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
