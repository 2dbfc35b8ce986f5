// SPDX-License-Identifier: Apache-2.0
/// @file
/// Hamming distances with AVX-512. Codes of several words: vpopcntq (VPOPCNTDQ) counts lane by
/// lane, masked vpshufb moves the counts of four vectors into one, and a tree of additions leads
/// to one vector of 32 distances. Codes of 3 and 5 words: no vector is aligned with a code, eight
/// codes fill 3 or 5 of them, and masked moves sort the words. No overflow: a distance is at most
/// 4096 and is added up in 16 bits; u8 outputs saturate.
///
/// Shuffles carry a mask of all lanes for the reason given in hamming_avx512_units.hpp.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/hamming_avx2.hpp>
#include <kvcrush/simd/detail/hamming_avx512_units.hpp>
#include <kvcrush/simd/detail/hamming_scalar.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// Counts of several codes share a vector: each 64-bit lane of a vector becomes four sums of 16
/// bits, of four different codes. One masked vpshufb moves the low 16 bits of a lane to another
/// place in it and keeps the rest.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
merge_codes(__m512i a, __m512i b, __m512i c, __m512i d) noexcept {
    const __m512i low_16_bits = _mm512_maskz_broadcast_i32x4(
        0xFFFF, _mm_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 8, 9, 8, 9, 8, 9, 8, 9));
    a = _mm512_mask_shuffle_epi8(a, 0x0C0C0C0C0C0C0C0C, b, low_16_bits);
    a = _mm512_mask_shuffle_epi8(a, 0x3030303030303030, c, low_16_bits);
    // No instruction; keeps loads of the next codes behind those of these. The prefetcher needs the
    // order of memory: 256-bit codes from DRAM take 1.1 times as long without it (Zen 4).
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return _mm512_mask_shuffle_epi8(a, 0xC0C0C0C0C0C0C0C0, d, low_16_bits);
}

/// Adds neighbouring 64-bit lanes of `a` and of `b`: [a0+a1, b0+b1, a2+a3, b2+b3, ...].
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i add_lanes(__m512i a,
                                                                      __m512i b) noexcept {
    return _mm512_add_epi16(_mm512_maskz_unpacklo_epi64(0xFF, a, b),
                            _mm512_maskz_unpackhi_epi64(0xFF, a, b));
}

/// Adds neighbouring quarters of `a` and of `b`: [a0+a1, a2+a3, b0+b1, b2+b3].
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i add_quarters(__m512i a,
                                                                         __m512i b) noexcept {
    return _mm512_add_epi16(_mm512_maskz_shuffle_i64x2(0xFF, a, b, 0x88),
                            _mm512_maskz_shuffle_i64x2(0xFF, a, b, 0xDD));
}

/// How the last vector of a code is read: it is full, or the words of the next code in it are
/// dropped after the count, or they are not loaded (as at the end of the array; 1.2 times the cost
/// with codes in L2, Zen 4).
enum class last_vector : std::uint8_t { full, overlapping, masked };

/// The query of a batch, for codes of more than 4 words: in `Vectors` registers, or read anew for
/// each code (0).
template <std::size_t Vectors>
struct long_query {
    __m512i part[Vectors == 0 ? 1 : Vectors]; ///< the last one, if Vectors is 0
    const std::uint64_t* words;
    std::size_t last_begin;
    __mmask8 last; ///< words in the last vector of a code
};

/// The counts of 8 words, of one code or of several short ones.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i count_words(const std::uint64_t* code,
                                                                        __m512i query) noexcept {
    return _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(code), query));
}

template <last_vector Last>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
count_last_words(const std::uint64_t* code, __m512i query, __mmask8 words) noexcept {
    if constexpr (Last == last_vector::full) {
        return count_words(code, query);
    } else if constexpr (Last == last_vector::overlapping) {
        return _mm512_maskz_popcnt_epi64(words, _mm512_xor_si512(_mm512_loadu_si512(code), query));
    } else {
        return _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_maskz_loadu_epi64(words, code), query));
    }
}

/// Counts per lane of one code, or of `Num` vectors of it from vector `First` on. Reading one code
/// after the other follows the order of memory, which the prefetcher needs: two long codes at once
/// run at a quarter of the speed from DRAM (4096 bits, Zen 4).
template <last_vector Last, std::size_t First, std::size_t Num, std::size_t Vectors>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
count_code(const std::uint64_t* code, const long_query<Vectors>& query) noexcept {
    if constexpr (Num == 0) {
        __m512i sum = _mm512_setzero_si512();
        std::size_t w = 0;
        for (; w + 16 <= query.last_begin; w += 16) {
            const __m512i a = count_words(code + w, _mm512_loadu_si512(query.words + w));
            const __m512i b = count_words(code + w + 8, _mm512_loadu_si512(query.words + w + 8));
            sum = _mm512_add_epi64(sum, _mm512_add_epi64(a, b));
        }
        if (w < query.last_begin) {
            sum = _mm512_add_epi64(sum, count_words(code + w, _mm512_loadu_si512(query.words + w)));
        }
        return _mm512_add_epi64(
            sum, count_last_words<Last>(code + query.last_begin, query.part[0], query.last));
    } else if constexpr (Num > 1) {
        const __m512i front = count_code<Last, First, Num / 2>(code, query);
        return _mm512_add_epi64(front,
                                count_code<Last, First + Num / 2, Num - Num / 2>(code, query));
    } else if constexpr (First + 1 < Vectors) {
        return count_words(code + 8 * First, query.part[First]);
    } else {
        return count_last_words<Last>(code + 8 * First, query.part[First], query.last);
    }
}

/// One code, none of whose loads moves across those of its neighbours: the fence costs no
/// instruction.
template <last_vector Last, std::size_t Vectors>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
count_code_in_order(const std::uint64_t* code, const long_query<Vectors>& query) noexcept {
    const __m512i sum = count_code<Last, 0, Vectors>(code, query);
    if constexpr (Vectors > 2) {
        std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    return sum;
}

/// Eight codes of `words` words: [8 sums of 16 bits] in each quarter, to be added.
template <last_vector Last, std::size_t Vectors>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i count_8_codes(
    const std::uint64_t* code, std::size_t words, const long_query<Vectors>& query) noexcept {
    const __m512i a = count_code_in_order<Last>(code, query);
    const __m512i b = count_code_in_order<Last>(code + words, query);
    const __m512i c = count_code_in_order<Last>(code + 2 * words, query);
    const __m512i d = count_code_in_order<Last>(code + 3 * words, query);
    const __m512i first = merge_codes(a, b, c, d);
    code += 4 * words;
    const __m512i e = count_code_in_order<Last>(code, query);
    const __m512i f = count_code_in_order<Last>(code + words, query);
    const __m512i g = count_code_in_order<Last>(code + 2 * words, query);
    const __m512i h = count_code_in_order<Last>(code + 3 * words, query);
    return add_lanes(first, merge_codes(e, f, g, h));
}

/// Codes of any number of words from code `i` on. Returns how many codes are done, all but at most
/// seven.
template <last_vector Last, std::size_t Vectors, typename Out>
KVCRUSH_TARGET_AVX512 inline std::size_t
hamming_long_codes_avx512(const hamming_args<std::uint64_t, Out>& args, std::size_t i) noexcept {
    // The code after the 32 must exist if they read into it.
    constexpr std::size_t needed = Last == last_vector::overlapping ? 33 : 32;
    constexpr last_vector at_end = Last == last_vector::overlapping ? last_vector::masked : Last;
    const std::size_t words = args.words;
    long_query<Vectors> query;
    query.words = args.query;
    query.last_begin = (words - 1) / 8 * 8;
    query.last = static_cast<__mmask8>(0xFFU >> (8 - (words - query.last_begin)));
    query.part[Vectors == 0 ? 0 : Vectors - 1] =
        _mm512_maskz_loadu_epi64(query.last, args.query + query.last_begin);
    for (std::size_t v = 0; v + 1 < Vectors; ++v) {
        query.part[v] = _mm512_loadu_si512(args.query + 8 * v);
    }
    for (; i + needed <= args.num_codes; i += 32) {
        const std::uint64_t* const code = args.codes + i * words;
        const __m512i a = count_8_codes<Last>(code, words, query);
        const __m512i b = count_8_codes<Last>(code + 8 * words, words, query);
        const __m512i ab = add_quarters(a, b);
        const __m512i c = count_8_codes<Last>(code + 16 * words, words, query);
        const __m512i d = count_8_codes<Last>(code + 24 * words, words, query);
        store_lanes<std::uint16_t, Out>(add_quarters(ab, add_quarters(c, d)), args.out + i);
    }
    for (; i + 8 <= args.num_codes; i += 8) {
        const __m512i quarters = count_8_codes<at_end>(args.codes + i * words, words, query);
        const __m512i halves = add_quarters(quarters, quarters);
        store_lanes<std::uint16_t, Out>(add_quarters(halves, halves), args.out + i, 0xFF);
    }
    return i;
}

/// The counts of the next four vectors of codes of 2 or 4 words, four or two codes in each.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
count_short_codes(const std::uint64_t* code, __m512i query) noexcept {
    // One by one, since compilers take arguments in any order, and last to first costs 1.2 times as
    // much from L3, 1.6 times from DRAM (128 bits, Zen 4).
    const __m512i a = count_words(code, query);
    const __m512i b = count_words(code + 8, query);
    const __m512i c = count_words(code + 16, query);
    const __m512i d = count_words(code + 24, query);
    return merge_codes(a, b, c, d);
}

/// Where hamming_short_codes_avx512 finds the sum of code 0, 1, ... 31 [16-bit lane].
inline constexpr std::array<std::uint16_t, 32> order_of_2_words = [] {
    std::array<std::uint16_t, 32> order{};
    for (std::size_t code = 0; code < 32; ++code) {
        // Vector v of 8 holds codes 4 v to 4 v + 3, two lanes each; v % 4 is the place in a lane, v
        // / 4 the odd lanes.
        const std::size_t vector = code / 4;
        order[code] = static_cast<std::uint16_t>(((code % 4) * 2 + vector / 4) * 4 + vector % 4);
    }
    return order;
}();
inline constexpr std::array<std::uint16_t, 32> order_of_4_words = [] {
    std::array<std::uint16_t, 32> order{};
    for (std::size_t code = 0; code < 32; ++code) {
        // Quarter: batch of 16 codes, then which of two neighbours; lane: batch of 8; place: pair
        // of codes.
        const std::size_t quarter = code / 16 * 2 + code % 2;
        order[code] = static_cast<std::uint16_t>((quarter * 2 + code / 8 % 2) * 4 + code % 8 / 2);
    }
    return order;
}();

/// Codes of 2 or 4 words, of which four or two share a vector: 32 codes at a time.
template <std::size_t Words, typename Out>
KVCRUSH_TARGET_AVX512 inline std::size_t
hamming_short_codes_avx512(const hamming_args<std::uint64_t, Out>& args) noexcept {
    __m512i query = _mm512_maskz_loadu_epi64((1U << Words) - 1U, args.query);
    // Where the sums of codes 0, 1, ... 31 are, in 16-bit lanes.
    __m512i order;
    if constexpr (Words == 2) {
        query = _mm512_maskz_shuffle_i64x2(0xFF, query, query, 0x00);
        order = _mm512_loadu_si512(order_of_2_words.data());
    } else {
        query = _mm512_maskz_shuffle_i64x2(0xFF, query, query, 0x44);
        order = _mm512_loadu_si512(order_of_4_words.data());
    }
    std::size_t i = 0;
    for (; i + 32 <= args.num_codes; i += 32) {
        const std::uint64_t* const code = args.codes + i * Words;
        const __m512i a = count_short_codes(code, query);
        const __m512i b = count_short_codes(code + 32, query);
        __m512i sums = add_lanes(a, b);
        if constexpr (Words > 2) {
            const __m512i c = count_short_codes(code + 64, query);
            const __m512i d = count_short_codes(code + 96, query);
            sums = add_quarters(sums, add_lanes(c, d));
        }
        store_lanes<std::uint16_t, Out>(_mm512_maskz_permutexvar_epi16(0xFFFFFFFF, order, sums),
                                        args.out + i);
    }
    return i;
}

/// Codes of an odd number of words, eight of which fill as many vectors as a code has words. Word k
/// of the eight codes stands in eight different lanes of those vectors.
template <std::size_t Words>
struct odd_codes {
    static_assert(Words % 2 == 1 && Words < 8);
    static constexpr std::size_t lane_of(std::size_t code) { return Words * code % 8; }

    /// Which word of a code stands where [vector][lane].
    static constexpr auto word_of_lane = [] {
        std::array<std::array<std::uint64_t, 8>, Words> words{};
        for (std::size_t i = 0; i < 8 * Words; ++i) {
            words[i / 8][i % 8] = i % Words;
        }
        return words;
    }();

    /// The lanes of vector v with word k of a code.
    static constexpr __mmask8 lanes_of(std::size_t k, std::size_t v) {
        unsigned lanes = 0;
        for (std::size_t lane = 0; lane < 8; ++lane) {
            lanes |= ((8 * v + lane) % Words == k ? 1U : 0U) << lane;
        }
        return static_cast<__mmask8>(lanes);
    }

    /// Where the sums of codes 0, 1, ... 31 are, in 16-bit lanes.
    static constexpr std::array<std::uint16_t, 32> order = [] {
        std::array<std::uint16_t, 32> places{};
        for (std::size_t code = 0; code < 32; ++code) {
            places[code] = static_cast<std::uint16_t>(lane_of(code % 8) * 4 + code / 8);
        }
        return places;
    }();
};

/// The counts of eight codes, in `sums` the 16 bits of each lane that `Place` selects.
template <std::uint64_t Place, std::size_t... Vector>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
count_odd_codes(const std::uint64_t* code,
                const __m512i* query,
                __m512i* sums,
                std::index_sequence<Vector...>) noexcept {
    const __m512i low_16_bits = _mm512_maskz_broadcast_i32x4(
        0xFFFF, _mm_setr_epi8(0, 1, 0, 1, 0, 1, 0, 1, 8, 9, 8, 9, 8, 9, 8, 9));
    ((sums[Vector] = _mm512_mask_shuffle_epi8(
          sums[Vector], Place, count_words(code + 8 * Vector, query[Vector]), low_16_bits)),
     ...);
    std::atomic_signal_fence(std::memory_order_seq_cst); // as in merge_codes
}

/// Word `Word` of all codes, moved to the lane of word 0.
template <std::size_t Word, std::size_t... Vector>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
collect_word(const __m512i* sums, std::index_sequence<Vector...>) noexcept {
    __m512i word = sums[0];
    ((word = _mm512_mask_mov_epi64(
          word, odd_codes<sizeof...(Vector)>::lanes_of(Word, Vector), sums[Vector])),
     ...);
    return Word == 0 ? word : _mm512_maskz_alignr_epi64(0xFF, word, word, Word);
}

template <std::size_t... Word>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
add_words(const __m512i* sums, std::index_sequence<Word...> words) noexcept {
    __m512i total = _mm512_setzero_si512();
    ((total = _mm512_add_epi16(total, collect_word<Word>(sums, words))), ...);
    return total;
}

/// Codes of 3 or 5 words, 32 at a time; no word is loaded or counted twice.
template <std::size_t Words, typename Out>
KVCRUSH_TARGET_AVX512 inline std::size_t
hamming_odd_codes_avx512(const hamming_args<std::uint64_t, Out>& args) noexcept {
    constexpr auto words = std::make_index_sequence<Words>{};
    __m512i query[Words];
    const __m512i once = _mm512_maskz_loadu_epi64((1U << Words) - 1U, args.query);
    for (std::size_t v = 0; v < Words; ++v) {
        const __m512i word = _mm512_loadu_si512(odd_codes<Words>::word_of_lane[v].data());
        query[v] = _mm512_maskz_permutexvar_epi64(0xFF, word, once);
    }
    const __m512i order = _mm512_loadu_si512(odd_codes<Words>::order.data());
    std::size_t i = 0;
    for (; i + 32 <= args.num_codes; i += 32) {
        const std::uint64_t* const code = args.codes + i * Words;
        __m512i sums[Words];
        for (std::size_t v = 0; v < Words; ++v) {
            sums[v] = _mm512_setzero_si512();
        }
        count_odd_codes<0x0303030303030303>(code, query, sums, words);
        count_odd_codes<0x0C0C0C0C0C0C0C0C>(code + 8 * Words, query, sums, words);
        count_odd_codes<0x3030303030303030>(code + 16 * Words, query, sums, words);
        count_odd_codes<0xC0C0C0C0C0C0C0C0>(code + 24 * Words, query, sums, words);
        store_lanes<std::uint16_t, Out>(
            _mm512_maskz_permutexvar_epi16(0xFFFFFFFF, order, add_words(sums, words)),
            args.out + i);
    }
    return i;
}

template <typename Code, typename Out>
KVCRUSH_TARGET_AVX512 inline void
hamming_many_avx512(const hamming_args<Code, Out>& args) noexcept {
    if constexpr (sizeof(Code) < 8) {
        hamming_units_avx512(args);
    } else {
        std::size_t done = 0;
        switch (args.words) {
        case 0: std::fill_n(args.out, args.num_codes, Out{0}); return;
        case 1: return hamming_units_avx512(args);
        case 2:
            done = hamming_long_codes_avx512<last_vector::masked, 1>(
                args, hamming_short_codes_avx512<2>(args));
            break;
        case 3:
            done = hamming_long_codes_avx512<last_vector::masked, 1>(
                args, hamming_odd_codes_avx512<3>(args));
            break;
        case 4:
            done = hamming_long_codes_avx512<last_vector::masked, 1>(
                args, hamming_short_codes_avx512<4>(args));
            break;
        case 5:
            done = hamming_long_codes_avx512<last_vector::masked, 1>(
                args, hamming_odd_codes_avx512<5>(args));
            break;
        case 8: done = hamming_long_codes_avx512<last_vector::full, 1>(args, 0); break;
        case 16: done = hamming_long_codes_avx512<last_vector::full, 2>(args, 0); break;
        case 32: done = hamming_long_codes_avx512<last_vector::full, 4>(args, 0); break;
        case 64: done = hamming_long_codes_avx512<last_vector::full, 8>(args, 0); break;
        default:
            if (args.words < 8) {
                done = hamming_long_codes_avx512<last_vector::overlapping, 1>(args, 0);
            } else if (args.words < 16) {
                done = hamming_long_codes_avx512<last_vector::overlapping, 2>(args, 0);
            } else {
                done = hamming_long_codes_avx512<last_vector::overlapping, 0>(args, 0);
            }
        }
        hamming_words_popcnt(hamming_args<Code, Out>{args.query,
                                                     args.codes + done * args.words,
                                                     args.words,
                                                     args.num_codes - done,
                                                     args.out + done});
    }
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
#endif
