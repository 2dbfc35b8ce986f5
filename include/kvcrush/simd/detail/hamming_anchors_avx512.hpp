// SPDX-License-Identifier: Apache-2.0
/// @file
/// Hamming distances to four anchors at once with AVX-512: a vector of codes is loaded once and
/// then counted against each anchor as in hamming_avx512.hpp.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/hamming_avx512.hpp>
#include <kvcrush/simd/detail/hamming_avx512_units.hpp>
#include <kvcrush/simd/detail/hamming_scalar.hpp>

#include <cstddef>
#include <cstdint>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// One batch against four anchors; rows of distances may be the same where there are fewer.
template <typename Code, typename Out>
struct four_anchor_args {
    const Code* query[4];
    const Code* codes;
    std::size_t words;
    std::size_t num_codes;
    Out* out[4];
};

/// One vector for each anchor.
struct four_vectors {
    __m512i a;
    __m512i b;
    __m512i c;
    __m512i d;
};

template <typename Code, typename Out>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void store_four_units(__m512i codes,
                                                                          const four_vectors& query,
                                                                          Out* const* out,
                                                                          std::size_t i) noexcept {
    store_lanes<Code, Out>(count_lanes<Code, Out>(_mm512_xor_si512(codes, query.a)), out[0] + i);
    store_lanes<Code, Out>(count_lanes<Code, Out>(_mm512_xor_si512(codes, query.b)), out[1] + i);
    store_lanes<Code, Out>(count_lanes<Code, Out>(_mm512_xor_si512(codes, query.c)), out[2] + i);
    store_lanes<Code, Out>(count_lanes<Code, Out>(_mm512_xor_si512(codes, query.d)), out[3] + i);
}

/// Codes of one unit. Returns how many are done.
template <typename Code, typename Out>
KVCRUSH_TARGET_AVX512 inline std::size_t
hamming_four_units(const four_anchor_args<Code, Out>& args) noexcept {
    constexpr std::size_t step = lane_codes<Code, Out>;
    const four_vectors query{broadcast_lanes<Code, Out>(*args.query[0]),
                             broadcast_lanes<Code, Out>(*args.query[1]),
                             broadcast_lanes<Code, Out>(*args.query[2]),
                             broadcast_lanes<Code, Out>(*args.query[3])};
    Out* const out[] = {args.out[0], args.out[1], args.out[2], args.out[3]};
    std::size_t i = 0;
    for (; i + 2 * step <= args.num_codes; i += 2 * step) {
        store_four_units<Code>(load_lanes<Code, Out>(args.codes + i), query, out, i);
        store_four_units<Code>(load_lanes<Code, Out>(args.codes + i + step), query, out, i + step);
    }
    return i;
}

/// Four vectors of codes of 2 or 4 words, four or two codes in each.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline four_vectors
load_short_codes(const std::uint64_t* code) noexcept {
    return {_mm512_loadu_si512(code),
            _mm512_loadu_si512(code + 8),
            _mm512_loadu_si512(code + 16),
            _mm512_loadu_si512(code + 24)};
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i merge_counts(const four_vectors& codes,
                                                                         __m512i query) noexcept {
    return merge_codes(_mm512_popcnt_epi64(_mm512_xor_si512(codes.a, query)),
                       _mm512_popcnt_epi64(_mm512_xor_si512(codes.b, query)),
                       _mm512_popcnt_epi64(_mm512_xor_si512(codes.c, query)),
                       _mm512_popcnt_epi64(_mm512_xor_si512(codes.d, query)));
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline four_vectors
merge_four(const four_vectors& codes, const four_vectors& query) noexcept {
    return {merge_counts(codes, query.a),
            merge_counts(codes, query.b),
            merge_counts(codes, query.c),
            merge_counts(codes, query.d)};
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline four_vectors
add_lanes(const four_vectors& left, const four_vectors& right) noexcept {
    return {add_lanes(left.a, right.a),
            add_lanes(left.b, right.b),
            add_lanes(left.c, right.c),
            add_lanes(left.d, right.d)};
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline four_vectors
add_quarters(const four_vectors& left, const four_vectors& right) noexcept {
    return {add_quarters(left.a, right.a),
            add_quarters(left.b, right.b),
            add_quarters(left.c, right.c),
            add_quarters(left.d, right.d)};
}

template <std::size_t Words>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
repeat_query(const std::uint64_t* words) noexcept {
    const __m512i query = _mm512_maskz_loadu_epi64((1U << Words) - 1U, words);
    return _mm512_maskz_shuffle_i64x2(0xFF, query, query, Words == 2 ? 0x00 : 0x44);
}

template <typename Out>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
store_in_order(__m512i order, __m512i sums, Out* out) noexcept {
    store_lanes<std::uint16_t, Out>(_mm512_maskz_permutexvar_epi16(0xFFFFFFFF, order, sums), out);
}

/// Codes of 2 or 4 words, 32 at a time. Returns how many are done.
template <std::size_t Words, typename Out>
KVCRUSH_TARGET_AVX512 inline std::size_t
hamming_four_short_codes(const four_anchor_args<std::uint64_t, Out>& args) noexcept {
    const four_vectors query{repeat_query<Words>(args.query[0]),
                             repeat_query<Words>(args.query[1]),
                             repeat_query<Words>(args.query[2]),
                             repeat_query<Words>(args.query[3])};
    const __m512i order =
        _mm512_loadu_si512(Words == 2 ? order_of_2_words.data() : order_of_4_words.data());
    std::size_t i = 0;
    for (; i + 32 <= args.num_codes; i += 32) {
        const std::uint64_t* const code = args.codes + i * Words;
        const four_vectors a = merge_four(load_short_codes(code), query);
        const four_vectors b = merge_four(load_short_codes(code + 32), query);
        four_vectors sums = add_lanes(a, b);
        if constexpr (Words > 2) {
            const four_vectors c = merge_four(load_short_codes(code + 64), query);
            const four_vectors d = merge_four(load_short_codes(code + 96), query);
            sums = add_quarters(sums, add_lanes(c, d));
        }
        store_in_order(order, sums.a, args.out[0] + i);
        store_in_order(order, sums.b, args.out[1] + i);
        store_in_order(order, sums.c, args.out[2] + i);
        store_in_order(order, sums.d, args.out[3] + i);
    }
    return i;
}

/// The counts of 8 words against each anchor.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline four_vectors
count_words(__m512i words, const four_vectors& query) noexcept {
    return {_mm512_popcnt_epi64(_mm512_xor_si512(words, query.a)),
            _mm512_popcnt_epi64(_mm512_xor_si512(words, query.b)),
            _mm512_popcnt_epi64(_mm512_xor_si512(words, query.c)),
            _mm512_popcnt_epi64(_mm512_xor_si512(words, query.d))};
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline four_vectors
add_four(const four_vectors& left, const four_vectors& right) noexcept {
    return {_mm512_add_epi64(left.a, right.a),
            _mm512_add_epi64(left.b, right.b),
            _mm512_add_epi64(left.c, right.c),
            _mm512_add_epi64(left.d, right.d)};
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline four_vectors
load_queries(const std::uint64_t* const* query, std::size_t w, __mmask8 words = 0xFF) noexcept {
    return {_mm512_maskz_loadu_epi64(words, query[0] + w),
            _mm512_maskz_loadu_epi64(words, query[1] + w),
            _mm512_maskz_loadu_epi64(words, query[2] + w),
            _mm512_maskz_loadu_epi64(words, query[3] + w)};
}

/// The anchors of a batch of long codes; the first and the last vector of each are in registers.
struct four_long_queries {
    four_vectors first;
    four_vectors last;
    const std::uint64_t* const* words;
    std::size_t last_begin;
    __mmask8 last_words;
};

/// Counts per lane of one code. Vectors: 1, 2, or 0 for more.
template <std::size_t Vectors>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline four_vectors
count_four(const std::uint64_t* code, const four_long_queries& query) noexcept {
    const four_vectors last = count_words(
        _mm512_maskz_loadu_epi64(query.last_words, code + query.last_begin), query.last);
    if constexpr (Vectors == 1) {
        return last;
    } else {
        four_vectors sums = count_words(_mm512_loadu_si512(code), query.first);
        if constexpr (Vectors == 0) {
            for (std::size_t w = 8; w < query.last_begin; w += 8) {
                sums = add_four(
                    sums, count_words(_mm512_loadu_si512(code + w), load_queries(query.words, w)));
            }
        }
        return add_four(sums, last);
    }
}

/// Four codes of `words` words, merged as merge_codes does it.
template <std::size_t Vectors>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline four_vectors merge_long_codes(
    const std::uint64_t* code, std::size_t words, const four_long_queries& query) noexcept {
    const four_vectors a = count_four<Vectors>(code, query);
    const four_vectors b = count_four<Vectors>(code + words, query);
    const four_vectors c = count_four<Vectors>(code + 2 * words, query);
    const four_vectors d = count_four<Vectors>(code + 3 * words, query);
    return {merge_codes(a.a, b.a, c.a, d.a),
            merge_codes(a.b, b.b, c.b, d.b),
            merge_codes(a.c, b.c, c.c, d.c),
            merge_codes(a.d, b.d, c.d, d.d)};
}

template <std::size_t Vectors>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline four_vectors count_8_codes(
    const std::uint64_t* code, std::size_t words, const four_long_queries& query) noexcept {
    const four_vectors front = merge_long_codes<Vectors>(code, words, query);
    return add_lanes(front, merge_long_codes<Vectors>(code + 4 * words, words, query));
}

/// Codes of any number of words, 32 at a time. Returns how many are done.
template <std::size_t Vectors, typename Out>
KVCRUSH_TARGET_AVX512 inline std::size_t
hamming_four_long_codes(const four_anchor_args<std::uint64_t, Out>& args) noexcept {
    const std::size_t words = args.words;
    four_long_queries query;
    query.words = args.query;
    query.last_begin = (words - 1) / 8 * 8;
    query.last_words = static_cast<__mmask8>(0xFFU >> (8 - (words - query.last_begin)));
    query.last = load_queries(args.query, query.last_begin, query.last_words);
    query.first = Vectors != 1 ? load_queries(args.query, 0) : query.last;
    std::size_t i = 0;
    for (; i + 32 <= args.num_codes; i += 32) {
        const std::uint64_t* const code = args.codes + i * words;
        const four_vectors a = count_8_codes<Vectors>(code, words, query);
        const four_vectors ab =
            add_quarters(a, count_8_codes<Vectors>(code + 8 * words, words, query));
        const four_vectors c = count_8_codes<Vectors>(code + 16 * words, words, query);
        const four_vectors cd =
            add_quarters(c, count_8_codes<Vectors>(code + 24 * words, words, query));
        const four_vectors sums = add_quarters(ab, cd);
        store_lanes<std::uint16_t, Out>(sums.a, args.out[0] + i);
        store_lanes<std::uint16_t, Out>(sums.b, args.out[1] + i);
        store_lanes<std::uint16_t, Out>(sums.c, args.out[2] + i);
        store_lanes<std::uint16_t, Out>(sums.d, args.out[3] + i);
    }
    return i;
}

template <typename Code, typename Out>
KVCRUSH_TARGET_AVX512 inline void
hamming_four_anchors_avx512(const four_anchor_args<Code, Out>& args) noexcept {
    std::size_t done = 0;
    if constexpr (sizeof(Code) < 8) {
        done = hamming_four_units(args);
    } else {
        switch (args.words) {
        case 0: break;
        case 1: done = hamming_four_units(args); break;
        case 2: done = hamming_four_short_codes<2>(args); break;
        case 4: done = hamming_four_short_codes<4>(args); break;
        case 3:
        case 5: break; // one anchor after the other takes 0.8 times as long (Zen 4)
        default:
            done = args.words <= 8    ? hamming_four_long_codes<1>(args)
                   : args.words <= 16 ? hamming_four_long_codes<2>(args)
                                      : hamming_four_long_codes<0>(args);
        }
    }
    for (std::size_t q = 0; q < 4; ++q) {
        hamming_many_avx512(hamming_args<Code, Out>{args.query[q],
                                                    args.codes + done * args.words,
                                                    args.words,
                                                    args.num_codes - done,
                                                    args.out[q] + done});
    }
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
#endif
