// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rows as indices of a small table of values, 2 to 5 bits each: finding the nearest value by a binary search whose
/// thresholds come out of a register (vpermps), packing by pext, and reading back by a variable shift and vpermps.
///
/// All rungs compare the same products with the same thresholds, and add in 16 running sums, so codes and sums are the
/// same bit for bit. Bits of element i: [Bits * i, Bits * i + Bits) of the row, read as one little-endian number.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/isa.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// A table of 2^Bits values and what the search for the nearest one reads.
template <std::size_t Bits>
    requires(Bits >= 2 && Bits <= 5)
struct codebook {
    static constexpr std::size_t size = std::size_t{1} << Bits;

    static constexpr std::size_t capacity = size < 16 ? 16 : size;

    /// The values, repeated up to 16: registers then need no mask on the bits behind a code.
    std::array<float, capacity> values{};
    std::array<float, capacity> squares{};
    /// tree[s][p]: what decides bit s of a code, from the top, if the bits above it are p.
    std::array<std::array<float, 16>, Bits> tree{};

    /// @param table       ascending
    /// @param thresholds  the code of y is the number of thresholds <= y; ascending
    constexpr codebook(const std::array<float, size>& table,
                       const std::array<float, size - 1>& thresholds) noexcept {
        for (std::size_t k = 0; k < capacity; ++k) {
            values[k] = table[k % size];
            squares[k] = values[k] * values[k];
        }
        for (std::size_t step = 0; step < Bits; ++step) {
            for (std::size_t path = 0; path < (std::size_t{1} << step); ++path) {
                tree[step][path] = thresholds[((2 * path + 1) << (Bits - 1 - step)) - 1];
            }
        }
    }
};

namespace detail {

template <typename T>
[[nodiscard]] inline T sum_of_lanes(std::array<T, 16> lanes) noexcept {
    for (std::size_t half = 8; half > 0; half /= 2) {
        for (std::size_t j = 0; j < half; ++j) {
            lanes[j] += lanes[j + half];
        }
    }
    return lanes[0];
}

/// Products of floats are exact in double, so it does not matter whether a rung fuses.
inline void add_squares(const float* values,
                        std::size_t begin,
                        std::size_t size,
                        std::array<double, 16>& lanes) noexcept {
    for (std::size_t i = begin; i < size; ++i) {
        lanes[i % 16] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    }
}

template <std::size_t Bits>
struct encode_codes_args {
    const codebook<Bits>* book;
    const float* values;
    std::size_t size;
    float factor;
    std::byte* out; ///< nullptr: nothing is written
};

/// Elements from `begin`, a multiple of 8, on.
template <std::size_t Bits>
void encode_codes_from(const encode_codes_args<Bits>& args,
                       std::size_t begin,
                       std::array<float, 16>& lanes) noexcept {
    for (std::size_t i = begin; i < args.size; i += 8) {
        const std::size_t count = args.size - i < 8 ? args.size - i : 8;
        std::uint64_t word = 0;
        for (std::size_t j = 0; j < count; ++j) {
            const float y = args.values[i + j] * args.factor;
            std::uint64_t code = 0;
            for (std::size_t step = 0; step < Bits; ++step) {
                code = 2 * code + (y >= args.book->tree[step][code] ? 1U : 0U);
            }
            lanes[(i + j) % 16] += args.book->squares[code];
            word |= code << (Bits * j);
        }
        if (args.out != nullptr) {
            for (std::size_t b = 0; 8 * b < Bits * count; ++b) {
                args.out[Bits * i / 8 + b] = static_cast<std::byte>(word >> (8 * b));
            }
        }
    }
}

template <std::size_t Bits>
struct decode_codes_args {
    const codebook<Bits>* book;
    const std::byte* codes;
    std::size_t size;
    float factor;
    float* out;
};

/// Elements from `begin`, a multiple of 8, on.
template <std::size_t Bits>
void decode_codes_from(const decode_codes_args<Bits>& args, std::size_t begin) noexcept {
    for (std::size_t i = begin; i < args.size; i += 8) {
        const std::size_t count = args.size - i < 8 ? args.size - i : 8;
        std::uint64_t word = 0;
        for (std::size_t b = 0; 8 * b < Bits * count; ++b) {
            word |= std::to_integer<std::uint64_t>(args.codes[Bits * i / 8 + b]) << (8 * b);
        }
        for (std::size_t j = 0; j < count; ++j) {
            const std::uint64_t code = (word >> (Bits * j)) % codebook<Bits>::size;
            args.out[i + j] = args.book->values[code] * args.factor;
        }
    }
}

#if KVCRUSH_X86_DISPATCH

/// 16 codes, one per byte, as Bits bits each.
template <std::size_t Bits>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline void store_codes(__m128i codes,
                                                                   std::byte* out) noexcept {
    constexpr std::uint64_t used = 0x0101010101010101U * ((1U << Bits) - 1U);
    const std::uint64_t low = _pext_u64(static_cast<std::uint64_t>(_mm_cvtsi128_si64(codes)), used);
    const std::uint64_t high =
        _pext_u64(static_cast<std::uint64_t>(_mm_extract_epi64(codes, 1)), used);
    std::memcpy(out, &low, Bits);
    std::memcpy(out + Bits, &high, Bits);
}

/// Codes of up to 4 bits: where two 32-bit words lie that hold the 2 * Bits bytes of 16 codes, without a byte behind them.
template <std::size_t Bits>
inline constexpr std::size_t second_word = 2 * Bits - 4;

/// What shifts code j into the low bits of its word.
template <std::size_t Bits>
inline constexpr std::array<std::int32_t, 16> code_shifts = [] {
    std::array<std::int32_t, 16> shifts{};
    for (std::size_t j = 0; j < 16; ++j) {
        shifts[j] = static_cast<std::int32_t>(
            Bits == 5 ? 5 * j % 8 : Bits * j - (j < 8 ? 0 : 8 * second_word<Bits>));
    }
    return shifts;
}();

/// Codes of 5 bits: each gets 16 bits of its own out of the 10 bytes of sixteen, in which it lies at code_shifts.
inline constexpr std::array<std::uint8_t, 32> five_bit_pairs = [] {
    std::array<std::uint8_t, 32> bytes{};
    for (std::size_t j = 0; j < 16; ++j) {
        bytes[2 * j] = static_cast<std::uint8_t>(5 * j / 8);
        bytes[2 * j + 1] =
            static_cast<std::uint8_t>(5 * j / 8 + 1); // 10, which is 0, where nothing is left
    }
    return bytes;
}();

[[gnu::always_inline]] inline int word_at(const std::byte* bytes) noexcept {
    int word = 0;
    std::memcpy(&word, bytes, sizeof word);
    return word;
}

/// The order of sum_of_lanes.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline double sum_of_4(__m256d lanes) noexcept {
    const __m128d pairs =
        _mm_add_pd(_mm256_castpd256_pd128(lanes), _mm256_extractf128_pd(lanes, 1));
    return _mm_cvtsd_f64(_mm_add_sd(pairs, _mm_unpackhi_pd(pairs, pairs)));
}
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline float sum_of_8(__m256 lanes) noexcept {
    const __m128 fours = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    const __m128 pairs = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
    return _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)));
}

KVCRUSH_TARGET_AVX2 inline double square_sum_avx2(const float* values, std::size_t size) noexcept {
    __m256d sum0 = _mm256_setzero_pd();
    __m256d sum1 = _mm256_setzero_pd();
    __m256d sum2 = _mm256_setzero_pd();
    __m256d sum3 = _mm256_setzero_pd();
    std::size_t i = 0;
    for (; i + 16 <= size; i += 16) {
        const __m256d a = _mm256_cvtps_pd(_mm_loadu_ps(values + i));
        const __m256d b = _mm256_cvtps_pd(_mm_loadu_ps(values + i + 4));
        const __m256d c = _mm256_cvtps_pd(_mm_loadu_ps(values + i + 8));
        const __m256d d = _mm256_cvtps_pd(_mm_loadu_ps(values + i + 12));
        sum0 = _mm256_fmadd_pd(a, a, sum0);
        sum1 = _mm256_fmadd_pd(b, b, sum1);
        sum2 = _mm256_fmadd_pd(c, c, sum2);
        sum3 = _mm256_fmadd_pd(d, d, sum3);
    }
    if (i == size) {
        return sum_of_4(_mm256_add_pd(_mm256_add_pd(sum0, sum2), _mm256_add_pd(sum1, sum3)));
    }
    std::array<double, 16> lanes;
    _mm256_storeu_pd(lanes.data(), sum0);
    _mm256_storeu_pd(lanes.data() + 4, sum1);
    _mm256_storeu_pd(lanes.data() + 8, sum2);
    _mm256_storeu_pd(lanes.data() + 12, sum3);
    add_squares(values, i, size, lanes);
    return sum_of_lanes(lanes);
}

/// The 16 bits that each of 16 codes of 5 bits lies in.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i
five_bit_words(const std::byte* codes) noexcept {
    std::int64_t first = 0;
    std::uint16_t last = 0;
    std::memcpy(&first, codes, sizeof first);
    std::memcpy(&last, codes + sizeof first, sizeof last);
    const __m128i bytes = _mm_insert_epi16(_mm_cvtsi64_si128(first), last, 4);
    return _mm256_shuffle_epi8(
        _mm256_broadcastsi128_si256(bytes),
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(five_bit_pairs.data())));
}

/// Words that hold codes 8 * Half ... 8 * Half + 7 of sixteen, each at its shift.
template <std::size_t Bits, int Half>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i
code_words_avx2(const std::byte* codes) noexcept {
    if constexpr (Bits == 5) {
        return _mm256_cvtepu16_epi32(_mm256_extracti128_si256(five_bit_words(codes), Half));
    } else {
        return _mm256_set1_epi32(word_at(codes + (Half == 0 ? 0 : second_word<Bits>)));
    }
}

template <std::size_t Bits>
inline constexpr std::size_t table_parts_avx2 = Bits <= 3 ? 1 : (std::size_t{1} << Bits) / 8;

/// table[codes], codes below 2^Bits; bits above them do not matter.
/// @param table  table_parts_avx2<Bits> registers
template <std::size_t Bits>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256 look_up_avx2(const __m256* table,
                                                                      __m256i codes) noexcept {
    if constexpr (Bits <= 3) {
        return _mm256_permutevar8x32_ps(table[0], codes);
    } else {
        const __m256 low = look_up_avx2<Bits - 1>(table, codes);
        const __m256 high = look_up_avx2<Bits - 1>(table + table_parts_avx2<Bits - 1>, codes);
        constexpr int to_sign = 32 - static_cast<int>(Bits);
        return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(codes, to_sign)));
    }
}

/// Registers of tree[0], tree[1], ...: two of the fifth, which has 16 thresholds.
template <std::size_t Bits>
inline constexpr std::size_t tree_parts_avx2 = Bits == 5 ? 6 : Bits;

template <std::size_t Bits, std::size_t Step = 0>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i
search_avx2(__m256 y, const __m256* tree, __m256i path) noexcept {
    if constexpr (Step == Bits) {
        return path;
    } else {
        constexpr std::size_t path_bits = Step < 3 ? 3 : Step;
        const __m256 threshold = Step == 0 ? tree[0] : look_up_avx2<path_bits>(tree + Step, path);
        const __m256i above = _mm256_castps_si256(_mm256_cmp_ps(y, threshold, _CMP_GE_OQ));
        return search_avx2<Bits, Step + 1>(
            y, tree, _mm256_sub_epi32(_mm256_add_epi32(path, path), above));
    }
}

template <std::size_t Bits>
KVCRUSH_TARGET_AVX2 inline float encode_codes_avx2(const encode_codes_args<Bits>& args) noexcept {
    const codebook<Bits>& book = *args.book;
    const __m256 factor = _mm256_set1_ps(args.factor);
    __m256 squares[table_parts_avx2<Bits>];
    for (std::size_t k = 0; k < table_parts_avx2<Bits>; ++k) {
        squares[k] = _mm256_loadu_ps(book.squares.data() + 8 * k);
    }
    __m256 tree[tree_parts_avx2<Bits>];
    tree[0] = _mm256_set1_ps(book.tree[0][0]);
    for (std::size_t part = 1; part < tree_parts_avx2<Bits>; ++part) {
        tree[part] =
            _mm256_loadu_ps(part < Bits ? book.tree[part].data() : book.tree[Bits - 1].data() + 8);
    }
    __m256 sum0 = _mm256_setzero_ps();
    __m256 sum1 = _mm256_setzero_ps();
    std::size_t i = 0;
    for (; i + 16 <= args.size; i += 16) {
        const __m256 a = _mm256_mul_ps(_mm256_loadu_ps(args.values + i), factor);
        const __m256 b = _mm256_mul_ps(_mm256_loadu_ps(args.values + i + 8), factor);
        const __m256i first = search_avx2<Bits>(a, tree, _mm256_setzero_si256());
        const __m256i second = search_avx2<Bits>(b, tree, _mm256_setzero_si256());
        sum0 = _mm256_add_ps(sum0, look_up_avx2<Bits>(squares, first));
        sum1 = _mm256_add_ps(sum1, look_up_avx2<Bits>(squares, second));
        const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(first, second), 0xD8);
        store_codes<Bits>(
            _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)),
            args.out + Bits * i / 8);
    }
    if (i == args.size) {
        return sum_of_8(_mm256_add_ps(sum0, sum1));
    }
    std::array<float, 16> lanes;
    _mm256_storeu_ps(lanes.data(), sum0);
    _mm256_storeu_ps(lanes.data() + 8, sum1);
    encode_codes_from(args, i, lanes);
    return sum_of_lanes(lanes);
}

template <std::size_t Bits>
KVCRUSH_TARGET_AVX2 inline void decode_codes_avx2(const decode_codes_args<Bits>& args) noexcept {
    const __m256 factor = _mm256_set1_ps(args.factor);
    __m256 table[table_parts_avx2<Bits>];
    for (std::size_t k = 0; k < table_parts_avx2<Bits>; ++k) {
        table[k] = _mm256_mul_ps(_mm256_loadu_ps(args.book->values.data() + 8 * k), factor);
    }
    const std::int32_t* const shifts = code_shifts<Bits>.data();
    const __m256i first_shifts = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(shifts));
    const __m256i second_shifts = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(shifts + 8));
    std::size_t i = 0;
    for (; i + 16 <= args.size; i += 16) {
        const std::byte* const codes = args.codes + Bits * i / 8;
        const __m256i first = _mm256_srlv_epi32(code_words_avx2<Bits, 0>(codes), first_shifts);
        const __m256i second = _mm256_srlv_epi32(code_words_avx2<Bits, 1>(codes), second_shifts);
        _mm256_storeu_ps(args.out + i, look_up_avx2<Bits>(table, first));
        _mm256_storeu_ps(args.out + i + 8, look_up_avx2<Bits>(table, second));
    }
    decode_codes_from(args, i);
}

KVCRUSH_TARGET_AVX512 inline double square_sum_avx512(const float* values,
                                                      std::size_t size) noexcept {
    __m512d sum0 = _mm512_setzero_pd();
    __m512d sum1 = _mm512_setzero_pd();
    std::size_t i = 0;
    for (; i + 16 <= size; i += 16) {
        const __m512d a = _mm512_maskz_cvtps_pd(0xFF, _mm256_loadu_ps(values + i));
        const __m512d b = _mm512_maskz_cvtps_pd(0xFF, _mm256_loadu_ps(values + i + 8));
        sum0 = _mm512_fmadd_pd(a, a, sum0);
        sum1 = _mm512_fmadd_pd(b, b, sum1);
    }
    if (i == size) {
        const __m512d sum = _mm512_add_pd(sum0, sum1);
        return sum_of_4(_mm256_add_pd(_mm512_maskz_extractf64x4_pd(0xFF, sum, 0),
                                      _mm512_maskz_extractf64x4_pd(0xFF, sum, 1)));
    }
    std::array<double, 16> lanes;
    _mm512_storeu_pd(lanes.data(), sum0);
    _mm512_storeu_pd(lanes.data() + 8, sum1);
    add_squares(values, i, size, lanes);
    return sum_of_lanes(lanes);
}

/// A table of up to 32 values.
struct table_avx512 {
    __m512 low, high; ///< high: with 5 bits
};

template <std::size_t Bits>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline table_avx512
load_table_avx512(const float* values, float factor) noexcept {
    const __m512 by = _mm512_set1_ps(factor);
    const __m512 low = _mm512_mul_ps(_mm512_loadu_ps(values), by);
    return {low, Bits == 5 ? _mm512_mul_ps(_mm512_loadu_ps(values + 16), by) : low};
}

/// table[codes], codes below 2^Bits. Bits above them do not matter: vpermps reads 4, vpermt2ps 5, and tables repeat.
template <std::size_t Bits>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512 look_up_avx512(const table_avx512& table,
                                                                          __m512i codes) noexcept {
    if constexpr (Bits == 5) {
        return _mm512_permutex2var_ps(table.low, codes, table.high);
    } else {
        return _mm512_maskz_permutexvar_ps(0xFFFF, codes, table.low);
    }
}

/// 16 codes, each with others above it. No byte behind them is read.
template <std::size_t Bits>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
load_codes_avx512(const std::byte* codes) noexcept {
    const __m512i shifts = _mm512_loadu_si512(code_shifts<Bits>.data());
    __m512i words;
    if constexpr (Bits == 5) {
        words = _mm512_maskz_cvtepu16_epi32(0xFFFF, five_bit_words(codes));
    } else {
        words = _mm512_set1_epi32(word_at(codes));
        if constexpr (second_word<Bits> != 0) {
            words = _mm512_mask_broadcastd_epi32(
                words, 0xFF00, _mm_cvtsi32_si128(word_at(codes + second_word<Bits>)));
        }
    }
    return _mm512_maskz_srlv_epi32(0xFFFF, words, shifts);
}

template <std::size_t Bits, std::size_t Step = 0>
[[gnu::always_inline]] KVCRUSH_TARGET_AVX512 inline __m512i
search_avx512(__m512 y, const __m512* tree, __m512i path) noexcept {
    if constexpr (Step == Bits) {
        return path;
    } else {
        const __m512 threshold =
            Step == 0 ? tree[0] : _mm512_maskz_permutexvar_ps(0xFFFF, path, tree[Step]);
        const __mmask16 above = _mm512_cmp_ps_mask(y, threshold, _CMP_GE_OQ);
        const __m512i twice = _mm512_add_epi32(path, path);
        return search_avx512<Bits, Step + 1>(
            y, tree, _mm512_mask_add_epi32(twice, above, twice, _mm512_set1_epi32(1)));
    }
}

template <std::size_t Bits>
KVCRUSH_TARGET_AVX512 inline float
encode_codes_avx512(const encode_codes_args<Bits>& args) noexcept {
    const codebook<Bits>& book = *args.book;
    const __m512 factor = _mm512_set1_ps(args.factor);
    const table_avx512 squares = load_table_avx512<Bits>(book.squares.data(), 1.0F);
    __m512 tree[Bits];
    tree[0] = _mm512_set1_ps(book.tree[0][0]);
    for (std::size_t step = 1; step < Bits; ++step) {
        tree[step] = _mm512_loadu_ps(book.tree[step].data());
    }
    __m512 sum = _mm512_setzero_ps();
    std::size_t i = 0;
    for (; i + 16 <= args.size; i += 16) {
        const __m512 y = _mm512_mul_ps(_mm512_loadu_ps(args.values + i), factor);
        const __m512i codes = search_avx512<Bits>(y, tree, _mm512_setzero_si512());
        sum = _mm512_add_ps(sum, look_up_avx512<Bits>(squares, codes));
        store_codes<Bits>(_mm512_maskz_cvtepi32_epi8(0xFFFF, codes), args.out + Bits * i / 8);
    }
    if (i == args.size) {
        return sum_of_8(_mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xFF, sum, 0),
                                      _mm512_maskz_extractf32x8_ps(0xFF, sum, 1)));
    }
    std::array<float, 16> lanes;
    _mm512_storeu_ps(lanes.data(), sum);
    encode_codes_from(args, i, lanes);
    return sum_of_lanes(lanes);
}

template <std::size_t Bits>
KVCRUSH_TARGET_AVX512 inline void
decode_codes_avx512(const decode_codes_args<Bits>& args) noexcept {
    const table_avx512 table = load_table_avx512<Bits>(args.book->values.data(), args.factor);
    std::size_t i = 0;
    for (; i + 16 <= args.size; i += 16) {
        const __m512i codes = load_codes_avx512<Bits>(args.codes + Bits * i / 8);
        _mm512_storeu_ps(args.out + i, look_up_avx512<Bits>(table, codes));
    }
    decode_codes_from(args, i);
}

#endif // KVCRUSH_X86_DISPATCH

} // namespace detail

/// Sum of squares in double, in 16 running sums: the same on every rung, +inf or NaN exactly if a value is not finite.
[[nodiscard]] inline double square_sum(std::span<const float> values,
                                       isa at_most = best()) noexcept {
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::square_sum_avx512(values.data(), values.size());
    case isa::avx2: return detail::square_sum_avx2(values.data(), values.size());
#endif
    default: break;
    }
    std::array<double, 16> lanes{};
    detail::add_squares(values.data(), 0, values.size(), lanes);
    return detail::sum_of_lanes(lanes);
}

/// Writes the codes of factor * values.
///
/// @param[out] out  (Bits * values.size() + 7) / 8 bytes; empty: codes are chosen but not written
/// @return the sum of the squares of the chosen values of the table
template <std::size_t Bits>
float encode_codes(const codebook<Bits>& book,
                   std::span<const float> values,
                   float factor,
                   std::span<std::byte> out,
                   isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(out.empty() || out.size() == (Bits * values.size() + 7) / 8);
    const detail::encode_codes_args<Bits> args{
        &book, values.data(), values.size(), factor, out.empty() ? nullptr : out.data()};
    switch (out.empty() ? isa::scalar : usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::encode_codes_avx512(args);
    case isa::avx2: return detail::encode_codes_avx2(args);
#endif
    default: break;
    }
    std::array<float, 16> lanes{};
    detail::encode_codes_from(args, 0, lanes);
    return detail::sum_of_lanes(lanes);
}

/// out[i] = factor * value of code i.
template <std::size_t Bits>
void decode_codes(const codebook<Bits>& book,
                  std::span<const std::byte> codes,
                  float factor,
                  std::span<float> out,
                  isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(codes.size() == (Bits * out.size() + 7) / 8);
    const detail::decode_codes_args<Bits> args{&book, codes.data(), out.size(), factor, out.data()};
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::decode_codes_avx512(args);
    case isa::avx2: return detail::decode_codes_avx2(args);
#endif
    default: return detail::decode_codes_from(args, 0);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
