// SPDX-License-Identifier: Apache-2.0
/// @file
/// ggml's 5-bit blocks.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/detail/ggml_format.hpp>
#include <kvcrush/codec/detail/ggml_row_codec.hpp>

#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Five bits per channel and a scale per block of 32 channels, as ggml and llama.cpp store them.
///
///     m = the element of largest magnitude, the first of several, d = m / -16, code = min(31, int(x / d + 16.5));
///     x is read as f16(d) * (code - 16)
///
/// Storage of a block, 22 bytes: f16 d at 0; at 2 the fifth bits, bit j of 32 being that of element j; at 6 the lower
/// four, 16 bytes, byte j being element j + 16 * element (j + 16). 5.5 bits per element.
///
/// Rows have a multiple of 32 channels. Bytes are those of ggml's reference quantiser (quantize_row_q5_0_ref).
/// @see   github.com/ggml-org/ggml, src/ggml-quants.c
struct q5_0_codec : detail::ggml_row_codec<q5_0_codec, detail::ggml_q5_0> {
    static constexpr std::string_view name = "q5_0";
};
static_assert(Codec<q5_0_codec>);

} // namespace v0
} // namespace kvcrush
