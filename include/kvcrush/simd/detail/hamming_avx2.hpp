// SPDX-License-Identifier: Apache-2.0
/// @file
/// Hamming distances with AVX2. Codes of up to 64 bits: popcount of nibbles by vpshufb, summed per
/// code by vpmaddubsw, vpmaddwd or vpsadbw. Wider codes: hardware popcnt, until vpshufb pays again
/// (max_popcnt_words). No overflow: a distance is at most 4096, a sum of bytes at most 128.
/// @see Mula, Kurz, Lemire, "Faster population counts using AVX2 instructions", arXiv:1611.07612
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/hamming_scalar.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// The popcount of each byte of codes ^ query, 32 bytes.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i count_bytes(const void* codes,
                                                                      __m256i query) noexcept {
    const __m256i table = _mm256_setr_epi8(0,
                                           1,
                                           1,
                                           2,
                                           1,
                                           2,
                                           2,
                                           3,
                                           1,
                                           2,
                                           2,
                                           3,
                                           2,
                                           3,
                                           3,
                                           4, //
                                           0,
                                           1,
                                           1,
                                           2,
                                           1,
                                           2,
                                           2,
                                           3,
                                           1,
                                           2,
                                           2,
                                           3,
                                           2,
                                           3,
                                           3,
                                           4);
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i bits =
        _mm256_xor_si256(_mm256_loadu_si256(static_cast<const __m256i*>(codes)), query);
    const __m256i low = _mm256_and_si256(bits, nibble);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(bits, 4), nibble);
    return _mm256_add_epi8(_mm256_shuffle_epi8(table, low), _mm256_shuffle_epi8(table, high));
}

/// The distances of 16 codes of one unit, in order.
template <typename Code>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i distances_16(const Code* codes,
                                                                       __m256i query) noexcept {
    static_assert(sizeof(Code) > 1, "bytes come 32 at a time");
    const __m256i ones = _mm256_set1_epi8(1);
    const __m256i zero = _mm256_setzero_si256();
    if constexpr (sizeof(Code) == 2) {
        return _mm256_maddubs_epi16(count_bytes(codes, query), ones);
    } else if constexpr (sizeof(Code) == 4) {
        const __m256i pairs = _mm256_set1_epi16(1);
        const __m256i a =
            _mm256_madd_epi16(_mm256_maddubs_epi16(count_bytes(codes, query), ones), pairs);
        const __m256i b =
            _mm256_madd_epi16(_mm256_maddubs_epi16(count_bytes(codes + 8, query), ones), pairs);
        return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
    } else {
        const __m256i a = _mm256_sad_epu8(count_bytes(codes, query), zero);
        const __m256i b = _mm256_sad_epu8(count_bytes(codes + 4, query), zero);
        const __m256i c = _mm256_sad_epu8(count_bytes(codes + 8, query), zero);
        const __m256i d = _mm256_sad_epu8(count_bytes(codes + 12, query), zero);
        const __m256i packed =
            _mm256_packus_epi32(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
        return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    }
}

template <typename Code>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i broadcast_query(Code query) noexcept {
    if constexpr (sizeof(Code) == 1) {
        return _mm256_set1_epi8(static_cast<char>(query));
    } else if constexpr (sizeof(Code) == 2) {
        return _mm256_set1_epi16(static_cast<short>(query));
    } else if constexpr (sizeof(Code) == 4) {
        return _mm256_set1_epi32(static_cast<int>(query));
    } else {
        return _mm256_set1_epi64x(static_cast<long long>(query));
    }
}

/// Codes of one unit.
template <typename Code, typename Out>
KVCRUSH_TARGET_AVX2 inline void hamming_units_avx2(const hamming_args<Code, Out>& args) noexcept {
    const __m256i query = broadcast_query(*args.query);
    std::size_t i = 0;
    for (; i + 32 <= args.num_codes; i += 32) {
        const Code* const codes = args.codes + i;
        auto* const out = reinterpret_cast<__m256i*>(args.out + i);
        if constexpr (sizeof(Code) == 1) {
            const __m256i bytes = count_bytes(codes, query);
            if constexpr (sizeof(Out) == 1) {
                _mm256_storeu_si256(out, bytes);
            } else {
                _mm256_storeu_si256(out, _mm256_cvtepu8_epi16(_mm256_castsi256_si128(bytes)));
                _mm256_storeu_si256(out + 1,
                                    _mm256_cvtepu8_epi16(_mm256_extracti128_si256(bytes, 1)));
            }
        } else {
            const __m256i first = distances_16(codes, query);
            const __m256i second = distances_16(codes + 16, query);
            if constexpr (sizeof(Out) == 1) {
                _mm256_storeu_si256(
                    out, _mm256_permute4x64_epi64(_mm256_packus_epi16(first, second), 0xD8));
            } else {
                _mm256_storeu_si256(out, first);
                _mm256_storeu_si256(out + 1, second);
            }
        }
    }
    for (; i < args.num_codes; ++i) {
        const auto bits = static_cast<Code>(args.codes[i] ^ *args.query);
        args.out[i] = static_cast<Out>(std::popcount(bits));
    }
}

/// Signed, since GCC 12 reorders unsigned sums, and then keeps more of them than there are
/// registers.
template <std::size_t... Word>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline int distance_popcnt(
    const std::uint64_t* code, const std::uint64_t* query, std::index_sequence<Word...>) noexcept {
    return (0 + ... + std::popcount(code[Word] ^ query[Word]));
}

/// Codes of as many words as the sequence is long, by the popcnt instruction.
template <typename Out, std::size_t... Word>
KVCRUSH_TARGET_AVX2 inline void
hamming_fixed_words_popcnt(const hamming_args<std::uint64_t, Out>& args,
                           std::index_sequence<Word...> words) noexcept {
    // A copy, word by word, is what the compiler keeps in registers: it cannot know that `out` is
    // not the query.
    const std::uint64_t query[] = {args.query[Word]...};
    const std::uint64_t* code = args.codes;
    for (std::size_t i = 0; i < args.num_codes; ++i) {
        args.out[i] = saturate<Out>(static_cast<unsigned>(distance_popcnt(code, query, words)));
        code += words.size();
    }
}

/// Codes of any number of words, by the popcnt instruction. Also the tail of the AVX-512 rung.
template <typename Out>
KVCRUSH_TARGET_AVX2 inline void
hamming_words_popcnt(const hamming_args<std::uint64_t, Out>& args) noexcept {
    const std::uint64_t* code = args.codes;
    for (std::size_t i = 0; i < args.num_codes; ++i) {
        int distance = 0;
        std::size_t w = 0;
        for (; w + 8 <= args.words; w += 8) {
            distance += distance_popcnt(code + w, args.query + w, std::make_index_sequence<8>{});
        }
        for (; w < args.words; ++w) {
            distance += std::popcount(code[w] ^ args.query[w]);
        }
        args.out[i] = saturate<Out>(static_cast<unsigned>(distance));
        code += args.words;
    }
}

/// Long codes: bytes are counted by vpshufb and added up once a code. A byte is at most 8 * 16 =
/// 128.
template <typename Out>
KVCRUSH_TARGET_AVX2 inline void
hamming_long_codes_avx2(const hamming_args<std::uint64_t, Out>& args) noexcept {
    const std::uint64_t* code = args.codes;
    for (std::size_t i = 0; i < args.num_codes; ++i) {
        __m256i bytes = _mm256_setzero_si256();
        std::size_t w = 0;
        for (; w + 4 <= args.words; w += 4) {
            const __m256i query =
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(args.query + w));
            bytes = _mm256_add_epi8(bytes, count_bytes(code + w, query));
        }
        int distance = 0;
        for (; w < args.words; ++w) {
            distance += std::popcount(code[w] ^ args.query[w]);
        }
        const __m256i lanes = _mm256_sad_epu8(bytes, _mm256_setzero_si256());
        const __m128i pair =
            _mm_add_epi64(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
        distance += _mm_cvtsi128_si32(_mm_add_epi64(pair, _mm_unpackhi_epi64(pair, pair)));
        args.out[i] = saturate<Out>(static_cast<unsigned>(distance));
        code += args.words;
    }
}

/// Longest code [words] of which each width has its popcnt loop; longer ones go through vpshufb.
/// Measured at 256, 512, 576, 1024 and 2048 bits (Zen 4, codes in L2): popcnt 30, 31, 32, 29 and 26
/// GB/s, vpshufb 20, 31, 30, 38 and 41.
inline constexpr std::size_t max_popcnt_words = 11;

/// The loop for this width, searched from `Words` on.
template <std::size_t Words, typename Out>
KVCRUSH_TARGET_AVX2 inline void
hamming_words_avx2(const hamming_args<std::uint64_t, Out>& args) noexcept {
    if constexpr (Words > max_popcnt_words) {
        hamming_long_codes_avx2(args);
    } else if (args.words == Words) {
        hamming_fixed_words_popcnt(args, std::make_index_sequence<Words>{});
    } else {
        hamming_words_avx2<Words + 1>(args);
    }
}

template <typename Code, typename Out>
KVCRUSH_TARGET_AVX2 inline void hamming_many_avx2(const hamming_args<Code, Out>& args) noexcept {
    if constexpr (sizeof(Code) < 8) {
        hamming_units_avx2(args);
    } else {
        switch (args.words) {
        case 0: return hamming_words_popcnt(args);
        case 1: return hamming_units_avx2(args);
        default: return hamming_words_avx2<2>(args);
        }
    }
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
#endif
