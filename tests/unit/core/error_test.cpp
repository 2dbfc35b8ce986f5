// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/error.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace kvcrush {
namespace {

template <typename... Parts>
std::string message_of(const Parts&... parts) {
    try {
        detail::require(false, parts...);
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing was thrown";
}

TEST(Require, SaysNothingWhenTheConditionHolds) {
    EXPECT_NO_THROW(detail::require(true, "never seen"));
}

TEST(Require, JoinsTextsOfAllKinds) {
    EXPECT_EQ(
        message_of("a", std::string_view("b"), std::string("c, longer than small strings"), "d"),
        "kvcrush::abc, longer than small stringsd");
}

TEST(Require, WritesIntegersOfEveryWidth) {
    EXPECT_EQ(message_of(std::uint8_t{65}, " ", std::int16_t{-3}, " ", 7, " ", 8U),
              "kvcrush::65 -3 7 8");
    EXPECT_EQ(message_of((std::numeric_limits<std::uint64_t>::max)(),
                         " ",
                         (std::numeric_limits<std::int64_t>::min)()),
              "kvcrush::18446744073709551615 -9223372036854775808");
}

TEST(Require, WritesRealsAsAStreamDoes) {
    for (const double value : {0.0,
                               -0.5,
                               0.1,
                               1.0 / 3.0,
                               1e-5,
                               123456.0,
                               1234567.0,
                               1e30,
                               -1e-300,
                               std::numeric_limits<double>::infinity(),
                               std::numeric_limits<double>::max()}) {
        std::ostringstream stream;
        stream << "kvcrush::" << value;
        EXPECT_EQ(message_of(value), stream.str());
    }
    EXPECT_EQ(message_of(0.1F), "kvcrush::0.1");
}

} // namespace
} // namespace kvcrush
