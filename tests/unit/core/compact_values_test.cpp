// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/compact_values.hpp>
#include <kvcrush/core/types.hpp>

#include <gtest/gtest.h>

#include <span>
#include <vector>

namespace kvcrush {
namespace {

TEST(CompactValues, MoveWithTheRows) {
    std::vector<int> positions{10, 11, 12, 13, 14};
    const std::vector<token_index> kept{0, 3, 4};
    compact_values(std::span(positions), std::span(kept));
    positions.resize(3);
    EXPECT_EQ(positions, (std::vector<int>{10, 13, 14}));
}

} // namespace
} // namespace kvcrush
