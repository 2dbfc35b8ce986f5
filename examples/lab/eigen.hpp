// SPDX-License-Identifier: Apache-2.0
/// @file
/// Eigen, as the engine's sources see it. Not for headers: see matrix.hpp.
#pragma once

#include <cstddef>

// GCC 12 says of its own AVX-512 intrinsics that they read uninitialised registers (gcc.gnu.org/PR105593).
#if defined(__GNUC__) && !defined(__clang__)
#    pragma GCC diagnostic push
#    pragma GCC diagnostic ignored "-Wuninitialized"
#    pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>
#if defined(__GNUC__) && !defined(__clang__)
#    pragma GCC diagnostic pop
#endif

namespace lab {

using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using rows_map = Eigen::Map<row_major>;
using const_rows_map = Eigen::Map<const row_major>;
using array_map = Eigen::Map<Eigen::ArrayXf>;
using const_array_map = Eigen::Map<const Eigen::ArrayXf>;

/// Eigen counts with signed numbers.
[[nodiscard]] constexpr Eigen::Index index(std::size_t value) noexcept {
    return static_cast<Eigen::Index>(value);
}

} // namespace lab
