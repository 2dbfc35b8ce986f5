// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/select/best_tokens.hpp>

#include "reference/openvino_compat.hpp"
#include "support/cache_data.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <vector>

namespace kvcrush {
namespace {

/// The tokens marked by their score, as a list of bits.
template <typename Score>
reference::counts indicators(const std::vector<Score>& scores) {
    std::vector<std::uint64_t> words(simd::bitmap_words(scores.size()));
    test::owned_scratch memory(detail::mark_best_scratch_bytes<Score>(scores.size()));
    detail::mark_best(
        std::span<const Score>(scores), scores.size() / 2, std::span(words), memory.get());
    reference::counts bits;
    for (std::size_t t = 0; t < scores.size(); ++t) {
        bits.push_back(words[t / 64] >> (t % 64) & 1U);
    }
    return bits;
}

TEST(BestTokens, MarksTheBetterHalf) {
    EXPECT_EQ(indicators(std::vector<double>{8, 1, 2, 9, 1, 1, 6, 7, 3, 2, 5, 4}),
              (reference::counts{1, 0, 0, 1, 0, 0, 1, 1, 0, 0, 1, 1}));
}

TEST(BestTokens, DoublesThatRoundToOneFloatAreToldApart) {
    for (const std::size_t count :
         std::initializer_list<std::size_t>{0, 1, 2, 63, 64, 65, 1000, 5000}) {
        for (const double spread : {0x1p-50, 0x1p-40, 0x1p-24, 0.0, 1e300}) {
            std::vector<double> scores;
            for (std::size_t t = 0; t < count; ++t) {
                scores.push_back(1.0 + spread * static_cast<double>(random_bits(3, count, t) % 97));
            }
            EXPECT_EQ(indicators(scores), reference::indicators(scores)) << count << " " << spread;
        }
    }
}

TEST(BestTokens, DoublesOutsideTheRangeOfFloatsKeepTheirOrder) {
    const double tiny = std::numeric_limits<double>::denorm_min();
    const double inf = std::numeric_limits<double>::infinity();
    EXPECT_EQ(indicators(std::vector<double>{1e300, 1e301, inf, 1e299}),
              (reference::counts{0, 1, 1, 0}));
    EXPECT_EQ(indicators(std::vector<double>{-1e300, -1e301, -inf, -1e299}),
              (reference::counts{1, 0, 0, 1}));
    EXPECT_EQ(indicators(std::vector<double>{0.0, tiny, -tiny, 2 * tiny}),
              (reference::counts{0, 1, 0, 1}));
    EXPECT_EQ(indicators(std::vector<double>{-tiny, -0.0, 0.0, 0.0}),
              (reference::counts{0, 1, 1, 0}));
}

TEST(BestTokens, NanIsTheLowestScore) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double inf = std::numeric_limits<double>::infinity();
    EXPECT_EQ(indicators(std::vector<double>{nan, -inf, nan, 1.0}),
              (reference::counts{0, 1, 0, 1}));
    EXPECT_EQ(indicators(std::vector<double>{nan, nan, nan, -inf}),
              (reference::counts{1, 0, 0, 1}));
}

TEST(BestTokens, KeysOfAnyWidthAreCutWhereASortCutsThem) {
    for (const unsigned shift : {0U, 3U, 20U, 40U, 60U, 63U}) {
        for (const std::size_t count : std::initializer_list<std::size_t>{1, 2, 100, 777}) {
            std::vector<std::uint64_t> keys;
            for (std::size_t i = 0; i < count; ++i) {
                keys.push_back(random_bits(shift, count, i) >> shift);
            }
            for (const std::size_t k :
                 std::initializer_list<std::size_t>{1, count / 2 + 1, count}) {
                std::vector<bool> expected(count, false);
                for (const std::size_t i :
                     reference::first_of(count, k, [&](std::size_t a, std::size_t b) {
                         return keys[a] > keys[b];
                     })) {
                    expected[i] = true;
                }
                const detail::key_cut cut =
                    detail::find_key_cut(count, k, [&](std::size_t i) noexcept { return keys[i]; });
                std::vector<bool> inside;
                for (std::size_t i = 0; i < count; ++i) {
                    inside.push_back(cut.contains(keys[i], i));
                }
                EXPECT_EQ(inside, expected) << shift << " " << count << " " << k;
            }
        }
    }
}

} // namespace
} // namespace kvcrush
