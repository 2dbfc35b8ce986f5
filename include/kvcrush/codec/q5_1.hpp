// SPDX-License-Identifier: Apache-2.0
/// @file
/// ggml's 5-bit blocks with a minimum.
#pragma once

#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/detail/ggml_format.hpp>
#include <kvcrush/codec/detail/ggml_row_codec.hpp>

#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Five bits per channel, a scale and a minimum per block of 32 channels, as ggml and llama.cpp store them.
///
///     d = (max - min) / 31, code = int((x - min) / d + 0.5); x is read as f16(d) * code + f16(min)
///
/// Storage of a block, 24 bytes: f16 d at 0; f16 min at 2; at 4 the fifth bits, bit j of 32 being that of element j;
/// at 8 the lower four, 16 bytes, byte j being element j + 16 * element (j + 16). 6 bits per element.
///
/// Rows have a multiple of 32 channels. Bytes are those of ggml's reference quantiser (quantize_row_q5_1_ref).
/// @see   github.com/ggml-org/ggml, src/ggml-quants.c
struct q5_1_codec : detail::ggml_row_codec<q5_1_codec, detail::ggml_q5_1> {
    static constexpr std::string_view name = "q5_1";
};
static_assert(Codec<q5_1_codec>);

} // namespace v0
} // namespace kvcrush
