// SPDX-License-Identifier: Apache-2.0
/// @file
/// Products of a tile of rows with queries, and its weighted sum, in fp32 on AVX2 and NEON. Error of a logit: at most
/// (dim / lanes + 4) * 2^-24 * sum |q| |k|, of a weighted sum of n rows: n * 2^-24 * sum |w| |v|.
///
/// AVX-512 has its own (tile_kernels_avx512.hpp): with twice the registers more rows stay in them, and masks load ends.
#pragma once

#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/simd/detail/rungs/on_rung.hpp>

#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// How rows lie.
template <Element T>
struct elements {};
/// A float, then signed bytes that are to be multiplied with it.
struct scaled_bytes {};

#define KVCRUSH_ALGORITHM <kvcrush/attend/detail/float_kernels.inl>
#include <kvcrush/simd/detail/rungs/each.inl>

/// For rows that lie so, where the rung has them.
template <typename Lying>
void take_float_kernels(row_kernels& table) noexcept {
    KVCRUSH_ON_NARROW_RUNG(detail, table.rung, take_float_kernels<Lying>(table))
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
