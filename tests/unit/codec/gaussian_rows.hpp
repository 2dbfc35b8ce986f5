// SPDX-License-Identifier: Apache-2.0
/// @file
/// Rows of N(0, 1), the same on every platform, and the error of a codec on them.
#pragma once

#include <kvcrush/codec/codec.hpp>

#include "codec_properties.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

namespace kvcrush::reference {

inline void fill_gaussian(std::span<float> out, std::uint64_t seed, float deviation = 1.0F) {
    for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = deviation * gaussian(seed, i);
    }
}

/// Sum of squared errors / sum of squares over 600 Gaussian rows.
template <Codec C>
[[nodiscard]] double gaussian_nmse(const C& codec, std::size_t dim, simd::isa rung) {
    std::vector<float> row(dim);
    std::vector<float> decoded(dim);
    std::vector<std::byte> bytes(codec.group_bytes(dim));
    double errors = 0;
    double squares = 0;
    for (std::uint64_t seed = 0; seed < 600; ++seed) {
        fill_gaussian(row, 1000 + seed);
        if (!codec.encode(row, dim, bytes, rung)) {
            throw std::runtime_error("a Gaussian row was refused");
        }
        codec.decode(bytes, dim, decoded, rung);
        for (std::size_t i = 0; i < dim; ++i) {
            const double error = double(decoded[i]) - double(row[i]);
            errors += error * error;
            squares += double(row[i]) * double(row[i]);
        }
    }
    return errors / squares;
}

} // namespace kvcrush::reference
