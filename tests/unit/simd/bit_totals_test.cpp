// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/bit_totals.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <initializer_list>
#include <vector>

namespace kvcrush {
namespace {

template <typename Code>
void compare_with_counting(std::size_t num_codes, std::size_t words) {
    std::vector<Code> codes(num_codes * words);
    for (std::size_t i = 0; i < codes.size(); ++i) {
        // Bit 0 nearly always: its counters are the first to be full.
        codes[i] = static_cast<Code>(random_bits(4, 0, i) | (i % 300 == 7 ? 0U : 1U));
    }
    for (std::size_t word = 0; word < words; ++word) {
        const auto totals = simd::bit_totals(std::span<const Code>(codes), word, words);
        for (std::size_t bit = 0; bit < totals.size(); ++bit) {
            std::uint32_t expected = 0;
            for (std::size_t i = word; i < codes.size(); i += words) {
                expected += static_cast<std::uint32_t>(std::uint64_t{codes[i]} >> bit & 1U);
            }
            ASSERT_EQ(totals[bit], expected) << "bit " << bit << " of word " << word << ", "
                                             << num_codes << " codes of " << words << " words";
        }
    }
}

TEST(BitTotals, CountEveryBitOfEveryWidth) {
    for (const std::size_t num_codes :
         std::initializer_list<std::size_t>{0, 1, 2, 254, 255, 256, 511, 1000}) {
        compare_with_counting<std::uint8_t>(num_codes, 1);
        compare_with_counting<std::uint16_t>(num_codes, 1);
        compare_with_counting<std::uint32_t>(num_codes, 1);
        compare_with_counting<std::uint64_t>(num_codes, 1);
        compare_with_counting<std::uint64_t>(num_codes, 5);
    }
}

} // namespace
} // namespace kvcrush
