// SPDX-License-Identifier: Apache-2.0
/// @file
/// The exact boundary of the k best scores, in linear time and without moving a score.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/rank_cut_avx2.hpp>
#include <kvcrush/simd/detail/rank_cut_avx512.hpp>
#include <kvcrush/simd/detail/rank_cut_search.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/ordered_key.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// Finds the k best scores: the larger ones, of equal ones the earlier, NaN after everything else.
///
/// @param[in] scores  fewer than 2^32
/// @param[in] k       0 gives a cut that holds nothing, scores.size() and more one that holds
///   everything
/// @return the cut of which exactly min(k, scores.size()) tokens are inside, the same on every rung
/// @note  O(scores.size()) whatever the scores: two or three passes, at most ten; 10 KB of stack,
///   no other memory
[[nodiscard]] inline rank_cut
find_rank_cut(std::span<const float> scores, std::size_t k, isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(scores.size() <= (std::numeric_limits<std::uint32_t>::max)());
    if (k == 0) {
        return {no_key, 0};
    }
    if (k >= scores.size()) {
        return {0, scores.size()};
    }
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::search_rank_cut<detail::rank_kernels_avx512>(scores, k);
    case isa::avx2: return detail::search_rank_cut<detail::rank_kernels_avx2>(scores, k);
#endif
    default: return detail::search_rank_cut<detail::rank_kernels_scalar>(scores, k);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
