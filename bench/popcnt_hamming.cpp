// SPDX-License-Identifier: Apache-2.0
#include "baseline_hamming.hpp"
#include "fixed_width_loop.hpp"

namespace kvcrush::bench {

bool popcnt_hamming(
    std::size_t bits, const void* query, const void* codes, std::size_t count, std::uint16_t* out) {
    return fixed_width(bits, query, codes, count, out);
}

} // namespace kvcrush::bench
