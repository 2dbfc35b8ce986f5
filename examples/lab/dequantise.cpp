// SPDX-License-Identifier: Apache-2.0
#include "dequantise.hpp"

#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace lab {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF files are little-endian");

constexpr std::size_t quantised_block = 32;

float read_f16(const std::byte* from) noexcept {
    kvcrush::f16 value;
    std::memcpy(&value.bits, from, sizeof value.bits);
    return kvcrush::to_float(value);
}

/// `offset` is what zero is stored as: 8 in Q4_0, 0 in Q4_1.
void unpack_nibbles(
    const std::byte* packed, int offset, float scale, float minimum, float* to) noexcept {
    for (std::size_t i = 0; i < quantised_block / 2; ++i) {
        const int low = std::to_integer<int>(packed[i] & std::byte{0x0F}) - offset;
        const int high = std::to_integer<int>(packed[i] >> 4) - offset;
        to[i] = scale * static_cast<float>(low) + minimum;
        to[i + quantised_block / 2] = scale * static_cast<float>(high) + minimum;
    }
}

/// Bits at `stride` bytes from one another never hold an exponent of ones only, which NaN and infinity have.
template <typename Bits>
bool no_full_exponent(std::span<const std::byte> bytes,
                      std::size_t stride,
                      Bits exponent) noexcept {
    bool found = false;
    for (std::size_t at = 0; at + sizeof(Bits) <= bytes.size(); at += stride) {
        Bits bits;
        std::memcpy(&bits, bytes.data() + at, sizeof bits);
        found |= (bits & exponent) == exponent;
    }
    return !found;
}

void unpack_bytes(const std::byte* packed, float scale, float* to) noexcept {
    for (std::size_t i = 0; i < quantised_block; ++i) {
        to[i] = scale * static_cast<float>(std::to_integer<std::int8_t>(packed[i]));
    }
}

} // namespace

void dequantise(tensor_type type,
                std::span<const std::byte> blocks,
                std::span<float> floats) noexcept {
    const block_layout layout = layout_of(type);
    const std::size_t num_blocks = floats.size() / layout.elements;
    KVCRUSH_ASSERT(floats.size() == num_blocks * layout.elements);
    KVCRUSH_ASSERT(blocks.size() == num_blocks * layout.bytes);
    if (type == tensor_type::f32) {
        if (!floats.empty()) {
            std::memcpy(floats.data(), blocks.data(), blocks.size());
        }
        return;
    }
    for (std::size_t b = 0; b < num_blocks; ++b) {
        const std::byte* from = blocks.data() + b * layout.bytes;
        float* to = floats.data() + b * layout.elements;
        switch (type) {
        case tensor_type::f32: break;
        case tensor_type::f16: *to = read_f16(from); break;
        case tensor_type::q4_0: unpack_nibbles(from + 2, 8, read_f16(from), 0.0F, to); break;
        case tensor_type::q4_1:
            unpack_nibbles(from + 4, 0, read_f16(from), read_f16(from + 2), to);
            break;
        case tensor_type::q8_0: unpack_bytes(from + 2, read_f16(from), to); break;
        }
    }
}

bool all_finite(tensor_type type, std::span<const std::byte> blocks) noexcept {
    if (type == tensor_type::f32) {
        return no_full_exponent<std::uint32_t>(blocks, sizeof(float), 0x7F800000U);
    }
    const std::size_t stride = layout_of(type).bytes;
    const auto halves_from = [&](std::size_t first) {
        return no_full_exponent<std::uint16_t>(
            blocks.subspan((std::min)(first, blocks.size())), stride, 0x7C00U);
    };
    return halves_from(0) && (type != tensor_type::q4_1 || halves_from(sizeof(std::uint16_t)));
}

} // namespace lab
