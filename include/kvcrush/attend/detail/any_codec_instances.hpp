// SPDX-License-Identifier: Apache-2.0
/// @file
/// Codecs behind any_codec that programs with KVCRUSH_EXTERN_INSTANCES compile once.
#pragma once

#include <kvcrush/attend/any_codec.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/hadamard.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/kivi.hpp>
#include <kvcrush/codec/mean_centred.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/codec/turbo_quant.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/types.hpp>

#if KVCRUSH_EXTERN_INSTANCES

namespace kvcrush {
inline namespace v0 {

KVCRUSH_INSTANCE struct any_codec::model<dense_codec<float>>;
KVCRUSH_INSTANCE struct any_codec::model<dense_codec<f16>>;
KVCRUSH_INSTANCE struct any_codec::model<dense_codec<bf16>>;
KVCRUSH_INSTANCE struct any_codec::model<int8_row_codec>;
KVCRUSH_INSTANCE struct any_codec::model<q8_0_codec>;
KVCRUSH_INSTANCE struct any_codec::model<q4_0_codec>;
KVCRUSH_INSTANCE struct any_codec::model<kivi_key_codec>;
KVCRUSH_INSTANCE struct any_codec::model<kivi_value_codec>;
KVCRUSH_INSTANCE struct any_codec::model<turbo_quant_codec>;
KVCRUSH_INSTANCE struct any_codec::model<hadamard_codec<q4_0_codec>>;
KVCRUSH_INSTANCE struct any_codec::model<mean_centred_codec<int8_row_codec>>;
KVCRUSH_INSTANCE struct any_codec::model<mean_centred_codec<turbo_quant_codec>>;

} // namespace v0
} // namespace kvcrush
#endif
