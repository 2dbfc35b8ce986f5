// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a Hamming search looks like without this library, and how fast memory is. Built with -O3 and no -march.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvcrush::bench {

/// One popcount per word in a plain loop: what a compiler makes of it for any x86-64.
void naive_hamming_8(const std::uint8_t* query,
                     const std::uint8_t* codes,
                     std::size_t count,
                     std::uint16_t* out);
void naive_hamming_16(const std::uint16_t* query,
                      const std::uint16_t* codes,
                      std::size_t count,
                      std::uint16_t* out);
void naive_hamming_32(const std::uint32_t* query,
                      const std::uint32_t* codes,
                      std::size_t count,
                      std::uint16_t* out);
void naive_hamming_64(const std::uint64_t* query,
                      std::size_t words,
                      const std::uint64_t* codes,
                      std::size_t count,
                      std::uint16_t* out);

} // namespace kvcrush::bench
