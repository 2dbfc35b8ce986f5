// SPDX-License-Identifier: Apache-2.0
/// @file
/// The direction that rows have in common: the first right singular vector of a matrix of rows. Needs Eigen, so that it
/// is no part of kvcrush.hpp.
#pragma once

#include <kvcrush/config.hpp>

#include <Eigen/Eigenvalues>

#include <cstddef>
#include <span>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// The eigenvector of the largest eigenvalue of a symmetric matrix without negative eigenvalues, of length 1; all
/// zeros for a matrix of zeros, NaN or infinities. Its sign is arbitrary.
/// @param[in] moments  [dim, dim], rows^T * rows; what lies above the diagonal is not read
/// @param[in] dim      channels
/// @return    [dim]
/// @note      O(dim^3); allocates: for calibration, not for hot paths
[[nodiscard]] inline std::vector<double> principal_direction(std::span<const double> moments,
                                                             std::size_t dim) {
    KVCRUSH_ASSERT(moments.size() == dim * dim);
    using square = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    std::vector<double> direction(dim, 0.0);
    const auto size = static_cast<Eigen::Index>(dim);
    const Eigen::Map<const square, Eigen::Unaligned> matrix(moments.data(), size, size);
    const square lower = matrix.triangularView<Eigen::Lower>();
    if (!lower.allFinite() || lower.isZero(0.0)) {
        return direction;
    }
    const Eigen::SelfAdjointEigenSolver<square> solver(lower); // eigenvalues ascend
    if (solver.info() == Eigen::Success) {
        Eigen::Map<Eigen::VectorXd, Eigen::Unaligned>(direction.data(), size) =
            solver.eigenvectors().col(size - 1);
    }
    return direction;
}

} // namespace v0
} // namespace kvcrush
