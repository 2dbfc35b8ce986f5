// SPDX-License-Identifier: Apache-2.0
#include "widen.hpp"

#include <kvcrush/config.hpp>
#include <kvcrush/simd/isa.hpp>

#if KVCRUSH_X86_DISPATCH
#    include <immintrin.h>
#endif

namespace lab {
namespace {

void widen_scalar(const kvcrush::f16* from, std::size_t count, float* to) noexcept {
    for (std::size_t i = 0; i < count; ++i) {
        to[i] = kvcrush::to_float(from[i]);
    }
}

#if KVCRUSH_X86_DISPATCH
/// vcvtph2ps, eight at a time. @return how many were converted
KVCRUSH_TARGET_AVX2 std::size_t
widen_eights(const kvcrush::f16* from, std::size_t count, float* to) noexcept {
    std::size_t done = 0;
    for (; done + 8 <= count; done += 8) {
        const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + done));
        _mm256_storeu_ps(to + done, _mm256_cvtph_ps(halves));
    }
    return done;
}
#endif

} // namespace

void widen(const kvcrush::f16* from, std::size_t count, float* to) noexcept {
    std::size_t done = 0;
#if KVCRUSH_X86_DISPATCH
    if (kvcrush::simd::best() >= kvcrush::simd::isa::avx2) {
        done = widen_eights(from, count, to);
    }
#endif
    widen_scalar(from + done, count - done, to + done);
}

} // namespace lab
