// SPDX-License-Identifier: Apache-2.0
/// @file
/// Hamming distance of one code to many.
#pragma once

#include <kvcrush/config.hpp>
#include <kvcrush/simd/code_word.hpp>
#include <kvcrush/simd/detail/hamming_avx2.hpp>
#include <kvcrush/simd/detail/hamming_avx512.hpp>
#include <kvcrush/simd/detail/hamming_scalar.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace kvcrush {
inline namespace v0 {
namespace simd {

/// Counts, for every code, the bits in which it differs from `query`.
///
/// The rung is chosen once a call, so pass all codes in one. Byte-sized outputs saturate: a
/// distance above 255 is written as 255.
/// @param[in]  query  one code: one element, or 1 to 64 words of 64 bits (no word at all gives
///   zeros)
/// @param[in]  codes  [out.size(), query.size()], row-major, no padding between codes
/// @param[out] out    distances [bits]; must not overlap the inputs
/// @pre   codes.size() == query.size() * out.size(); query.size() == 1 unless Code has 64 bits
/// @note  reads nothing beyond the codes, writes nothing beyond `out`
template <CodeWord Code, Distance Out>
void hamming_many(std::span<const Code> query,
                  std::span<const Code> codes,
                  std::span<Out> out,
                  isa at_most = best()) noexcept {
    KVCRUSH_ASSERT(codes.size() == query.size() * out.size());
    KVCRUSH_ASSERT((std::is_same_v<Code, std::uint64_t>) ? query.size() <= 64 : query.size() == 1);
    const detail::hamming_args<Code, Out> args{
        query.data(), codes.data(), query.size(), out.size(), out.data()};
    switch (usable(at_most)) {
#if KVCRUSH_X86_DISPATCH
    case isa::avx512: return detail::hamming_many_avx512(args);
    case isa::avx2: return detail::hamming_many_avx2(args);
#endif
    default: return detail::hamming_many_scalar(args);
    }
}

} // namespace simd
} // namespace v0
} // namespace kvcrush
