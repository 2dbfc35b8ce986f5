// SPDX-License-Identifier: Apache-2.0
/// @file
/// Scorers behind any_scorer that programs with KVCRUSH_EXTERN_INSTANCES compile once.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/retention/any_scorer.hpp>
#include <kvcrush/retention/glob.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/retention/streaming_llm.hpp>

#if KVCRUSH_EXTERN_INSTANCES

namespace kvcrush {
inline namespace v0 {

KVCRUSH_INSTANCE struct any_scorer::model<streaming_llm_scorer>;
KVCRUSH_INSTANCE struct any_scorer::model<snapkv_scorer>;
KVCRUSH_INSTANCE struct any_scorer::model<glob_scorer>;

} // namespace v0
} // namespace kvcrush
#endif
