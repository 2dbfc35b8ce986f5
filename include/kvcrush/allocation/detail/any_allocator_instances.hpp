// SPDX-License-Identifier: Apache-2.0
/// @file
/// Allocators behind any_allocator that programs with KVCRUSH_EXTERN_INSTANCES compile once.
#pragma once

#include <kvcrush/allocation/ada_kv.hpp>
#include <kvcrush/allocation/any_allocator.hpp>
#include <kvcrush/allocation/uniform.hpp>
#include <kvcrush/config.hpp>

#if KVCRUSH_EXTERN_INSTANCES

namespace kvcrush {
inline namespace v0 {

KVCRUSH_INSTANCE struct any_allocator::model<uniform_allocator>;
KVCRUSH_INSTANCE struct any_allocator::model<ada_kv_allocator>;

} // namespace v0
} // namespace kvcrush
#endif
