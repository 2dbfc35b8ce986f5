// SPDX-License-Identifier: Apache-2.0
/// @file
/// ggml's block formats, one loop after the other. Codes are chosen in float, as the bytes are those of ggml's float
/// arithmetic; `volatile` keeps compilers from fusing a product with the sum that follows. Decoding is in double.
#pragma once

#include <kvcrush/core/types.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace kvcrush::reference {

inline constexpr int iq4_nl_entries[16] = {
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

struct ggml_layout {
    std::size_t bits;
    bool has_min;
    [[nodiscard]] std::size_t codes_at() const {
        return 2U + (has_min ? 2U : 0U) + (bits == 5 ? 4U : 0U);
    }
    [[nodiscard]] std::size_t bytes() const { return codes_at() + 32 * (bits == 8 ? 8 : 4) / 8; }
};

inline ggml_layout ggml_layout_of(std::string_view type) {
    return {.bits = type[0] == 'i' ? std::size_t{4} : static_cast<std::size_t>(type[1] - '0'),
            .has_min = type[0] == 'q' && type.back() == '1'};
}

inline void append_f16(std::vector<std::uint8_t>& bytes, float value) {
    const std::uint16_t bits = to_f16(value).bits;
    bytes.push_back(static_cast<std::uint8_t>(bits & 0xFF));
    bytes.push_back(static_cast<std::uint8_t>(bits >> 8));
}

/// ggml's choice among the entries of iq4_nl, by differences.
inline int nearest_iq4_nl(float x) {
    int nearest = 0;
    for (int k = 1; k < 16; ++k) {
        const auto here = static_cast<float>(iq4_nl_entries[k]);
        const auto before = static_cast<float>(iq4_nl_entries[nearest]);
        if (std::abs(here - x) <= std::abs(before - x)) { // the higher of two
            nearest = k;
        }
    }
    return nearest;
}

/// Bytes of one block of 32.
inline std::vector<std::uint8_t> ggml_block_bytes(std::string_view type, const float* x) {
    float extreme = 0.0F;
    float least = x[0];
    float largest = x[0];
    for (std::size_t j = 0; j < 32; ++j) {
        extreme = std::abs(x[j]) > std::abs(extreme) ? x[j] : extreme;
        least = x[j] < least ? x[j] : least;
        largest = x[j] > largest ? x[j] : largest;
    }
    const ggml_layout layout = ggml_layout_of(type);
    const int most = (1 << layout.bits) - 1;
    float d = 0.0F;
    if (type == "q8_0") {
        d = std::abs(extreme) / 127.0F;
    } else if (type == "iq4_nl") {
        d = std::abs(extreme) < 1e-15F ? 0.0F : extreme / -127.0F;
    } else if (layout.has_min) {
        d = (largest - least) / static_cast<float>(most);
    } else {
        d = extreme / (type == "q4_0" ? -8.0F : -16.0F);
    }
    float inverse = d == 0.0F ? 0.0F : 1.0F / d;
    inverse = std::isinf(inverse) ? 0.0F : inverse;

    int codes[32] = {};
    volatile float with_x = 0.0F;
    volatile float squares = 0.0F;
    for (std::size_t j = 0; j < 32; ++j) {
        volatile float scaled = (layout.has_min ? x[j] - least : x[j]) * inverse;
        if (type == "q8_0") {
            codes[j] = static_cast<int>(std::round(scaled));
        } else if (type == "iq4_nl") {
            codes[j] = nearest_iq4_nl(scaled);
            const auto entry = static_cast<float>(iq4_nl_entries[codes[j]]);
            volatile float weight = x[j] * x[j];
            volatile float weighted = weight * entry;
            volatile float term = weighted * x[j];
            volatile float square = weighted * entry;
            with_x = with_x + term;
            squares = squares + square;
        } else {
            const float half = type == "q4_0" ? 8.5F : type == "q5_0" ? 16.5F : 0.5F;
            const int code = static_cast<int>(scaled + half);
            codes[j] = code < most ? code : most;
        }
    }
    if (type == "iq4_nl" && d != 0.0F) {
        d = with_x / squares;
    }

    std::vector<std::uint8_t> bytes;
    append_f16(bytes, d);
    if (layout.has_min) {
        append_f16(bytes, least);
    }
    if (layout.bits == 5) {
        for (std::size_t byte = 0; byte < 4; ++byte) {
            int fifths = 0;
            for (std::size_t j = 0; j < 8; ++j) {
                fifths += codes[8 * byte + j] >= 16 ? 1 << j : 0;
            }
            bytes.push_back(static_cast<std::uint8_t>(fifths));
        }
    }
    for (std::size_t j = 0; j < (layout.bits == 8 ? 32U : 16U); ++j) {
        const int byte =
            layout.bits == 8 ? codes[j] & 0xFF : codes[j] % 16 + codes[j + 16] % 16 * 16;
        bytes.push_back(static_cast<std::uint8_t>(byte));
    }
    return bytes;
}

/// Element j of a block.
inline double ggml_element(std::string_view type, const std::uint8_t* block, std::size_t j) {
    const auto f16_at = [block](std::size_t at) {
        const auto bits = static_cast<std::uint16_t>(block[at] + 256 * block[at + 1]);
        return static_cast<double>(to_float(f16{bits}));
    };
    const ggml_layout layout = ggml_layout_of(type);
    const std::uint8_t* const codes = block + layout.codes_at();
    const double d = f16_at(0);
    if (type == "q8_0") {
        return d * static_cast<std::int8_t>(codes[j]);
    }
    int code = j < 16 ? codes[j] % 16 : codes[j - 16] / 16;
    if (layout.bits == 5) {
        const std::uint8_t fifths = block[layout.has_min ? 4 + j / 8 : 2 + j / 8];
        code += (fifths >> (j % 8)) % 2 * 16;
    }
    if (type == "iq4_nl") {
        return d * iq4_nl_entries[code];
    }
    return layout.has_min ? d * code + f16_at(2) : d * (code - (type == "q4_0" ? 8 : 16));
}

} // namespace kvcrush::reference
