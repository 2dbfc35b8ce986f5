// SPDX-License-Identifier: Apache-2.0
/// @file
/// The kernels of find_rank_cut with AVX-512: keys of 16 scores at once, vpcompressd to pick those
/// of the bracket. It compresses in a register and then stores: vpcompressd to memory takes 100
/// cycles and more on Zen 4.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/lanes.hpp>
#include <kvcrush/simd/detail/ordered_key_avx.hpp>
#include <kvcrush/simd/detail/rank_cut_search.hpp>
#include <kvcrush/simd/ordered_key.hpp>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace detail {

/// All lanes but the last ones of the last vector: a constant, for which compilers leave the mask
/// out.
inline constexpr __mmask16 all_16_lanes = 0xFFFF;

struct rank_kernels_avx512 {
    /// A key is of rank r at most if r keys of the sample or fewer are larger; the smallest of
    /// those has rank r.
    KVCRUSH_TARGET_AVX512 static key_range
    bracket(std::span<const std::uint32_t> sample, std::size_t above, std::size_t below) noexcept {
        const __m512i one = _mm512_set1_epi32(1);
        __m512i high = _mm512_set1_epi32(-1);
        __m512i low = high;
        for (std::size_t i = 0; i < sample.size(); i += 32) {
            const __m512i a = _mm512_loadu_si512(sample.data() + i);
            const __m512i b = _mm512_loadu_si512(sample.data() + i + 16);
            __m512i larger_a = _mm512_setzero_si512();
            __m512i larger_b = larger_a;
            for (const std::uint32_t key : sample) {
                const __m512i other = _mm512_set1_epi32(static_cast<int>(key));
                larger_a = _mm512_mask_add_epi32(
                    larger_a, _mm512_cmpgt_epu32_mask(other, a), larger_a, one);
                larger_b = _mm512_mask_add_epi32(
                    larger_b, _mm512_cmpgt_epu32_mask(other, b), larger_b, one);
            }
            const __m512i rank_above = _mm512_set1_epi32(static_cast<int>(above));
            const __m512i rank_below = _mm512_set1_epi32(static_cast<int>(below));
            high =
                _mm512_mask_min_epu32(high, _mm512_cmple_epu32_mask(larger_a, rank_above), high, a);
            high =
                _mm512_mask_min_epu32(high, _mm512_cmple_epu32_mask(larger_b, rank_above), high, b);
            low = _mm512_mask_min_epu32(low, _mm512_cmple_epu32_mask(larger_a, rank_below), low, a);
            low = _mm512_mask_min_epu32(low, _mm512_cmple_epu32_mask(larger_b, rank_below), low, b);
        }
        std::array<std::uint32_t, 16> lanes;
        _mm512_storeu_si512(lanes.data(), low);
        key_range range{no_key, no_key};
        for (const std::uint32_t key : lanes) {
            range.low = key < range.low ? key : range.low;
        }
        _mm512_storeu_si512(lanes.data(), high);
        for (const std::uint32_t key : lanes) {
            range.high = key < range.high ? key : range.high;
        }
        return range;
    }

    KVCRUSH_TARGET_AVX512 static std::size_t fill_buckets(std::span<const float> scores,
                                                          key_range range,
                                                          unsigned shift,
                                                          bucket_tables& tables) noexcept {
        return is_positive(range) ? fill<true>(scores, range, shift, tables)
                                  : fill<false>(scores, range, shift, tables);
    }

    KVCRUSH_TARGET_AVX512 static key_counts count(std::span<const float> scores,
                                                  std::uint32_t key) noexcept {
        const __m512i wanted = _mm512_set1_epi32(signed_key(key));
        const __m512i one = _mm512_set1_epi32(1);
        __m512i above = _mm512_setzero_si512();
        __m512i equal = above;
        std::size_t i = 0;
        for (; i + 16 <= scores.size(); i += 16) {
            const __m512i keys = signed_keys_avx512(_mm512_loadu_ps(scores.data() + i));
            above = _mm512_mask_add_epi32(above, _mm512_cmpgt_epi32_mask(keys, wanted), above, one);
            equal = _mm512_mask_add_epi32(equal, _mm512_cmpeq_epi32_mask(keys, wanted), equal, one);
        }
        const __mmask16 rest = first_lanes_avx512(scores.size() - i);
        const __m512i keys = signed_keys_avx512(_mm512_maskz_loadu_ps(rest, scores.data() + i));
        above = _mm512_mask_add_epi32(
            above, _mm512_mask_cmpgt_epi32_mask(rest, keys, wanted), above, one);
        equal = _mm512_mask_add_epi32(
            equal, _mm512_mask_cmpeq_epi32_mask(rest, keys, wanted), equal, one);
        return {sum(above), sum(equal)};
    }

    KVCRUSH_TARGET_AVX512 static std::size_t
    collect(std::span<const float> scores, key_range range, std::uint64_t* out) noexcept {
        return is_positive(range) ? collect_in<true>(scores, range, out)
                                  : collect_in<false>(scores, range, out);
    }

    KVCRUSH_TARGET_AVX512 static key_range tighten(std::span<const float> scores,
                                                   key_range range) noexcept {
        const bounds in{range};
        __m512i low = in.high;
        __m512i high = in.low;
        for (std::size_t i = 0; i < scores.size(); i += 16) {
            const __mmask16 lanes = first_lanes_avx512(scores.size() - i);
            const __m512i keys =
                signed_keys_avx512(_mm512_maskz_loadu_ps(lanes, scores.data() + i));
            const __m512i offset = _mm512_sub_epi32(keys, in.low);
            const __mmask16 inside = _mm512_mask_cmple_epu32_mask(lanes, offset, in.width);
            low = _mm512_mask_min_epi32(low, inside, low, keys);
            high = _mm512_mask_max_epi32(high, inside, high, keys);
        }
        std::array<int, 16> lows;
        std::array<int, 16> highs;
        _mm512_storeu_si512(lows.data(), low);
        _mm512_storeu_si512(highs.data(), high);
        for (std::size_t lane = 1; lane < 16; ++lane) {
            lows[0] = lows[lane] < lows[0] ? lows[lane] : lows[0];
            highs[0] = highs[lane] > highs[0] ? highs[lane] : highs[0];
        }
        return {unsigned_key(lows[0]), unsigned_key(highs[0])};
    }

    KVCRUSH_TARGET_AVX512 static std::size_t
    find_nth(std::span<const float> scores, std::uint32_t key, std::size_t nth) noexcept {
        const __m512i wanted = _mm512_set1_epi32(signed_key(key));
        std::size_t i = 0;
        for (; i + 16 <= scores.size(); i += 16) {
            const __m512i keys = signed_keys_avx512(_mm512_loadu_ps(scores.data() + i));
            const unsigned equal = _mm512_cmpeq_epi32_mask(keys, wanted);
            const auto num = static_cast<std::size_t>(std::popcount(equal));
            if (nth < num) {
                break;
            }
            nth -= num;
        }
        return i + rank_kernels_scalar::find_nth(scores.subspan(i), key, nth);
    }

private:
    struct bounds {
        KVCRUSH_TARGET_AVX512 explicit bounds(key_range range) noexcept
            : low{_mm512_set1_epi32(signed_key(range.low))},
              high{_mm512_set1_epi32(signed_key(range.high))},
              width{_mm512_set1_epi32(static_cast<int>(range.high - range.low))} {}
        __m512i low;
        __m512i high;
        __m512i width;
    };

    /// Both ends belong to scores above zero: then bits of floats order like keys, and what is negative, zero or NaN
    /// lies outside of every such range.
    [[nodiscard]] static bool is_positive(key_range range) noexcept {
        return range.low > positive_zero && range.high <= positive_infinity;
    }
    static constexpr std::uint32_t positive_zero = 0x80000000U;
    static constexpr std::uint32_t positive_infinity = 0xFF800000U;

    /// How far above the low end of the range the keys are, unsigned.
    template <bool Positive>
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static __m512i offsets(__m512 scores,
                                                                        __m512i low) noexcept {
        if constexpr (Positive) {
            return _mm512_sub_epi32(_mm512_castps_si512(scores), low);
        } else {
            return _mm512_sub_epi32(signed_keys_avx512(scores), low);
        }
    }
    template <bool Positive>
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static __m512i low_end(key_range range) noexcept {
        return _mm512_set1_epi32(Positive ? static_cast<int>(range.low ^ positive_zero)
                                          : signed_key(range.low));
    }

    template <bool Positive>
    KVCRUSH_TARGET_AVX512 static std::size_t fill(std::span<const float> scores,
                                                  key_range range,
                                                  unsigned shift,
                                                  bucket_tables& tables) noexcept {
        const __m512i low = low_end<Positive>(range);
        const __m512i width = _mm512_set1_epi32(static_cast<int>(range.high - range.low));
        // Offsets of +infinity (no key of a float is larger), and of all keys that are not below the range.
        const __m512i most = _mm512_set1_epi32(static_cast<int>(positive_infinity - range.low));
        const __m128i bits = _mm_cvtsi32_si128(static_cast<int>(shift));
        const __m512i one = _mm512_set1_epi32(1);
        // Buckets wait here, so that the increments run without a branch per vector.
        std::array<std::uint32_t, 128 + 16> waiting;
        std::size_t num_waiting = 0;
        std::size_t num_inside = 0;
        __m512i at_least = _mm512_setzero_si512();
        for (std::size_t i = 0; i < scores.size(); i += 16) {
            const bool full = scores.size() - i >= 16;
            const __mmask16 lanes = full ? all_16_lanes : first_lanes_avx512(scores.size() - i);
            const __m512 vector = full ? _mm512_loadu_ps(scores.data() + i)
                                       : _mm512_maskz_loadu_ps(lanes, scores.data() + i);
            const __m512i offset = offsets<Positive>(vector, low);
            const __mmask16 inside = _mm512_mask_cmple_epu32_mask(lanes, offset, width);
            const __m512i buckets = _mm512_maskz_srl_epi32(all_16_lanes, offset, bits);
            _mm512_storeu_si512(waiting.data() + num_waiting,
                                _mm512_maskz_compress_epi32(inside, buckets));
            num_waiting += static_cast<std::size_t>(std::popcount(static_cast<unsigned>(inside)));
            at_least = _mm512_mask_add_epi32(
                at_least, _mm512_mask_cmple_epu32_mask(lanes, offset, most), at_least, one);
            if (num_waiting >= 128) {
                count_buckets(waiting.data(), num_waiting, tables);
                num_inside += num_waiting;
                num_waiting = 0;
            }
        }
        count_buckets(waiting.data(), num_waiting, tables);
        return range.high >= positive_infinity ? 0 : sum(at_least) - num_inside - num_waiting;
    }

    template <bool Positive>
    KVCRUSH_TARGET_AVX512 static std::size_t
    collect_in(std::span<const float> scores, key_range range, std::uint64_t* out) noexcept {
        const __m512i low = low_end<Positive>(range);
        const __m512i width = _mm512_set1_epi32(static_cast<int>(range.high - range.low));
        std::uint64_t* const begin = out;
        std::size_t i = 0;
        for (; i + 64 <= scores.size(); i += 64) { // most vectors hold nothing: one branch for four
            const float* const at = scores.data() + i;
            const std::uint64_t a =
                _mm512_cmple_epu32_mask(offsets<Positive>(_mm512_loadu_ps(at), low), width);
            const std::uint64_t b =
                _mm512_cmple_epu32_mask(offsets<Positive>(_mm512_loadu_ps(at + 16), low), width);
            const std::uint64_t c =
                _mm512_cmple_epu32_mask(offsets<Positive>(_mm512_loadu_ps(at + 32), low), width);
            const std::uint64_t d =
                _mm512_cmple_epu32_mask(offsets<Positive>(_mm512_loadu_ps(at + 48), low), width);
            const std::uint64_t any = a | (b << 16) | (c << 32) | (d << 48);
            if (any != 0) {
                out = write_keyed(scores, i, any, out);
            }
        }
        for (; i < scores.size(); i += 16) {
            const __mmask16 rest = first_lanes_avx512(scores.size() - i);
            const __m512 vector = _mm512_maskz_loadu_ps(rest, scores.data() + i);
            out = write_keyed(
                scores,
                i,
                _mm512_mask_cmple_epu32_mask(rest, offsets<Positive>(vector, low), width),
                out);
        }
        return static_cast<std::size_t>(out - begin);
    }

    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static std::uint64_t*
    write_keyed(std::span<const float> scores,
                std::size_t begin,
                std::uint64_t set,
                std::uint64_t* out) noexcept {
        for (; set != 0; set &= set - 1) {
            const std::size_t token = begin + static_cast<std::size_t>(std::countr_zero(set));
            *out++ = keyed_token(ordered_key(scores[token]), token);
        }
        return out;
    }

    KVCRUSH_TARGET_AVX512 static std::size_t sum(__m512i counts) noexcept {
        std::array<std::uint32_t, 16> lanes;
        _mm512_storeu_si512(lanes.data(), counts);
        std::size_t total = 0;
        for (const std::uint32_t lane : lanes) {
            total += lane;
        }
        return total;
    }

    KVCRUSH_TARGET_AVX512 static void
    count_buckets(const std::uint32_t* buckets, std::size_t num, bucket_tables& tables) noexcept {
        std::size_t i = 0;
        for (; i + 4 <= num; i += 4) {
            ++tables[0][buckets[i]];
            ++tables[1][buckets[i + 1]];
            ++tables[2][buckets[i + 2]];
            ++tables[3][buckets[i + 3]];
        }
        for (; i < num; ++i) {
            ++tables[0][buckets[i]];
        }
    }
};

} // namespace detail
} // namespace simd
} // namespace v0
} // namespace kvcrush
#endif
