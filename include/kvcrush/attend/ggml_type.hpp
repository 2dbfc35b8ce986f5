// SPDX-License-Identifier: Apache-2.0
/// @file
/// Codecs by the numbers that ggml gives its types: what GGUF files and llama.cpp call the element type of a tensor.
#pragma once

#include <kvcrush/attend/any_codec.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/iq4_nl.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q4_1.hpp>
#include <kvcrush/codec/q5_0.hpp>
#include <kvcrush/codec/q5_1.hpp>
#include <kvcrush/codec/q8_0.hpp>

#include <optional>

namespace kvcrush {
inline namespace v0 {

/// The codec whose rows are those of a ggml type, or nothing for types that no cache has.
/// @param type  enum ggml_type: f32, f16, q4_0, q4_1, q5_0, q5_1, q8_0, iq4_nl or bf16
/// @see   github.com/ggml-org/ggml, include/ggml.h
[[nodiscard]] inline std::optional<any_codec> codec_of_ggml_type(int type) {
    switch (type) {
    case 0: return dense_codec<float>{};
    case 1: return dense_codec<f16>{};
    case 2: return q4_0_codec{};
    case 3: return q4_1_codec{};
    case 6: return q5_0_codec{};
    case 7: return q5_1_codec{};
    case 8: return q8_0_codec{};
    case 20: return iq4_nl_codec{};
    case 30: return dense_codec<bf16>{};
    default: return std::nullopt;
    }
}

} // namespace v0
} // namespace kvcrush
