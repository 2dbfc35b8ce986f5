// SPDX-License-Identifier: Apache-2.0
/// @file
/// The portrait of a page: the codes of its tokens, one behind the other.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/simd/code_word.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>

namespace kvcrush {
inline namespace v0 {

/// The longest code whose distances fit the kernels [bits].
inline constexpr std::size_t max_page_code_bits = 4096;

/// Checks once what join_pages relies on.
/// @throws std::invalid_argument if page_size or num_heads is 0, or if their product exceeds 4096
inline void require_page_code(std::size_t num_heads, std::size_t page_size) {
    detail::require(page_size >= 1 && page_size <= max_page_code_bits,
                    "page_signature: page_size is ",
                    page_size,
                    "; it must lie in [1, ",
                    max_page_code_bits,
                    "]");
    detail::require(num_heads >= 1 && num_heads <= max_page_code_bits / page_size,
                    "page_signature: num_heads is ",
                    num_heads,
                    "; pages of ",
                    page_size,
                    " tokens hold 1 to ",
                    max_page_code_bits / page_size,
                    " heads");
}

/// Pages that `num_tokens` tokens begin.
/// @pre page_size > 0
[[nodiscard]] constexpr std::size_t num_pages_of(std::size_t num_tokens,
                                                 std::size_t page_size) noexcept {
    return num_tokens / page_size + (num_tokens % page_size != 0 ? 1 : 0);
}

/// Words of the code of one page.
[[nodiscard]] constexpr std::size_t words_per_page(std::size_t num_heads,
                                                   std::size_t page_size) noexcept {
    return simd::words_per_code<std::uint64_t>(num_heads * page_size);
}

namespace detail {

/// Appends runs of bits to a row of words.
class bit_writer {
public:
    constexpr explicit bit_writer(std::uint64_t* out) noexcept : out_(out) {}

    /// @pre 0 < count <= 64; the bits of `bits` from `count` on are 0
    constexpr void append(std::uint64_t bits, std::size_t count) noexcept {
        word_ |= bits << used_;
        if (used_ + count >= 64) {
            *out_++ = word_;
            word_ = used_ == 0 ? 0 : bits >> (64 - used_);
            used_ += count - 64;
        } else {
            used_ += count;
        }
    }

    /// Writes the begun word, and zeros up to `end`.
    constexpr void finish(std::uint64_t* end) noexcept {
        if (used_ != 0) {
            *out_++ = word_;
        }
        std::fill(out_, end, std::uint64_t{0});
    }

private:
    std::uint64_t* out_;
    std::uint64_t word_ = 0;
    std::size_t used_ = 0;
};

} // namespace detail

/// Joins the codes of the tokens of each page.
///
///     bit slot * num_heads + head of page p = bit head of token p * page_size + slot
/// @param[in]  codes  [num_tokens, words_per_code], bits from num_heads on are 0, as head_packer leaves them
/// @param[out] out    [num_pages_of(num_tokens, page_size), words_per_page]; slots without a token and bits behind
///                    the last slot are 0
/// @pre   require_page_code(num_heads, page_size) holds; num_heads <= bits of Code, unless those are 64
/// @note  O(words); a copy where the codes have no unused bits (8, 16, 32 heads, multiples of 64)
/// @see   KVCrush, arXiv:2503.00022; the layout is that of the authors' vLLM code, token-major and head-minor
template <simd::CodeWord Code>
void join_pages(std::span<const Code> codes,
                std::size_t num_heads,
                std::size_t page_size,
                std::span<std::uint64_t> out) noexcept {
    constexpr std::size_t code_bits = std::numeric_limits<Code>::digits;
    KVCRUSH_ASSERT(num_heads > 0 && page_size > 0 && num_heads * page_size <= max_page_code_bits);
    KVCRUSH_ASSERT(code_bits == 64 || num_heads <= code_bits);
    const std::size_t token_words = simd::words_per_code<Code>(num_heads);
    const std::size_t page_words = words_per_page(num_heads, page_size);
    const std::size_t num_tokens = codes.size() / token_words;
    KVCRUSH_ASSERT(codes.size() % token_words == 0);
    KVCRUSH_ASSERT(out.size() == num_pages_of(num_tokens, page_size) * page_words);

    const bool no_gaps = std::endian::native == std::endian::little && num_heads % code_bits == 0;
    if (no_gaps && num_heads * page_size % 64 == 0) {
        if (codes.empty()) {
            return;
        }
        auto* const bytes = reinterpret_cast<unsigned char*>(out.data());
        std::memcpy(bytes, codes.data(), codes.size_bytes());
        std::memset(bytes + codes.size_bytes(), 0, out.size_bytes() - codes.size_bytes());
        return;
    }
    const Code* code = codes.data();
    std::uint64_t* page = out.data();
    for (std::size_t token = 0; token < num_tokens; token += page_size, page += page_words) {
        detail::bit_writer writer(page);
        const std::size_t num_slots = (std::min)(page_size, num_tokens - token);
        for (std::size_t slot = 0; slot < num_slots; ++slot) {
            for (std::size_t head = 0; head < num_heads; head += code_bits) {
                writer.append(*code++, (std::min)(code_bits, num_heads - head));
            }
        }
        writer.finish(page + page_words);
    }
}

} // namespace v0
} // namespace kvcrush
