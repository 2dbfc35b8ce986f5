// SPDX-License-Identifier: Apache-2.0
#include "baseline_quantise.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>

namespace kvcrush::bench {
namespace {

constexpr std::size_t block = 32;

/// To nearest, ties to even.
void store_as_f16(float value, std::uint8_t* out) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
    std::uint32_t half = (bits >> 16) & 0x8000U;
    if (magnitude >= 0x47800000U) {
        half |= 0x7C00U;
    } else if (magnitude >= 0x38800000U) {
        half |= (magnitude + 0xFFFU + ((magnitude >> 13) & 1U) - (112U << 23)) >> 13;
    } else {
        half |= static_cast<std::uint32_t>(std::nearbyint(std::fabs(value) * 0x1p24F));
    }
    const auto stored = static_cast<std::uint16_t>(half);
    std::memcpy(out, &stored, sizeof stored);
}

} // namespace

void quantise_q8_0_plainly(const float* x, std::size_t size, void* out) {
    auto* bytes = static_cast<std::uint8_t*>(out);
    for (std::size_t b = 0; b < size / block; ++b, x += block, bytes += 2 + block) {
        float largest = 0.0F;
        for (std::size_t j = 0; j < block; ++j) {
            const float magnitude = std::fabs(x[j]);
            largest = magnitude > largest ? magnitude : largest;
        }
        const float scale = largest / 127.0F;
        const float inverse = scale != 0.0F ? 1.0F / scale : 0.0F;
        store_as_f16(scale, bytes);
        for (std::size_t j = 0; j < block; ++j) {
            bytes[2 + j] =
                static_cast<std::uint8_t>(static_cast<std::int8_t>(std::round(x[j] * inverse)));
        }
    }
}

void quantise_q4_0_plainly(const float* x, std::size_t size, void* out) {
    auto* bytes = static_cast<std::uint8_t*>(out);
    for (std::size_t b = 0; b < size / block; ++b, x += block, bytes += 2 + block / 2) {
        float largest = 0.0F;
        float extreme = 0.0F;
        for (std::size_t j = 0; j < block; ++j) {
            if (std::fabs(x[j]) > largest) {
                largest = std::fabs(x[j]);
                extreme = x[j];
            }
        }
        const float scale = extreme / -8.0F;
        const float inverse = scale != 0.0F ? 1.0F / scale : 0.0F;
        store_as_f16(scale, bytes);
        for (std::size_t j = 0; j < block / 2; ++j) {
            const int low = static_cast<std::int8_t>(x[j] * inverse + 8.5F);
            const int high = static_cast<std::int8_t>(x[j + block / 2] * inverse + 8.5F);
            bytes[2 + j] =
                static_cast<std::uint8_t>((low < 15 ? low : 15) | (high < 15 ? high : 15) << 4);
        }
    }
}

} // namespace kvcrush::bench
