// SPDX-License-Identifier: Apache-2.0
/// @file
/// Selectors behind any_selector that programs with KVCRUSH_EXTERN_INSTANCES compile once.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/select/any_selector.hpp>
#include <kvcrush/select/horizons.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>
#include <kvcrush/select/top_k.hpp>

#if KVCRUSH_EXTERN_INSTANCES

namespace kvcrush {
inline namespace v0 {

KVCRUSH_INSTANCE struct any_selector::model<top_k_selector>;
KVCRUSH_INSTANCE struct any_selector::model<horizons_selector>;
KVCRUSH_INSTANCE struct any_selector::model<kvcrush_selector<>>;

} // namespace v0
} // namespace kvcrush
#endif
