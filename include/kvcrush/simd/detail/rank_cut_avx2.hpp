// SPDX-License-Identifier: Apache-2.0
/// @file
/// The kernels of find_rank_cut with AVX2: keys of eight scores at once; a table of permutations
/// stands in for the missing compress instruction.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/ordered_key_avx.hpp>
#include <kvcrush/simd/detail/rank_cut_search.hpp>
#include <kvcrush/simd/ordered_key.hpp>

#include <algorithm>
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

/// For each set of eight lanes its members in order, one byte each; what follows them does not
/// matter.
inline constexpr std::array<std::uint64_t, 256> members_of_8_lanes = [] {
    std::array<std::uint64_t, 256> members{};
    for (unsigned set = 0; set < 256; ++set) {
        unsigned place = 0;
        for (std::uint64_t lane = 0; lane < 8; ++lane) {
            if (((set >> lane) & 1U) != 0) {
                members[set] |= lane << (8 * place++);
            }
        }
    }
    return members;
}();

/// Moves the lanes of `set` to the front.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline __m256i compress_avx2(__m256i lanes,
                                                                        unsigned set) noexcept {
    const __m128i members = _mm_cvtsi64_si128(static_cast<long long>(members_of_8_lanes[set]));
    return _mm256_permutevar8x32_epi32(lanes, _mm256_cvtepu8_epi32(members));
}

/// Bit l: left[l] <= right[l], unsigned.
[[gnu::always_inline]] KVCRUSH_TARGET_AVX2 inline unsigned at_most_avx2(__m256i left,
                                                                        __m256i right) noexcept {
    const __m256i at_most = _mm256_cmpeq_epi32(_mm256_min_epu32(left, right), left);
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(at_most)));
}

struct rank_kernels_avx2 : rank_kernels_scalar {
    KVCRUSH_TARGET_AVX2 static std::size_t fill_buckets(std::span<const float> scores,
                                                        key_range range,
                                                        unsigned shift,
                                                        bucket_tables& tables) noexcept {
        const __m256i low = _mm256_set1_epi32(signed_key(range.low));
        const __m256i high = _mm256_set1_epi32(signed_key(range.high));
        const __m256i width = _mm256_set1_epi32(static_cast<int>(range.high - range.low));
        const __m128i bits = _mm_cvtsi32_si128(static_cast<int>(shift));
        std::array<std::uint32_t, 128 + 8> waiting;
        std::size_t num_waiting = 0;
        std::size_t above = 0;
        std::size_t i = 0;
        for (; i + 8 <= scores.size(); i += 8) {
            const __m256i keys = signed_keys_avx2(_mm256_loadu_ps(scores.data() + i));
            const __m256i offset = _mm256_sub_epi32(keys, low);
            const unsigned inside = at_most_avx2(offset, width);
            const unsigned larger = greater_avx2(keys, high);
            const __m256i buckets = compress_avx2(_mm256_srl_epi32(offset, bits), inside);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(waiting.data() + num_waiting), buckets);
            above += static_cast<std::size_t>(std::popcount(larger));
            num_waiting += static_cast<std::size_t>(std::popcount(inside));
            if (num_waiting >= 128) {
                count_buckets(waiting.data(), num_waiting, tables);
                num_waiting = 0;
            }
        }
        count_buckets(waiting.data(), num_waiting, tables);
        return above + rank_kernels_scalar::fill_buckets(scores.subspan(i), range, shift, tables);
    }

    KVCRUSH_TARGET_AVX2 static key_counts count(std::span<const float> scores,
                                                std::uint32_t key) noexcept {
        const __m256i wanted = _mm256_set1_epi32(signed_key(key));
        std::size_t larger = 0;
        std::size_t smaller = 0;
        std::size_t i = 0;
        for (; i + 8 <= scores.size(); i += 8) {
            const __m256i keys = signed_keys_avx2(_mm256_loadu_ps(scores.data() + i));
            larger += static_cast<std::size_t>(std::popcount(greater_avx2(keys, wanted)));
            smaller += static_cast<std::size_t>(std::popcount(greater_avx2(wanted, keys)));
        }
        const key_counts rest = rank_kernels_scalar::count(scores.subspan(i), key);
        return {larger + rest.above, i - larger - smaller + rest.within};
    }

    KVCRUSH_TARGET_AVX2 static key_range tighten(std::span<const float> scores,
                                                 key_range range) noexcept {
        const __m256i low = _mm256_set1_epi32(signed_key(range.low));
        const __m256i high = _mm256_set1_epi32(signed_key(range.high));
        __m256i smallest = high;
        __m256i largest = low;
        std::size_t i = 0;
        for (; i + 8 <= scores.size(); i += 8) {
            const __m256i keys = signed_keys_avx2(_mm256_loadu_ps(scores.data() + i));
            // Keys outside count as the far end of the range, which changes nothing.
            const __m256i too_small = _mm256_cmpgt_epi32(low, keys);
            const __m256i too_large = _mm256_cmpgt_epi32(keys, high);
            smallest = _mm256_min_epi32(smallest, _mm256_blendv_epi8(keys, high, too_small));
            largest = _mm256_max_epi32(largest, _mm256_blendv_epi8(keys, low, too_large));
        }
        std::array<int, 8> lows;
        std::array<int, 8> highs;
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(lows.data()), smallest);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(highs.data()), largest);
        key_range tight = rank_kernels_scalar::tighten(scores.subspan(i), range);
        for (std::size_t lane = 0; lane < 8; ++lane) {
            tight.low = (std::min)(tight.low, unsigned_key(lows[lane]));
            tight.high = (std::max)(tight.high, unsigned_key(highs[lane]));
        }
        return tight;
    }

    KVCRUSH_TARGET_AVX2 static std::size_t
    find_nth(std::span<const float> scores, std::uint32_t key, std::size_t nth) noexcept {
        const __m256i wanted = _mm256_set1_epi32(signed_key(key));
        std::size_t i = 0;
        for (; i + 8 <= scores.size(); i += 8) {
            const __m256i equal =
                _mm256_cmpeq_epi32(signed_keys_avx2(_mm256_loadu_ps(scores.data() + i)), wanted);
            const auto lanes =
                static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(equal)));
            const auto num = static_cast<std::size_t>(std::popcount(lanes));
            if (nth < num) {
                break;
            }
            nth -= num;
        }
        return i + rank_kernels_scalar::find_nth(scores.subspan(i), key, nth);
    }

    KVCRUSH_TARGET_AVX2 static std::size_t
    collect(std::span<const float> scores, key_range range, std::uint64_t* out) noexcept {
        const __m256i low = _mm256_set1_epi32(signed_key(range.low));
        const __m256i width = _mm256_set1_epi32(static_cast<int>(range.high - range.low));
        std::size_t num = 0;
        std::size_t i = 0;
        for (; i + 8 <= scores.size(); i += 8) {
            const __m256i keys = signed_keys_avx2(_mm256_loadu_ps(scores.data() + i));
            unsigned inside = at_most_avx2(_mm256_sub_epi32(keys, low), width);
            for (; inside != 0; inside &= inside - 1) {
                const std::size_t token = i + static_cast<std::size_t>(std::countr_zero(inside));
                out[num++] = keyed_token(ordered_key(scores[token]), token);
            }
        }
        for (; i < scores.size(); ++i) {
            const std::uint32_t key = ordered_key(scores[i]);
            if (key - range.low <= range.high - range.low) {
                out[num++] = keyed_token(key, i);
            }
        }
        return num;
    }

private:
    KVCRUSH_TARGET_AVX2 static void
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
