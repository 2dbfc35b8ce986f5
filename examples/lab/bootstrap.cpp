// SPDX-License-Identifier: Apache-2.0
#include "bootstrap.hpp"

#include "error.hpp"
#include "fidelity.hpp"
#include "seeded_draw.hpp"

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace lab {
namespace {

constexpr double nothing = std::numeric_limits<double>::quiet_NaN();

void require_pairs(std::span<const double> a, std::span<const double> b) {
    if (a.size() != b.size()) {
        fail("a paired comparison needs the same samples; there are ",
             a.size(),
             " of one and ",
             b.size(),
             " of the other");
    }
}

} // namespace

interval bootstrap_mean(std::span<const double> values, const bootstrap_options& options) {
    if (values.empty()) {
        return {nothing, nothing, nothing};
    }
    const auto count = static_cast<double>(values.size());
    std::vector<double> means(options.resamples);
    for (std::size_t r = 0; r < means.size(); ++r) {
        seeded_draw draw(options.seed, r);
        double sum = 0.0;
        for (std::size_t i = 0; i < values.size(); ++i) {
            sum += values[draw.below(values.size())];
        }
        means[r] = sum / count;
    }
    const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
    if (std::isnan(mean) || means.empty()) {
        return {mean, mean, mean};
    }
    return {mean, linear_quantile(means, 0.025), linear_quantile(means, 0.975)};
}

interval bootstrap_difference(std::span<const double> a,
                              std::span<const double> b,
                              const bootstrap_options& options) {
    require_pairs(a, b);
    std::vector<double> differences(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
        differences[i] = a[i] - b[i];
    }
    return bootstrap_mean(differences, options);
}

interval bootstrap_ratio(std::span<const double> a,
                         std::span<const double> b,
                         const bootstrap_options& options) {
    require_pairs(a, b);
    std::vector<double> logs(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
        logs[i] = a[i] > 0.0 && b[i] > 0.0 ? std::log(a[i]) - std::log(b[i]) : nothing;
    }
    const interval of_logs = bootstrap_mean(logs, options);
    return {std::exp(of_logs.value), std::exp(of_logs.lo), std::exp(of_logs.hi)};
}

} // namespace lab
