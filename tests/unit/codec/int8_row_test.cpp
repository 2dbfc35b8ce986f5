// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/codec/int8_row.hpp>

#include "unit/codec/codec_properties.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <vector>

namespace kvcrush {
namespace {

using reference::decode_group;
using reference::encode_group;

TEST(Int8RowCodec, StoresTheScaleAndThenTheCodes) {
    const std::vector<float> row{254.0F, -127.0F, 2.0F, 1.0F, 3.0F, -5.0F, 0.0F, -254.0F};
    const auto group = encode_group(int8_row_codec{}, row, row.size());
    ASSERT_TRUE(group.stored);
    ASSERT_EQ(group.bytes.size(), 12U);
    float scale = 0.0F;
    std::memcpy(&scale, group.bytes.data(), sizeof scale);
    EXPECT_EQ(scale, 2.0F);
    // 63.5, 0.5, 1.5 and 2.5 go to the even neighbour.
    const int codes[] = {127, -64, 1, 0, 2, -2, 0, -127};
    for (std::size_t i = 0; i < row.size(); ++i) {
        EXPECT_EQ(static_cast<signed char>(group.bytes[4 + i]), codes[i]) << i;
    }
}

TEST(Int8RowCodec, IsAtMostHalfAStepOff) {
    for (const std::size_t dim : std::initializer_list<std::size_t>{1, 2, 7, 15, 33, 80, 255}) {
        for (const auto& [name, row] : reference::kinds_of_rows(dim)) {
            double largest = 0.0;
            for (const float value : row) {
                largest = std::max(largest, std::abs(static_cast<double>(value)));
            }
            const auto group = encode_group(int8_row_codec{}, row, dim);
            ASSERT_TRUE(group.stored);
            const std::vector<float> decoded = decode_group(int8_row_codec{}, group.bytes, dim);
            // Scales below the normal floats have fewer digits.
            const double bound = largest / 254.0 * 1.00001 + 130e-45;
            for (std::size_t i = 0; i < dim; ++i) {
                ASSERT_NEAR(decoded[i], row[i], bound) << name << ", dim " << dim;
            }
        }
    }
}

TEST(Int8RowCodec, TakesVeryLargeFloats) {
    constexpr float huge = 0.999F * std::numeric_limits<float>::max();
    const std::vector<float> row{huge, -huge, 0.5F * huge, 1.0F};
    const auto group = encode_group(int8_row_codec{}, row, 4);
    ASSERT_TRUE(group.stored);
    const std::vector<float> decoded = decode_group(int8_row_codec{}, group.bytes, 4);
    EXPECT_NEAR(decoded[0] / huge, 1.0F, 1e-6F);
    EXPECT_NEAR(decoded[1] / huge, -1.0F, 1e-6F);
    EXPECT_EQ(decoded[3], 0.0F);
}

struct int8_row_case {
    static int8_row_codec codec() { return {}; }
    static bool allows(std::size_t) { return true; }
    static std::size_t bytes(std::size_t dim) { return 4 + dim; }
    // step^2 / 12 with step = largest / 127, and a largest of 128 that is 2.75 on the average.
    static constexpr double gaussian_nmse = 4.0e-5;
    static constexpr double rough_nmse = 1e-4;
};
using cases = testing::Types<int8_row_case>;

} // namespace

namespace reference {
INSTANTIATE_TYPED_TEST_SUITE_P(Int8Row, CodecProperties, cases);
} // namespace reference
} // namespace kvcrush
