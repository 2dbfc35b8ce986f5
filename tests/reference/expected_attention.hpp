// SPDX-License-Identifier: Apache-2.0
/// @file
/// Expected attention in double, with whole matrices and every future position by itself.
#pragma once

#include "attention.hpp"

#include <cmath>
#include <cstddef>
#include <vector>

namespace kvcrush::reference {

using matrix = std::vector<std::vector<double>>;

struct expected_attention_options {
    std::size_t num_future;
    std::size_t sinks;
    bool interleaved;
    std::size_t rotary_dim;
    double theta;
    bool covariance;
    bool diagonal;
};

/// The rotation of RoPE at a position.
[[nodiscard]] inline matrix
rope_matrix(const expected_attention_options& options, std::size_t dim, double position) {
    matrix r(dim, std::vector<double>(dim, 0.0));
    for (std::size_t c = 0; c < dim; ++c) {
        r[c][c] = 1.0;
    }
    const std::size_t half = options.rotary_dim / 2;
    for (std::size_t i = 0; i < half; ++i) {
        const std::size_t x = options.interleaved ? 2 * i : i;
        const std::size_t y = options.interleaved ? 2 * i + 1 : half + i;
        const double angle = position * std::pow(options.theta,
                                                 -2.0 * static_cast<double>(i) /
                                                     static_cast<double>(options.rotary_dim));
        r[x][x] = std::cos(angle);
        r[x][y] = -std::sin(angle);
        r[y][x] = std::sin(angle);
        r[y][y] = std::cos(angle);
    }
    return r;
}

[[nodiscard]] inline std::vector<double> times(const matrix& m, const std::vector<double>& v) {
    std::vector<double> out(m.size(), 0.0);
    for (std::size_t i = 0; i < m.size(); ++i) {
        for (std::size_t j = 0; j < v.size(); ++j) {
            out[i] += m[i][j] * v[j];
        }
    }
    return out;
}

/// Weights of one query head, 0 for sinks.
/// @param queries  [num][dim], after RoPE, the last ones of the sequence
/// @param keys     [tokens][dim]
[[nodiscard]] inline std::vector<double> expected_weights(
    const matrix& queries, const matrix& keys, const expected_attention_options& options) {
    const std::size_t n = keys.size();
    const std::size_t dim = keys[0].size();
    matrix plain;
    for (std::size_t i = 0; i < queries.size(); ++i) {
        const std::size_t position = n - queries.size() + i;
        if (position >= options.sinks) {
            plain.push_back(
                times(rope_matrix(options, dim, -static_cast<double>(position)), queries[i]));
        }
    }
    const auto count = static_cast<double>(plain.size());
    matrix mean_rotation(dim, std::vector<double>(dim, 0.0));
    for (std::size_t f = 0; f < options.num_future; ++f) {
        const matrix r = rope_matrix(options, dim, static_cast<double>(n + f));
        for (std::size_t i = 0; i < dim; ++i) {
            for (std::size_t j = 0; j < dim; ++j) {
                mean_rotation[i][j] += r[i][j] / static_cast<double>(options.num_future);
            }
        }
    }
    std::vector<double> mu(dim, 0.0);
    for (const std::vector<double>& q : plain) {
        for (std::size_t c = 0; c < dim; ++c) {
            mu[c] += q[c] / count;
        }
    }
    matrix turned; // R (q - mu)
    for (std::vector<double> q : plain) {
        for (std::size_t c = 0; c < dim; ++c) {
            q[c] -= mu[c];
        }
        turned.push_back(times(mean_rotation, q));
    }
    mu = times(mean_rotation, mu);
    std::vector<double> logits;
    for (std::size_t t = options.sinks; t < n; ++t) {
        double linear = 0.0;
        double square = 0.0;
        for (std::size_t c = 0; c < dim; ++c) {
            linear += keys[t][c] * mu[c];
        }
        for (const std::vector<double>& q : turned) {
            double dot = 0.0;
            double apart = 0.0;
            for (std::size_t c = 0; c < dim; ++c) {
                dot += q[c] * keys[t][c];
                apart += q[c] * keys[t][c] * q[c] * keys[t][c];
            }
            square += (options.diagonal ? apart : dot * dot) / count;
        }
        const auto d = static_cast<double>(dim);
        logits.push_back(linear / std::sqrt(d) + (options.covariance ? square / (2.0 * d) : 0.0));
    }
    std::vector<double> weights = softmax(logits);
    weights.insert(weights.begin(), options.sinks, 0.0);
    return weights;
}

} // namespace kvcrush::reference
