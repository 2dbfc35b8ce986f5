// SPDX-License-Identifier: Apache-2.0
/// @file
/// The operations of simd/detail/rungs/neon.hpp, but for sums of products of bytes: one instruction instead of four.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/detail/rungs/neon.hpp>

#if KVCRUSH_NEON_DOTPROD
#    include <arm_neon.h>
#    define KVCRUSH_OP [[gnu::always_inline]] KVCRUSH_TARGET_NEON_DOTPROD inline

namespace kvcrush {
inline namespace v0 {
namespace simd {
namespace neon_dotprod_rung {

using namespace neon_rung; // what is said below comes before it

KVCRUSH_OP ints dot_signed(ints sum, bytes a, quad b) noexcept {
    return vdotq_s32(sum, vreinterpretq_s8_u8(a), b);
}
KVCRUSH_OP ints dot_weights(ints sum, bytes a, quad b) noexcept { return dot_signed(sum, a, b); }

} // namespace neon_dotprod_rung
} // namespace simd
} // namespace v0
} // namespace kvcrush
#    undef KVCRUSH_OP
#endif
