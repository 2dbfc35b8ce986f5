// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/math/principal_direction.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <new>
#include <vector>

namespace kvcrush {
namespace {

TEST(PrincipalDirection, FindsTheLargestEigenvalue) {
    // Eigenvalues 3 along (1, 1) and 1 along (1, -1).
    const std::vector<double> v = principal_direction(std::vector<double>{2, 1, 1, 2}, 2);
    EXPECT_NEAR(std::abs(v[0]), std::sqrt(0.5), 1e-12);
    EXPECT_NEAR(v[0], v[1], 1e-12);
    EXPECT_EQ(principal_direction(std::vector<double>{4}, 1), std::vector<double>{1});
}

TEST(PrincipalDirection, TellsEigenvaluesApartThatAreNearlyEqual) {
    const std::vector<double> v =
        principal_direction(std::vector<double>{1, 0, 0, 0, 1 + 1e-9, 0, 0, 0, 0.5}, 3);
    EXPECT_NEAR(v[1], 1.0, 1e-12);
    EXPECT_NEAR(v[0], 0.0, 1e-12);
}

TEST(PrincipalDirection, EqualEigenvaluesGiveSomeDirection) {
    const std::vector<double> v = principal_direction(std::vector<double>{1, 0, 0, 1}, 2);
    EXPECT_NEAR(std::hypot(v[0], v[1]), 1.0, 1e-12);
}

TEST(PrincipalDirection, ScalesDoNotMatter) {
    for (const double scale : {1e-200, 1e200}) {
        const std::vector<double> v =
            principal_direction(std::vector<double>{2 * scale, 0, 0, scale}, 2);
        EXPECT_NEAR(std::abs(v[0]), 1.0, 1e-12);
    }
}

TEST(PrincipalDirection, ReadsWhatIsNotAboveTheDiagonalAndNeedsNoAlignment) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    std::vector<std::byte> memory(4 * sizeof(double) + 64);
    for (std::size_t shift = 0; shift < 64; shift += alignof(double)) {
        auto* const moments = ::new (memory.data() + shift) double[4]{2, nan, 1, 2};
        const std::vector<double> v = principal_direction({moments, 4}, 2);
        EXPECT_NEAR(std::abs(v[0]), std::sqrt(0.5), 1e-12);
        EXPECT_NEAR(v[0], v[1], 1e-12);
    }
}

TEST(PrincipalDirection, NothingGivesZeros) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    EXPECT_EQ(principal_direction(std::vector<double>(4, 0.0), 2), std::vector<double>(2, 0.0));
    EXPECT_EQ(principal_direction(std::vector<double>{1, nan, nan, 1}, 2),
              std::vector<double>(2, 0.0));
    EXPECT_TRUE(principal_direction({}, 0).empty());
}

} // namespace
} // namespace kvcrush
