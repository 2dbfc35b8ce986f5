// SPDX-License-Identifier: Apache-2.0
/// @file
/// ggml's 4-bit blocks with a minimum.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/detail/ggml_format.hpp>
#include <kvcrush/codec/detail/ggml_row_codec.hpp>

#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Four bits per channel, a scale and a minimum per block of 32 channels, as ggml and llama.cpp store them.
///
///     d = (max - min) / 15, code = int((x - min) / d + 0.5); x is read as f16(d) * code + f16(min)
///
/// Storage of a block, 20 bytes: f16 d at 0, f16 min at 2, 16 bytes at 4, byte j being element j + 16 * element
/// (j + 16). 5 bits per element.
///
/// Rows have a multiple of 32 channels. Bytes are those of ggml's reference quantiser (quantize_row_q4_1_ref).
/// @see   github.com/ggml-org/ggml, src/ggml-quants.c
struct q4_1_codec : detail::ggml_row_codec<q4_1_codec, detail::ggml_q4_1> {
    static constexpr std::string_view name = "q4_1";
};
static_assert(Codec<q4_1_codec>);

} // namespace v0
} // namespace kvcrush
