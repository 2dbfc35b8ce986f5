// SPDX-License-Identifier: Apache-2.0
/// @file
/// ggml's 4-bit blocks with steps of different sizes.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/detail/ggml_format.hpp>
#include <kvcrush/codec/detail/ggml_row_codec.hpp>

#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Four bits per channel that number the entries of a table, and a scale per block of 32 channels, as ggml and
/// llama.cpp store them in a cache.
///
///     entries  -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113
///     m = the element of largest magnitude, the first of several, d0 = m / -127
///     code = the entry nearest to x / d0, the higher of two; d = sum of x^2 entry x / sum of x^2 entry entry
///     x is read as f16(d) * entry
/// Steps are finer near 0, where most values are. Codes are not chosen again with d, nor is d searched for: that is
/// how ggml stores weights, not a cache. A block below 1e-15 is zeros.
///
/// Storage of a block, 18 bytes: f16 d at 0, 16 bytes at 2, byte j being element j + 16 * element (j + 16).
/// 4.5 bits per element.
///
/// Rows have a multiple of 32 channels. Bytes are those of ggml's reference quantiser (quantize_row_iq4_nl_ref).
/// @see   github.com/ggml-org/ggml, src/ggml-quants.c
struct iq4_nl_codec : detail::ggml_row_codec<iq4_nl_codec, detail::ggml_iq4_nl> {
    static constexpr std::string_view name = "iq4_nl";
};
static_assert(Codec<iq4_nl_codec>);

} // namespace v0
} // namespace kvcrush
