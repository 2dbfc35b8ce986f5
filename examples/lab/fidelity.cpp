// SPDX-License-Identifier: Apache-2.0
#include "fidelity.hpp"

#include "generate.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

namespace lab {
namespace {

void to_log_probabilities(std::span<float> row) {
    const float largest = *std::max_element(row.begin(), row.end());
    double sum = 0.0;
    for (const float logit : row) {
        sum += static_cast<double>(std::exp(logit - largest));
    }
    const float shift = largest + static_cast<float>(std::log(sum));
    for (float& logit : row) {
        logit -= shift;
    }
}

void to_log_probabilities(matrix& logits) {
    const auto rows = static_cast<std::ptrdiff_t>(logits.rows());
#ifdef _OPENMP
#    pragma omp parallel for
#endif
    for (std::ptrdiff_t r = 0; r < rows; ++r) {
        to_log_probabilities(logits.row(static_cast<std::size_t>(r)));
    }
}

[[nodiscard]] double mean_nll(const matrix& log_probabilities, std::span<const int> truth) {
    double sum = 0.0;
    for (std::size_t r = 0; r < truth.size(); ++r) {
        sum -= static_cast<double>(log_probabilities.row(r)[static_cast<std::size_t>(truth[r])]);
    }
    return truth.empty() ? 0.0 : sum / static_cast<double>(truth.size());
}

[[nodiscard]] double divergence(std::span<const float> from, std::span<const float> to) {
    double sum = 0.0;
    for (std::size_t i = 0; i < from.size(); ++i) {
        sum += static_cast<double>(std::exp(from[i])) * static_cast<double>(from[i] - to[i]);
    }
    return sum;
}

} // namespace

reference_predictions::reference_predictions(matrix logits, std::vector<int> truth)
    : log_probabilities_(std::move(logits)), truth_(std::move(truth)) {
    to_log_probabilities(log_probabilities_);
    nll_ = mean_nll(log_probabilities_, truth_);
}

double linear_quantile(std::vector<double> values, double q) {
    if (values.empty()) {
        return 0.0;
    }
    std::sort(values.begin(), values.end());
    const double place = q * static_cast<double>(values.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const std::size_t above = (std::min)(below + 1, values.size() - 1);
    return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

fidelity compare(const reference_predictions& full, matrix& logits) {
    to_log_probabilities(logits);
    const auto rows = static_cast<std::ptrdiff_t>(full.truth().size());
    std::vector<double> divergences(static_cast<std::size_t>(rows));
    std::size_t agreed = 0;
#ifdef _OPENMP
#    pragma omp parallel for reduction(+ : agreed)
#endif
    for (std::ptrdiff_t i = 0; i < rows; ++i) {
        const auto r = static_cast<std::size_t>(i);
        const std::span<const float> reference = full.log_probabilities().row(r);
        const std::span<const float> row = std::as_const(logits).row(r);
        divergences[r] = divergence(reference, row);
        agreed += most_likely(reference) == most_likely(row) ? 1U : 0U;
    }
    fidelity result;
    result.nll = mean_nll(logits, full.truth());
    if (rows > 0) {
        for (const double value : divergences) {
            result.kld_mean += value / static_cast<double>(rows);
        }
        result.top1_agreement = static_cast<double>(agreed) / static_cast<double>(rows);
    }
    result.kld_p99 = linear_quantile(std::move(divergences), 0.99);
    return result;
}

} // namespace lab
