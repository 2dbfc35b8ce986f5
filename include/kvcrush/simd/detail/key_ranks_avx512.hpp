// SPDX-License-Identifier: Apache-2.0
/// @file
/// Counting and ranking byte-sized keys with AVX-512, bit by bit instead of token by token.
/// vptestmb turns the keys of 64 tokens into one word for each bit of a key. The tokens with a
/// given key are then a conjunction of such words, 512 tokens an instruction; vpopcntq (VPOPCNTDQ)
/// counts them, and pdep finds the token of a rank. No overflow: a tile has 2048 tokens, counted
/// in 16 bits.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/key_ranks_scalar.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// Sets of the tokens of one tile. Those with a key are in both low[key % 8] and high[key / 8].
struct key_sets {
    static constexpr std::size_t num_words = 32; ///< of 64 tokens: 32 prefix sums fill a vector
    static constexpr std::size_t num_tokens = 64 * num_words;
    static constexpr std::size_t num_vectors = num_words / 8;

    using set = std::array<std::uint64_t, num_words>;

    alignas(64) std::array<set, 8> low;
    alignas(64) std::array<set, 32> high; ///< candidates only
};

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i load_set(const key_sets::set& set,
                                                                     std::size_t vector) noexcept {
    return _mm512_load_si512(set.data() + 8 * vector);
}

using key_bits = std::array<key_sets::set, 8>;

/// Word w of bits[b]: bit b of 64 keys.
template <std::size_t... Bit>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
store_bits(__m512i keys, std::size_t w, key_bits& bits, std::index_sequence<Bit...>) noexcept {
    ((bits[Bit][w] = _mm512_test_epi8_mask(keys, _mm512_set1_epi8(static_cast<char>(1U << Bit)))),
     ...);
}

/// The bits of the keys from `keys` on, of which there are `num`, at most a tile. What the words
/// behind the last key hold does not matter: no candidate is there.
template <std::size_t NumBits>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
find_key_bits(const std::uint8_t* keys, std::size_t num, key_bits& bits) noexcept {
    constexpr auto all_bits = std::make_index_sequence<NumBits>{};
    std::size_t w = 0;
    for (; 64 * w + 64 <= num; ++w) {
        store_bits(_mm512_loadu_si512(keys + 64 * w), w, bits, all_bits);
    }
    if (64 * w < num) {
        const std::uint64_t lanes = (std::uint64_t{1} << (num - 64 * w)) - 1;
        store_bits(_mm512_maskz_loadu_epi8(lanes, keys + 64 * w), w, bits, all_bits);
    }
}

/// sets[i], vector v: the tokens of `all` with the bits of the number i.
template <std::size_t... Is>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
split_by_3_bits(__m512i all,
                const key_sets::set* bits,
                std::size_t v,
                key_sets::set* sets,
                std::index_sequence<Is...>) noexcept {
    const __m512i a = load_set(bits[0], v);
    const __m512i b = load_set(bits[1], v);
    const __m512i c = load_set(bits[2], v);
    (_mm512_store_si512(sets[Is].data() + 8 * v,
                        _mm512_and_si512(all, _mm512_ternarylogic_epi64(c, b, a, 1 << Is))),
     ...);
}

/// The sets of tile `tile`.
template <std::size_t NumBits>
KVCRUSH_TARGET_AVX512 inline void find_key_sets_avx512(std::span<const std::uint8_t> keys,
                                                       std::span<const std::uint64_t> taken,
                                                       std::size_t tile,
                                                       key_sets& sets) noexcept {
    constexpr auto eight = std::make_index_sequence<8>{};
    const std::size_t begin = tile * key_sets::num_tokens;
    const std::size_t num = (std::min)(keys.size() - begin, key_sets::num_tokens);
    alignas(64) key_bits bits;
    find_key_bits<NumBits>(keys.data() + begin, num, bits);
    alignas(64) key_sets::set candidates;
    for (std::size_t w = 0; w < key_sets::num_words; ++w) {
        candidates[w] = 64 * w < num ? candidates_of_word(taken, begin / 64 + w, keys.size()) : 0;
    }
    for (std::size_t v = 0; v < key_sets::num_vectors; ++v) {
        split_by_3_bits(_mm512_set1_epi64(-1), bits.data(), v, sets.low.data(), eight);
        const __m512i all = load_set(candidates, v);
        if constexpr (NumBits == 6) {
            split_by_3_bits(all, bits.data() + 3, v, sets.high.data(), eight);
        } else {
            const __m512i c = load_set(bits[6], v);
            const __m512i d = load_set(bits[7], v);
            const __m512i with_c = _mm512_and_si512(all, c);
            const __m512i without_c = _mm512_xor_si512(all, with_c);
            const key_sets::set* const middle = bits.data() + 3;
            key_sets::set* const out = sets.high.data();
            const __m512i without_c_with_d = _mm512_and_si512(without_c, d);
            const __m512i with_c_with_d = _mm512_and_si512(with_c, d);
            split_by_3_bits(_mm512_xor_si512(without_c, without_c_with_d), middle, v, out, eight);
            split_by_3_bits(_mm512_xor_si512(with_c, with_c_with_d), middle, v, out + 8, eight);
            split_by_3_bits(without_c_with_d, middle, v, out + 16, eight);
            split_by_3_bits(with_c_with_d, middle, v, out + 24, eight);
        }
    }
}

KVCRUSH_TARGET_AVX512 inline void find_key_sets_avx512(std::span<const std::uint8_t> keys,
                                                       std::span<const std::uint64_t> taken,
                                                       std::size_t tile,
                                                       std::size_t num_keys,
                                                       key_sets& sets) noexcept {
    if (num_keys <= 64) {
        find_key_sets_avx512<6>(keys, taken, tile, sets);
    } else {
        find_key_sets_avx512<8>(keys, taken, tile, sets);
    }
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline std::uint32_t
sum_lanes_avx512(__m512i lanes) noexcept {
    const __m256i half = _mm256_add_epi64(_mm512_maskz_extracti64x4_epi64(0xF, lanes, 0),
                                          _mm512_maskz_extracti64x4_epi64(0xF, lanes, 1));
    const __m128i quarter =
        _mm_add_epi64(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    return static_cast<std::uint32_t>(
        _mm_cvtsi128_si64(_mm_add_epi64(quarter, _mm_unpackhi_epi64(quarter, quarter))));
}

[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
tokens_with_key(const key_sets& sets, std::size_t key, std::size_t vector) noexcept {
    return _mm512_and_si512(load_set(sets.low[key % 8], vector),
                            load_set(sets.high[key / 8], vector));
}

KVCRUSH_TARGET_AVX512 inline void count_keys_avx512(std::span<const std::uint8_t> keys,
                                                    std::span<const std::uint64_t> taken,
                                                    std::span<std::uint32_t> counts) noexcept {
    std::fill(counts.begin(), counts.end(), 0U);
    counts = counts.first((std::min)(counts.size(), std::size_t{256}));
    key_sets sets;
    for (std::size_t t = 0; t < keys.size(); t += key_sets::num_tokens) {
        find_key_sets_avx512(keys, taken, t / key_sets::num_tokens, counts.size(), sets);
        for (std::size_t key = 0; key < counts.size(); ++key) {
            __m512i sum = _mm512_popcnt_epi64(tokens_with_key(sets, key, 0));
            for (std::size_t v = 1; v < key_sets::num_vectors; ++v) {
                sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(tokens_with_key(sets, key, v)));
            }
            counts[key] += sum_lanes_avx512(sum);
        }
    }
}

/// Sums of the first 1, 2, ... 32 lanes of 16 bits.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i prefix_sums(__m512i counts) noexcept {
    counts = _mm512_add_epi16(counts, _mm512_bslli_epi128(counts, 2));
    counts = _mm512_add_epi16(counts, _mm512_bslli_epi128(counts, 4));
    counts = _mm512_add_epi16(counts, _mm512_bslli_epi128(counts, 8));
    // The sums of whole quarters, in all lanes of the quarters behind them.
    const __m512i last_16_bits = _mm512_maskz_broadcast_i32x4(
        0xFFFF, _mm_setr_epi8(14, 15, 14, 15, 14, 15, 14, 15, 14, 15, 14, 15, 14, 15, 14, 15));
    const __m512i sums = _mm512_maskz_shuffle_epi8(~std::uint64_t{0}, counts, last_16_bits);
    const __m512i first = _mm512_maskz_shuffle_i64x2(0xFC, sums, sums, 0x90);
    const __m512i second = _mm512_maskz_shuffle_i64x2(0xF0, sums, sums, 0x40);
    const __m512i third = _mm512_maskz_shuffle_i64x2(0xC0, sums, sums, 0x00);
    return _mm512_add_epi16(_mm512_add_epi16(counts, first), _mm512_add_epi16(second, third));
}

/// Four counts of 16 bits in each of 8 lanes, in the order of the words they belong to.
inline constexpr std::array<std::uint16_t, 32> order_of_word_counts = [] {
    std::array<std::uint16_t, 32> order{};
    for (std::size_t word = 0; word < 32; ++word) {
        order[word] = static_cast<std::uint16_t>(word % 8 * 4 + word / 8);
    }
    return order;
}();

/// A key with ranks to find.
struct wanted_key {
    std::uint32_t key;
    std::uint32_t rank; ///< of its first token in the tile
    const std::uint32_t* wanted;
    const std::uint32_t* wanted_end;
};

/// Marks the wanted tokens of one key and one tile. Returns how many tokens have that key.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline std::uint32_t
mark_key(const key_sets& sets, wanted_key& ranks, std::uint64_t* marked) noexcept {
    const __m512i a = _mm512_popcnt_epi64(tokens_with_key(sets, ranks.key, 0));
    const __m512i b = _mm512_popcnt_epi64(tokens_with_key(sets, ranks.key, 1));
    const __m512i c = _mm512_popcnt_epi64(tokens_with_key(sets, ranks.key, 2));
    const __m512i d = _mm512_popcnt_epi64(tokens_with_key(sets, ranks.key, 3));
    const std::uint32_t num =
        sum_lanes_avx512(_mm512_add_epi64(_mm512_add_epi64(a, b), _mm512_add_epi64(c, d)));
    const std::uint32_t* wanted = ranks.wanted;
    if (*wanted - ranks.rank >= num) {
        return num;
    }
    // Lane l of a, b, c and d counts word l, 8 + l, 16 + l and 24 + l.
    const __m512i words = _mm512_maskz_permutexvar_epi16(
        0xFFFFFFFF,
        _mm512_loadu_si512(order_of_word_counts.data()),
        _mm512_or_si512(_mm512_or_si512(a, _mm512_maskz_slli_epi64(0xFF, b, 16)),
                        _mm512_or_si512(_mm512_maskz_slli_epi64(0xFF, c, 32),
                                        _mm512_maskz_slli_epi64(0xFF, d, 48))));
    const __m512i sums = prefix_sums(words);
    alignas(64) std::array<std::uint16_t, key_sets::num_words> before;
    _mm512_store_si512(before.data(), _mm512_sub_epi16(sums, words));
    const key_sets::set& low = sets.low[ranks.key % 8];
    const key_sets::set& high = sets.high[ranks.key / 8];
    std::uint32_t rank = *wanted - ranks.rank;
    do {
        const __mmask32 earlier =
            _mm512_cmple_epu16_mask(sums, _mm512_set1_epi16(static_cast<short>(rank)));
        const auto w = static_cast<std::size_t>(std::popcount(std::uint32_t{earlier}));
        marked[w] |= _pdep_u64(std::uint64_t{1} << (rank - before[w]), low[w] & high[w]);
        ++wanted;
        rank = wanted != ranks.wanted_end ? *wanted - ranks.rank : ~std::uint32_t{0};
    } while (rank < num);
    ranks.wanted = wanted;
    return num;
}

/// So many keys with ranks to find; with more of them going from token to token is faster (Zen 4,
/// one token in 16 wanted: 2.4 ns a token for 256 keys, against 1.5).
inline constexpr std::size_t max_wanted_keys = 144;

KVCRUSH_TARGET_AVX512 inline void mark_ranks_avx512(std::span<const std::uint8_t> keys,
                                                    std::span<const std::uint64_t> taken,
                                                    std::span<const std::uint32_t> begins,
                                                    std::span<const std::uint32_t> counts,
                                                    std::span<const std::uint32_t> ranks,
                                                    std::span<std::uint64_t> marked) noexcept {
    std::array<wanted_key, 256> wanted;
    counts = counts.first((std::min)(counts.size(), wanted.size()));
    std::size_t num_wanted = 0;
    for (std::size_t key = 0; key < counts.size(); ++key) {
        const auto [first, last] = ranks_between(ranks, begins[key], counts[key]);
        if (first != last) {
            wanted[num_wanted++] = {static_cast<std::uint32_t>(key), begins[key], first, last};
        }
    }
    if (num_wanted > max_wanted_keys) {
        return mark_ranks_scalar(keys, taken, begins, counts, ranks, marked);
    }
    key_sets sets;
    for (std::size_t t = 0; t < keys.size() && num_wanted != 0; t += key_sets::num_tokens) {
        find_key_sets_avx512(keys, taken, t / key_sets::num_tokens, counts.size(), sets);
        std::size_t num_left = 0;
        for (std::size_t i = 0; i < num_wanted; ++i) {
            wanted_key ranked = wanted[i];
            ranked.rank += mark_key(sets, ranked, marked.data() + t / 64);
            wanted[num_left] = ranked;
            num_left += ranked.wanted != ranked.wanted_end ? 1U : 0U;
        }
        num_wanted = num_left;
    }
}

/// Sixteen keys, one a lane.
template <typename Key>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i load_16_keys(const Key* keys,
                                                                         __mmask16 lanes) noexcept {
    if constexpr (sizeof(Key) == 1) {
        return _mm512_maskz_cvtepu8_epi32(lanes, _mm_maskz_loadu_epi8(lanes, keys));
    } else {
        return _mm512_maskz_cvtepu16_epi32(lanes, _mm256_maskz_loadu_epi16(lanes, keys));
    }
}

/// Candidates that wait for their place: key << 16 | token - first token of the tile.
struct waiting_tokens {
    static constexpr std::size_t tile_tokens = 1024;

    std::array<std::uint32_t, tile_tokens + 16> tokens;
    std::size_t num;
};

/// Gathers the candidates among the tokens [begin, end), at most a tile.
template <typename Key>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline void
gather_candidates(std::span<const Key> keys,
                  std::span<const std::uint64_t> taken,
                  std::size_t begin,
                  std::size_t end,
                  waiting_tokens& waiting) noexcept {
    __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    std::size_t num = 0;
    for (std::size_t t = begin; t < end;) {
        std::uint64_t left = candidates_of_word(taken, t / 64, keys.size());
        for (const std::size_t word_end = (std::min)(end, t + 64); t < word_end; t += 16) {
            const auto lanes = static_cast<__mmask16>(left);
            const __m512i shifted =
                _mm512_maskz_slli_epi32(0xFFFF, load_16_keys(keys.data() + t, lanes), 16);
            _mm512_storeu_si512(
                waiting.tokens.data() + num,
                _mm512_maskz_compress_epi32(lanes, _mm512_or_si512(shifted, places)));
            num += static_cast<std::size_t>(std::popcount(unsigned{lanes}));
            places = _mm512_add_epi32(places, _mm512_set1_epi32(16));
            left >>= 16;
        }
    }
    waiting.num = num;
}

/// Token i of those that wait goes to its place.
[[gnu::always_inline]] inline void place_token(const waiting_tokens& waiting,
                                               std::size_t i,
                                               std::size_t begin,
                                               std::uint32_t* cursors,
                                               std::uint32_t* out) noexcept {
    const std::uint32_t token = waiting.tokens[i];
    out[cursors[token >> 16]++] = static_cast<std::uint32_t>(begin) + (token & 0xFFFFU);
}

/// Candidates are gathered first, so that the loop with the stores has neither bits to search nor
/// branches to guess.
template <typename Key>
KVCRUSH_TARGET_AVX512 inline void scatter_tokens_avx512(std::span<const Key> keys,
                                                        std::span<const std::uint64_t> taken,
                                                        std::span<std::uint32_t> cursors,
                                                        std::span<std::uint32_t> out) noexcept {
    waiting_tokens waiting;
    for (std::size_t begin = 0; begin < keys.size(); begin += waiting.tile_tokens) {
        const std::size_t end = (std::min)(keys.size(), begin + waiting.tile_tokens);
        gather_candidates(keys, taken, begin, end, waiting);
        for (std::size_t i = 0; i < waiting.num; ++i) {
            place_token(waiting, i, begin, cursors.data(), out.data());
        }
    }
}

/// From here on four quarters of the tokens are worth the time to count the keys of three of them.
inline constexpr std::size_t min_tokens_in_quarters = 16384;

/// A cursor that is moved on waits for the last move. Four quarters of the tokens, each with its
/// own cursors, take turns, which takes 0.6 times as long where most keys are equal (Zen 4).
KVCRUSH_TARGET_AVX512 inline void scatter_quarters_avx512(std::span<const std::uint8_t> keys,
                                                          std::span<const std::uint64_t> taken,
                                                          std::span<std::uint32_t> cursors,
                                                          std::span<std::uint32_t> out) noexcept {
    const std::size_t num_keys = (std::min)(cursors.size(), std::size_t{256});
    const std::size_t quarter = taken.size() / 4 * 64; // the last one has the rest, too
    std::array<std::array<std::uint32_t, 256>, 4> own;
    std::copy_n(cursors.begin(), num_keys, own[0].begin());
    for (std::size_t q = 0; q < 3; ++q) {
        const std::span counts = std::span(own[q + 1]).first(num_keys);
        count_keys_avx512(keys.subspan(q * quarter, quarter),
                          taken.subspan(q * quarter / 64, quarter / 64),
                          counts);
        for (std::size_t key = 0; key < num_keys; ++key) {
            counts[key] += own[q][key];
        }
    }
    std::array<waiting_tokens, 4> waiting;
    for (std::size_t t = 0; t < keys.size() - 3 * quarter; t += waiting_tokens::tile_tokens) {
        std::size_t num = waiting_tokens::tile_tokens;
        for (std::size_t q = 0; q < 4; ++q) {
            const std::size_t end = q < 3 ? (q + 1) * quarter : keys.size();
            const std::size_t begin = q * quarter + t;
            gather_candidates(keys,
                              taken,
                              begin,
                              (std::min)(end, begin + waiting_tokens::tile_tokens),
                              waiting[q]);
            num = (std::min)(num, waiting[q].num);
        }
        for (std::size_t i = 0; i < num; ++i) {
            place_token(waiting[0], i, t, own[0].data(), out.data());
            place_token(waiting[1], i, quarter + t, own[1].data(), out.data());
            place_token(waiting[2], i, 2 * quarter + t, own[2].data(), out.data());
            place_token(waiting[3], i, 3 * quarter + t, own[3].data(), out.data());
        }
        for (std::size_t q = 0; q < 4; ++q) {
            for (std::size_t i = num; i < waiting[q].num; ++i) {
                place_token(waiting[q], i, q * quarter + t, own[q].data(), out.data());
            }
        }
    }
    std::copy_n(own[3].begin(), num_keys, cursors.begin());
}

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
#endif
