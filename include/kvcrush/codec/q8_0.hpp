// SPDX-License-Identifier: Apache-2.0
/// @file
/// ggml's 8-bit blocks.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/detail/ggml_format.hpp>
#include <kvcrush/codec/detail/ggml_row_codec.hpp>

#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Eight bits per channel and a scale per block of 32 channels, as ggml and llama.cpp store them.
///
///     d = largest |x| / 127, code = round(x / d), halves away from 0; x is read as f16(d) * code
///
/// Storage of a block, 34 bytes: f16 d at 0, 32 signed bytes at 2. 8.5 bits per element.
///
/// Rows have a multiple of 32 channels. Bytes are those of ggml's reference quantiser (quantize_row_q8_0_ref).
/// @see   github.com/ggml-org/ggml, src/ggml-quants.c
struct q8_0_codec : detail::ggml_row_codec<q8_0_codec, detail::ggml_q8_0> {
    static constexpr std::string_view name = "q8_0";
};
static_assert(Codec<q8_0_codec>);

} // namespace v0
} // namespace kvcrush
