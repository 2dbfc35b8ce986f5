// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/simd/hamming.hpp>

#include "../../reference/guarded_buffer.hpp"
#include "../../reference/hamming.hpp"
#include "every_rung.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

namespace {

namespace simd = kvcrush::simd;

static_assert(simd::CodeWord<std::uint8_t> && simd::CodeWord<std::uint64_t>);
static_assert(!simd::CodeWord<int> && !simd::CodeWord<bool> && !simd::CodeWord<const std::uint8_t>);
static_assert(simd::Distance<std::uint16_t> && !simd::Distance<std::uint32_t>);
static_assert(noexcept(simd::hamming_many<std::uint8_t, std::uint8_t>({}, {}, {})));

constexpr std::array<std::size_t, 26> sizes{0,  1,   2,   3,   5,   7,   8,   9,   11,
                                            15, 16,  17,  31,  32,  33,  63,  64,  65,
                                            95, 100, 127, 128, 129, 255, 260, 1000};

template <typename Out>
void expect_reference(std::span<const unsigned> expected,
                      std::span<const Out> actual,
                      const char* what,
                      std::size_t bits) {
    constexpr unsigned limit = static_cast<Out>(~Out{0});
    for (std::size_t i = 0; i < expected.size(); ++i) {
        ASSERT_EQ((std::min)(expected[i], limit), actual[i])
            << what << ", " << bits << " bits, code " << i << " of " << expected.size();
    }
}

/// Codes whose bits above `bits` are zero, as packing leaves them, ending at an unreadable page.
template <typename Code, typename Out>
void compare_with_reference(std::size_t bits, std::size_t num_codes, simd::isa rung) {
    constexpr std::size_t unit = 8 * sizeof(Code);
    const std::size_t words = (bits + unit - 1) / unit;
    const std::uint64_t seed = bits * 10007 + num_codes;
    kvcrush::reference::guarded_buffer<Code> query(words);
    kvcrush::reference::guarded_buffer<Code> codes(words * num_codes);
    kvcrush::reference::guarded_buffer<Out> out(num_codes);
    for (std::size_t i = 0; i < words * (num_codes + 1); ++i) {
        const std::size_t last_bits = bits - (words - 1) * unit;
        const std::uint64_t used =
            i % words + 1 == words && last_bits < 64 ? (1ULL << last_bits) - 1 : ~0ULL;
        // One code in four is the complement of the query or the query itself: the largest and
        // smallest distance.
        const std::size_t row = i / words;
        std::uint64_t value = kvcrush::random_bits(seed, row, i % words);
        if (row % 4 == 3) {
            value = row % 8 == 3 ? query[i % words] : ~std::uint64_t{query[i % words]};
        }
        const auto code = static_cast<Code>(value & used);
        (row == 0 ? query[i] : codes[i - words]) = code;
    }
    const auto expected =
        kvcrush::reference::hamming_many<Code>(query.span(), codes.span(), num_codes);
    simd::hamming_many<Code, Out>(query.span(), codes.span(), out.span(), rung);
    expect_reference<Out>(expected, out.span(), "guarded", bits);
}

class Hamming : public kvcrush::reference::every_rung {};

TEST_P(Hamming, EqualsTheReferenceForCodesOfOneUnit) {
    for (const std::size_t n : sizes) {
        for (const std::size_t bits : std::initializer_list<std::size_t>{1U, 3U, 7U, 8U}) {
            compare_with_reference<std::uint8_t, std::uint8_t>(bits, n, rung());
            compare_with_reference<std::uint8_t, std::uint16_t>(bits, n, rung());
        }
        for (const std::size_t bits : std::initializer_list<std::size_t>{9U, 12U, 16U}) {
            compare_with_reference<std::uint16_t, std::uint8_t>(bits, n, rung());
            compare_with_reference<std::uint16_t, std::uint16_t>(bits, n, rung());
        }
        for (const std::size_t bits : std::initializer_list<std::size_t>{17U, 24U, 32U}) {
            compare_with_reference<std::uint32_t, std::uint8_t>(bits, n, rung());
            compare_with_reference<std::uint32_t, std::uint16_t>(bits, n, rung());
        }
        for (const std::size_t bits : std::initializer_list<std::size_t>{33U, 40U, 64U}) {
            compare_with_reference<std::uint64_t, std::uint8_t>(bits, n, rung());
            compare_with_reference<std::uint64_t, std::uint16_t>(bits, n, rung());
        }
    }
}

TEST_P(Hamming, EqualsTheReferenceAtEveryWidth) {
    std::vector<std::size_t> widths;
    for (std::size_t bits = 1; bits <= 130; ++bits) {
        widths.push_back(bits);
    }
    for (std::size_t words = 3; words <= 64; ++words) { // ragged and whole last words
        widths.push_back(64 * words - 63 + words % 62);
        widths.push_back(64 * words);
    }
    for (const std::size_t bits : widths) {
        for (const std::size_t n : std::initializer_list<std::size_t>{1U, 7U, 8U, 9U, 33U}) {
            compare_with_reference<std::uint64_t, std::uint8_t>(bits, n, rung());
            compare_with_reference<std::uint64_t, std::uint16_t>(bits, n, rung());
        }
    }
}

TEST_P(Hamming, EqualsTheReferenceAtEverySize) {
    for (const std::size_t bits :
         std::initializer_list<std::size_t>{64U, 128U, 192U, 256U, 320U, 512U, 1024U}) {
        for (const std::size_t n : sizes) {
            compare_with_reference<std::uint64_t, std::uint8_t>(bits, n, rung());
            compare_with_reference<std::uint64_t, std::uint16_t>(bits, n, rung());
        }
    }
}

TEST_P(Hamming, SaturatesBytesAt255) {
    for (const std::size_t words : std::initializer_list<std::size_t>{3U, 4U, 5U, 8U, 16U, 64U}) {
        const std::vector<std::uint64_t> query(words, 0);
        std::vector<std::uint64_t> codes(words * 9, ~std::uint64_t{0});
        std::fill_n(codes.begin(),
                    words,
                    std::uint64_t{0}); // code 0: distance 255 where the width allows it
        for (std::size_t bit = 0; bit < (std::min)(std::size_t{255}, 64 * words); ++bit) {
            codes[bit / 64] |= std::uint64_t{1} << (bit % 64);
        }
        std::vector<std::uint8_t> bytes(9);
        std::vector<std::uint16_t> shorts(9);
        simd::hamming_many<std::uint64_t, std::uint8_t>(query, codes, bytes, rung());
        simd::hamming_many<std::uint64_t, std::uint16_t>(query, codes, shorts, rung());
        EXPECT_EQ((std::min)(std::size_t{255}, 64 * words), bytes[0]);
        EXPECT_EQ((std::min)(std::size_t{255}, 64 * words), bytes[8]);
        EXPECT_EQ(64 * words, shorts[8]);
    }
}

TEST_P(Hamming, CodesWithoutWordsHaveDistanceZero) {
    std::vector<std::uint16_t> out(9, 77);
    simd::hamming_many<std::uint64_t, std::uint16_t>({}, {}, out, rung());
    EXPECT_EQ(std::vector<std::uint16_t>(9, 0), out);
}

TEST_P(Hamming, WritesOnlyItsOutput) {
    for (const std::size_t n : sizes) {
        const std::vector<std::uint64_t> query(2, 0);
        const std::vector<std::uint64_t> codes(2 * n, ~std::uint64_t{0});
        std::vector<std::uint8_t> out(n + 64, 7);
        simd::hamming_many<std::uint64_t, std::uint8_t>(
            query, codes, std::span(out).first(n), rung());
        EXPECT_EQ(static_cast<std::ptrdiff_t>(n), std::count(out.begin(), out.end(), 128));
        EXPECT_EQ(64, std::count(out.begin(), out.end(), 7));
    }
}

KVCRUSH_ON_EVERY_RUNG(Hamming);

} // namespace
