// SPDX-License-Identifier: Apache-2.0
/// @file
/// The indices of the k best scores.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/top_k_avx.hpp>
#include <kvcrush/simd/isa.hpp>
#include <kvcrush/simd/rank_cut.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace kvcrush {
inline namespace v0 {
namespace simd {

namespace detail {

inline std::size_t write_inside_scalar(std::span<const float> scores,
                                       rank_cut cut,
                                       std::span<std::uint32_t> out,
                                       std::uint32_t offset) noexcept {
    std::size_t num = 0;
    for (std::size_t i = 0; i < scores.size(); ++i) {
        if (cut.contains(scores[i], i)) {
            out[num++] = offset + static_cast<std::uint32_t>(i);
        }
    }
    return num;
}

} // namespace detail

/// Writes the indices of the k best scores, ascending: the larger ones, of equal ones the earlier,
/// NaN last.
///
/// @param[in]  scores  fewer than 2^32
/// @param[in]  k       at least 0; above scores.size() all are written
/// @param[out] out     at least min(k, scores.size()) elements; nothing is written behind those
/// @param[in]  offset  added to every index: where `scores` begins in the sequence
/// @return min(k, scores.size())
/// @note  O(scores.size()); the same indices on every rung
inline std::size_t top_k(std::span<const float> scores,
                         std::size_t k,
                         std::span<std::uint32_t> out,
                         std::uint32_t offset = 0,
                         isa at_most = best()) noexcept {
    const std::size_t kept = (std::min)(k, scores.size());
    KVCRUSH_ASSERT(out.size() >= kept);
    out = out.first(kept);
    const rank_cut cut = find_rank_cut(scores, k, at_most);
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::write_inside_avx512(scores, cut, out, offset);
    case isa::avx2: return detail::write_inside_avx2(scores, cut, out, offset);
#endif
    default: return detail::write_inside_scalar(scores, cut, out, offset);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
