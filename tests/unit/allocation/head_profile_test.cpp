// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/allocation/head_profile.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace kvcrush {
namespace {

std::string message_of(auto&& build) {
    try {
        build();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing was thrown";
}

head_profile load(const std::string& text) {
    std::istringstream in(text);
    return head_profile::load(in);
}

const std::string head = "kvcrush-head-profile 1\nlayers 2 kv_heads 2 samples 7\n";

struct comma : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\3"; }
};

TEST(HeadProfile, ReadsBackTheSameNumbersInAnyLocale) {
    const head_profile profile(
        {2, 3}, {1.0 / 3.0, 0.0, 1e-300, 1e300, 0.1, 12345.678}, {0.3, 2.0}, 123456789);
    std::stringstream stream;
    stream.imbue(std::locale(std::locale::classic(), new comma));
    profile.save(stream);
    EXPECT_EQ(head_profile::load(stream), profile);
    std::stringstream empty;
    head_profile{}.save(empty);
    EXPECT_EQ(head_profile::load(empty), head_profile{});
}

TEST(HeadProfile, ReadsOneProfileAfterTheOther) {
    std::stringstream stream;
    head_profile({1, 1}, {0.5}).save(stream);
    head_profile({1, 2}, {0.25, 0.75}).save(stream);
    EXPECT_EQ(head_profile::load(stream).model(), (model_heads{1, 1}));
    EXPECT_EQ(head_profile::load(stream).head(0, 1), 0.75);
}

TEST(HeadProfile, SaysWhatIsWrongWithAText) {
    const auto message = [](const std::string& text) {
        return message_of([&] { static_cast<void>(load(text)); });
    };
    EXPECT_EQ(message(""),
              "kvcrush::head_profile: the text does not begin with 'kvcrush-head-profile': it is "
              "no profile");
    EXPECT_EQ(message("kvcrush-head-profile 2"),
              "kvcrush::head_profile: version 2 is unknown; this is version 1");
    EXPECT_EQ(message("kvcrush-head-profile 1\nlayer 2"),
              "kvcrush::head_profile: 'layers' is expected, there stands 'layer'");
    EXPECT_EQ(message("kvcrush-head-profile 1\nlayers -2 kv_heads 1 samples 1"),
              "kvcrush::head_profile: layers is not a number: -2");
    EXPECT_EQ(message(head + "1 2 3\n1 2"),
              "kvcrush::head_profile: the importance of a head is missing: the text breaks off");
    EXPECT_EQ(message(head + "1 2 3\n1 2 3x"),
              "kvcrush::head_profile: the importance of a head is not a number: 3x");
    EXPECT_EQ(message(head + "1 2 3\n1 nan 3"),
              "kvcrush::head_profile: the importance of a head is not a number: nan");
    EXPECT_EQ(message(head + "1 2 3\n1 2 -3"),
              "kvcrush::head_profile: the importance of a head is not a number: -3");
    EXPECT_EQ(message(head + "1 2 3\n1 2 1e999"),
              "kvcrush::head_profile: the importance of a head is not a number: 1e999");
    EXPECT_EQ(message("kvcrush-head-profile 1\nlayers 4000000000 kv_heads 4000000000 samples 1"),
              "kvcrush::head_profile: 4000000000 layers of 4000000000 kv heads; no more than "
              "4194304 heads together are allowed");
    EXPECT_EQ(message("kvcrush-head-profile 1\nlayers 99999999999999999999999 kv_heads"),
              "kvcrush::head_profile: layers is not a number: 99999999999999999999999");
    EXPECT_NE(message(std::string(1000000, 'x')), "nothing was thrown");
}

TEST(HeadProfile, RefusesWhatIsNoProfile) {
    const double inf = std::numeric_limits<double>::infinity();
    EXPECT_THROW(head_profile({2, 2}, {1, 2, 3}), std::invalid_argument);
    EXPECT_THROW(head_profile({2, 2}, {1, 2, 3, 4}, {1}), std::invalid_argument);
    EXPECT_THROW(head_profile({1, 2}, {1, -1}), std::invalid_argument);
    EXPECT_THROW(head_profile({1, 2}, {1, inf}), std::invalid_argument);
    EXPECT_THROW(head_profile({1, 2}, {1, 1}, {std::numeric_limits<double>::quiet_NaN()}),
                 std::invalid_argument);
}

TEST(HeadProfile, NamesBothModels) {
    EXPECT_EQ(message_of([] {
                  head_profile({2, 2}, {1, 2, 3, 4}).require_made_for({30, 3});
              }),
              "kvcrush::head_profile: made for 2 layers of 2 kv heads; the model has 30 layers of "
              "3");
}

TEST(HeadProfile, Merges) {
    head_profile mean({1, 2}, {1.0, 0.0}, {1.0}, 1);
    mean.merge_mean(head_profile({1, 2}, {0.0, 4.0}, {2.0}, 3));
    EXPECT_EQ(mean, head_profile({1, 2}, {0.25, 3.0}, {1.75}, 4));
    head_profile largest({1, 2}, {1.0, 0.0}, {1.0}, 1);
    largest.merge_max(head_profile({1, 2}, {0.0, 4.0}, {2.0}, 3));
    EXPECT_EQ(largest, head_profile({1, 2}, {1.0, 4.0}, {2.0}, 4));
    EXPECT_THROW(largest.merge_max(head_profile({2, 1}, {1, 2})), std::invalid_argument);
    EXPECT_THROW(largest.merge_mean(head_profile({2, 1}, {1, 2})), std::invalid_argument);
}

TEST(HeadProfile, RefusesTextThatBreaksOffAnywhere) {
    const head_profile profile({2, 3}, {.25, .5, .75, 0, 1, .125}, {1, 1.5}, 4096);
    std::ostringstream out;
    profile.save(out);
    const std::string text = out.str();
    for (std::size_t length = 0; length < text.size(); ++length) {
        std::istringstream in(text.substr(0, length));
        EXPECT_THROW(static_cast<void>(head_profile::load(in)), std::invalid_argument)
            << length << " of " << text.size();
    }
    std::istringstream whole(text);
    EXPECT_EQ(head_profile::load(whole), profile);
}

TEST(HeadProfile, RefusesWordsThatNoNumberFills) {
    std::istringstream in("kvcrush-head-profile 1\nlayers 1 kv_heads 2 samples 3\n1 0." +
                          std::string(70, '3') + " 0.5\n");
    EXPECT_THROW(static_cast<void>(head_profile::load(in)), std::invalid_argument);
}

} // namespace
} // namespace kvcrush
