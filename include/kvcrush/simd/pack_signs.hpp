// SPDX-License-Identifier: Apache-2.0
/// @file
/// Binary codes of rows of floats: one bit per chosen channel, set where the channel is above zero.
/// Signs are read from the bits of the floats, so the denormal mode of the thread does not matter.
/// The vector rungs gather the chosen bits with pext; it is slow on Zen 1 and 2 only.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/isa.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

template <typename Code>
struct pack_signs_args {
    std::span<const float* const> rows;
    std::size_t num_channels;
    /// One bit per channel, (num_channels + 63) / 64 words.
    const std::uint64_t* chosen;
    Code* codes;
    std::size_t words;
};

/// Appends the chosen bits of one 64-channel word after the other.
template <typename Code>
class sign_writer {
public:
    explicit sign_writer(Code* out) noexcept : out_{out} {}

    /// @pre the bits of `bits` from `count` on are 0
    void append(std::uint64_t bits, std::size_t count) noexcept {
        if (count == 0) {
            return;
        }
        word_ |= bits << used_;
        if (used_ + count >= 64) {
            *out_++ = static_cast<Code>(word_);
            word_ = used_ == 0 ? 0 : bits >> (64 - used_);
            used_ += count - 64;
        } else {
            used_ += count;
        }
    }
    void finish() noexcept {
        if (used_ != 0) {
            *out_ = static_cast<Code>(word_);
        }
    }

private:
    Code* out_;
    std::uint64_t word_ = 0;
    std::size_t used_ = 0;
};

/// Above zero, infinity included, NaN not.
[[nodiscard]] constexpr bool is_above_zero(float value) noexcept {
    return std::bit_cast<std::uint32_t>(value) - 1U < 0x7F800000U;
}

template <typename Code>
inline void pack_signs_scalar(const pack_signs_args<Code>& args) noexcept {
    Code* out = args.codes;
    for (const float* const row : args.rows) {
        sign_writer<Code> writer{out};
        for (std::size_t begin = 0; begin < args.num_channels; begin += 64) {
            std::uint64_t bits = 0;
            std::size_t count = 0;
            for (std::uint64_t left = args.chosen[begin / 64]; left != 0; left &= left - 1) {
                const float value = row[begin + static_cast<std::size_t>(std::countr_zero(left))];
                bits |= std::uint64_t{is_above_zero(value)} << count++;
            }
            writer.append(bits, count);
        }
        writer.finish();
        out += args.words;
    }
}

#if KVCRUSH_X86_DISPATCH

template <typename Code>
KVCRUSH_TARGET_AVX2 inline void pack_signs_avx2(const pack_signs_args<Code>& args) noexcept {
    const __m256i zero = _mm256_setzero_si256();
    const __m256i nan = _mm256_set1_epi32(0x7F800001);
    Code* out = args.codes;
    for (const float* const row : args.rows) {
        sign_writer<Code> writer{out};
        for (std::size_t begin = 0; begin < args.num_channels; begin += 64) {
            const std::uint64_t chosen = args.chosen[begin / 64];
            const std::size_t end = (std::min)(args.num_channels, begin + 64);
            std::uint64_t signs = 0;
            std::size_t i = begin;
            for (; i + 8 <= end; i += 8) {
                const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + i));
                const __m256i above =
                    _mm256_and_si256(_mm256_cmpgt_epi32(bits, zero), _mm256_cmpgt_epi32(nan, bits));
                const auto lanes =
                    static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(above)));
                signs |= std::uint64_t{lanes} << (i - begin);
            }
            for (; i < end; ++i) {
                signs |= std::uint64_t{is_above_zero(row[i])} << (i - begin);
            }
            writer.append(_pext_u64(signs, chosen),
                          static_cast<std::size_t>(std::popcount(chosen)));
        }
        writer.finish();
        out += args.words;
    }
}

template <typename Code>
KVCRUSH_TARGET_AVX512 inline void pack_signs_avx512(const pack_signs_args<Code>& args) noexcept {
    const __m512i one = _mm512_set1_epi32(1);
    const __m512i infinity = _mm512_set1_epi32(0x7F800000);
    Code* out = args.codes;
    for (const float* const row : args.rows) {
        sign_writer<Code> writer{out};
        for (std::size_t begin = 0; begin < args.num_channels; begin += 64) {
            const std::uint64_t chosen = args.chosen[begin / 64];
            const std::size_t end = (std::min)(args.num_channels, begin + 64);
            std::uint64_t signs = 0;
            for (std::size_t i = begin; i < end; i += 16) {
                const __mmask16 lanes = first_lanes_avx512(end - i);
                const __m512i bits = _mm512_maskz_loadu_epi32(lanes, row + i);
                const unsigned above =
                    _mm512_cmplt_epu32_mask(_mm512_sub_epi32(bits, one), infinity);
                signs |= std::uint64_t{above} << (i - begin);
            }
            writer.append(_pext_u64(signs, chosen),
                          static_cast<std::size_t>(std::popcount(chosen)));
        }
        writer.finish();
        out += args.words;
    }
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

/// Packs the signs of the chosen channels of each row, in ascending order of the channels.
///
///     bit i of codes[r] = rows[r][the i-th chosen channel] > 0
/// @param[in]  rows          one pointer per row to num_channels floats; NaN gives 0
/// @param[in]  num_channels  floats in a row
/// @param[in]  chosen        a bit per channel, [(num_channels + 63) / 64], none set behind the last channel
/// @param[out] codes         [rows, words_per_code of the number of chosen channels]; unused bits are 0
/// @pre   the chosen channels fit one unit of Code, unless that has 64 bits
template <CodeWord Code>
void pack_signs(std::span<const float* const> rows,
                std::size_t num_channels,
                std::span<const std::uint64_t> chosen,
                std::span<Code> codes,
                isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(chosen.size() == (num_channels + 63) / 64);
    std::size_t num_bits = 0;
    for (const std::uint64_t word : chosen) {
        num_bits += static_cast<std::size_t>(std::popcount(word));
    }
    const std::size_t words = words_per_code<Code>(num_bits);
    KVCRUSH_ASSERT(sizeof(Code) == 8 || num_bits <= std::numeric_limits<Code>::digits);
    KVCRUSH_ASSERT(codes.size() == rows.size() * words);
    if (num_bits == 0) {
        std::fill(codes.begin(), codes.end(), Code{0});
        return;
    }
    const detail::pack_signs_args<Code> args{
        rows, num_channels, chosen.data(), codes.data(), words};
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::pack_signs_avx512(args);
    case isa::avx2: return detail::pack_signs_avx2(args);
#endif
    default: return detail::pack_signs_scalar(args);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
