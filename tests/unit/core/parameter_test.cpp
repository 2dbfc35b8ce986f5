// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/policy_text.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace kvcrush {
namespace {

struct two_numbers {
    static constexpr std::string_view name = "two_numbers";
    std::size_t first = 1;
    double second = 0.5;
    static constexpr auto parameters() {
        return parameter_list{parameter{"first", &two_numbers::first, "a count"},
                              parameter{"second", &two_numbers::second, "a share"}};
    }
    void validate() const {}
};

struct nothing {
    static constexpr std::string_view name = "nothing";
    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}
};

TEST(ParameterList, IsVisitedInOrder) {
    std::vector<std::string> seen;
    two_numbers::parameters().visit([&](const auto& row) { seen.emplace_back(row.name); });
    nothing::parameters().visit([&](const auto& row) { seen.emplace_back(row.name); });
    EXPECT_EQ(seen, (std::vector<std::string>{"first", "second"}));
}

TEST(ParameterList, IsWrittenWhereItDiffersFromTheDefaults) {
    EXPECT_EQ(policy_text(two_numbers{}), "two_numbers");
    EXPECT_EQ(policy_text(two_numbers{.second = 0.25}), "two_numbers(second=0.25)");
    EXPECT_EQ(policy_text(two_numbers{.first = 3, .second = 2.0}), "two_numbers(first=3,second=2)");
    EXPECT_EQ(policy_text(nothing{}), "nothing");
}

} // namespace
} // namespace kvcrush
