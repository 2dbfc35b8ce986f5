// SPDX-License-Identifier: Apache-2.0
/// @file
/// How far predictions on a compressed cache are from those on the full one.
#pragma once

#include "matrix.hpp"

#include <span>
#include <vector>

namespace lab {

/// Predictions of the full cache, kept for comparison.
class reference_predictions {
public:
    /// @param logits  [predictions, vocab]
    /// @param truth   [predictions], the token that really came next
    reference_predictions(matrix logits, std::vector<int> truth);

    [[nodiscard]] const matrix& log_probabilities() const noexcept { return log_probabilities_; }
    [[nodiscard]] std::span<const int> truth() const noexcept { return truth_; }
    /// Mean negative log-likelihood of the truth [nats].
    [[nodiscard]] double nll() const noexcept { return nll_; }

private:
    matrix log_probabilities_;
    std::vector<int> truth_;
    double nll_ = 0.0;
};

struct fidelity {
    /// Mean negative log-likelihood of the truth [nats].
    double nll = 0.0;
    /// KL divergence of the full cache's prediction to this one's, mean and 99th percentile (linear) [nats].
    double kld_mean = 0.0;
    double kld_p99 = 0.0;
    /// Share of predictions whose most likely token is the full cache's.
    double top1_agreement = 0.0;
};

/// @param logits  [predictions, vocab] on the compressed cache; turned into log-probabilities in place
[[nodiscard]] fidelity compare(const reference_predictions& full, matrix& logits);

/// Linear interpolation between order statistics, as numpy.quantile does. 0 for no values.
[[nodiscard]] double linear_quantile(std::vector<double> values, double q);

} // namespace lab
