// SPDX-License-Identifier: Apache-2.0
#include <kvcrush/core/random.hpp>
#include <kvcrush/signature/page_signature.hpp>

#include "reference/guarded_buffer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <vector>

namespace kvcrush {
namespace {

template <typename Code>
void expect_joined(std::size_t num_heads, std::size_t page_size, std::size_t num_tokens) {
    constexpr std::size_t code_bits = std::numeric_limits<Code>::digits;
    const std::size_t token_words = simd::words_per_code<Code>(num_heads);
    const std::size_t page_words = words_per_page(num_heads, page_size);
    reference::guarded_buffer<Code> codes(num_tokens * token_words);
    reference::guarded_buffer<std::uint64_t> pages(num_pages_of(num_tokens, page_size) *
                                                   page_words);
    std::vector<std::uint64_t> expected(pages.span().size(), 0);
    for (std::size_t t = 0; t < num_tokens; ++t) {
        for (std::size_t h = 0; h < num_heads; ++h) {
            const std::uint64_t bit = random_bits(num_heads, t, h) & 1U;
            Code& code = codes[t * token_words + h / code_bits];
            code = static_cast<Code>(code | (bit << (h % code_bits)));
            const std::size_t at = t % page_size * num_heads + h;
            expected[t / page_size * page_words + at / 64] |= bit << (at % 64);
        }
    }
    std::fill(pages.span().begin(), pages.span().end(), ~std::uint64_t{0});
    join_pages<Code>(codes.span(), num_heads, page_size, pages.span());
    const std::vector<std::uint64_t> actual(pages.span().begin(), pages.span().end());
    ASSERT_EQ(expected, actual) << num_heads << " heads, pages of " << page_size << ", "
                                << num_tokens << " tokens";
}

TEST(PageSignature, HoldsTokenAfterTokenHeadAfterHead) {
    // Three heads, pages of two tokens: token 0 in bits 0 to 2, token 1 in bits 3 to 5.
    const std::vector<std::uint8_t> codes{0b101, 0b011, 0b110};
    std::vector<std::uint64_t> pages(2);
    join_pages<std::uint8_t>(codes, 3, 2, pages);
    EXPECT_EQ((std::vector<std::uint64_t>{0b011101, 0b000110}), pages);
}

TEST(PageSignature, EqualsTheNaiveLayoutAtEveryWidth) {
    for (const std::size_t page_size : std::initializer_list<std::size_t>{1, 3, 8, 16, 32}) {
        for (const std::size_t tokens :
             std::initializer_list<std::size_t>{0, 1, 15, 16, 17, 63, 64, 65, 200}) {
            for (const std::size_t heads : std::initializer_list<std::size_t>{1, 5, 7, 8}) {
                expect_joined<std::uint8_t>(heads, page_size, tokens);
            }
            for (const std::size_t heads : std::initializer_list<std::size_t>{9, 14, 16}) {
                expect_joined<std::uint16_t>(heads, page_size, tokens);
            }
            for (const std::size_t heads : std::initializer_list<std::size_t>{3, 17, 32}) {
                expect_joined<std::uint32_t>(heads, page_size, tokens);
            }
            for (const std::size_t heads :
                 std::initializer_list<std::size_t>{1, 8, 33, 63, 64, 65, 100, 128}) {
                expect_joined<std::uint64_t>(heads, page_size, tokens);
            }
        }
    }
}

TEST(PageSignature, TakesTheWidestCode) {
    expect_joined<std::uint64_t>(4096, 1, 3);
    expect_joined<std::uint64_t>(256, 16, 33);
    expect_joined<std::uint8_t>(1, 4096, 5000);
    expect_joined<std::uint32_t>(31, 132, 400);
}

TEST(PageSignature, RefusesPagesThatDoNotFit) {
    EXPECT_NO_THROW(require_page_code(8, 16));
    EXPECT_NO_THROW(require_page_code(256, 16));
    EXPECT_THROW(require_page_code(257, 16), std::invalid_argument);
    EXPECT_THROW(require_page_code(0, 16), std::invalid_argument);
    EXPECT_THROW(require_page_code(8, 0), std::invalid_argument);
    EXPECT_THROW(require_page_code(1, 4097), std::invalid_argument);
    EXPECT_THROW(require_page_code(std::numeric_limits<std::size_t>::max(), 2),
                 std::invalid_argument);
}

} // namespace
} // namespace kvcrush
