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
        const bounds in{range};
        const __m128i bits = _mm_cvtsi32_si128(static_cast<int>(shift));
        // Buckets wait here, so that the increments run without a branch per vector.
        std::array<std::uint32_t, 128 + 16> waiting;
        std::size_t num_waiting = 0;
        __m512i above = _mm512_setzero_si512();
        std::size_t i = 0;
        for (; i + 16 <= scores.size(); i += 16) {
            num_waiting += wait(_mm512_loadu_ps(scores.data() + i),
                                all_16_lanes,
                                in,
                                bits,
                                waiting.data() + num_waiting,
                                above);
            if (num_waiting >= 128) {
                count_buckets(waiting.data(), num_waiting, tables);
                num_waiting = 0;
            }
        }
        const __mmask16 rest = first_lanes_avx512(scores.size() - i);
        num_waiting += wait(_mm512_maskz_loadu_ps(rest, scores.data() + i),
                            rest,
                            in,
                            bits,
                            waiting.data() + num_waiting,
                            above);
        count_buckets(waiting.data(), num_waiting, tables);
        return sum(above);
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
        const bounds in{range};
        std::uint64_t* const begin = out;
        std::size_t i = 0;
        for (; i + 32 <= scores.size(); i += 32) { // most vectors hold nothing: one branch for two
            const unsigned a = members(_mm512_loadu_ps(scores.data() + i), all_16_lanes, in);
            const unsigned b = members(_mm512_loadu_ps(scores.data() + i + 16), all_16_lanes, in);
            if ((a | b) != 0) {
                out = write_keyed(scores, i, a | (b << 16), out);
            }
        }
        for (; i < scores.size(); i += 16) {
            const __mmask16 rest = first_lanes_avx512(scores.size() - i);
            out = write_keyed(
                scores, i, members(_mm512_maskz_loadu_ps(rest, scores.data() + i), rest, in), out);
        }
        return static_cast<std::size_t>(out - begin);
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

    /// The lanes whose key is in the range.
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static __mmask16
    members(__m512 scores, __mmask16 lanes, const bounds& in) noexcept {
        const __m512i offset = _mm512_sub_epi32(signed_keys_avx512(scores), in.low);
        return _mm512_mask_cmple_epu32_mask(lanes, offset, in.width);
    }

    /// Stores the buckets of the keys in the range, returns how many, and counts the keys above it.
    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static std::size_t wait(__m512 scores,
                                                                         __mmask16 lanes,
                                                                         const bounds& in,
                                                                         __m128i shift,
                                                                         std::uint32_t* waiting,
                                                                         __m512i& above) noexcept {
        const __m512i keys = signed_keys_avx512(scores);
        const __m512i offset = _mm512_sub_epi32(keys, in.low);
        const __mmask16 inside = _mm512_mask_cmple_epu32_mask(lanes, offset, in.width);
        const __m512i buckets = _mm512_maskz_srl_epi32(all_16_lanes, offset, shift);
        _mm512_storeu_si512(waiting, _mm512_maskz_compress_epi32(inside, buckets));
        const __mmask16 larger = _mm512_mask_cmpgt_epi32_mask(lanes, keys, in.high);
        above = _mm512_mask_add_epi32(above, larger, above, _mm512_set1_epi32(1));
        return static_cast<std::size_t>(std::popcount(static_cast<unsigned>(inside)));
    }

    [[gnu::always_inline]] KVCRUSH_TARGET_AVX512 static std::uint64_t*
    write_keyed(std::span<const float> scores,
                std::size_t begin,
                unsigned set,
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
