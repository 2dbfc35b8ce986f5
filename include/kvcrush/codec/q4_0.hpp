// SPDX-License-Identifier: Apache-2.0
/// @file
/// ggml's 4-bit blocks.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/detail/ggml_format.hpp>
#include <kvcrush/codec/detail/ggml_row_codec.hpp>

#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Four bits per channel and a scale per block of 32 channels, as ggml and llama.cpp store them.
///
///     m = the element of largest magnitude, the first of several, d = m / -8, code = min(15, int(x / d + 8.5));
///     x is read as f16(d) * (code - 8)
/// So m itself has no error but that of its f16 scale, and what is as large with the other sign loses an eighth.
///
/// Storage of a block, 18 bytes: f16 d at 0, 16 bytes at 2, byte j being element j + 16 * element (j + 16).
/// 4.5 bits per element.
///
/// Rows have a multiple of 32 channels. Bytes are those of ggml's reference quantiser (quantize_row_q4_0_ref).
/// @see   github.com/ggml-org/ggml, src/ggml-quants.c
struct q4_0_codec : detail::ggml_row_codec<q4_0_codec, detail::ggml_q4_0> {
    static constexpr std::string_view name = "q4_0";
};
static_assert(Codec<q4_0_codec>);

} // namespace v0
} // namespace kvcrush
