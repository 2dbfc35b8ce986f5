// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/selection.hpp>

#include "support/cache_data.hpp"

#include <gtest/gtest.h>

namespace kvcrush {
namespace {

TEST(Selection, HoldsOneListPerHead) {
    selection kept;
    EXPECT_EQ(kept.num_kv_heads(), 0U);
    kept.reserve(3, 10);
    kept.extend_range(0, 2);
    kept.extend(1)[0] = 7;
    kept.end_head();
    kept.end_head();
    kept.extend_range(5, 6);
    kept.end_head();
    ASSERT_EQ(kept.num_kv_heads(), 3U);
    EXPECT_EQ(test::list(kept.kept(0)), (std::vector<token_index>{0, 1, 7}));
    EXPECT_TRUE(kept.kept(1).empty());
    EXPECT_EQ(test::list(kept.kept(2)), (std::vector<token_index>{5}));
    EXPECT_EQ(kept.total(), 4U);
    EXPECT_EQ(kept.longest(), 3U);
    kept.clear();
    EXPECT_EQ(kept.num_kv_heads(), 0U);
}

} // namespace
} // namespace kvcrush
