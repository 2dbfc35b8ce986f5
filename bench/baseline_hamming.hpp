// SPDX-License-Identifier: Apache-2.0
/// @file
/// What a Hamming search looks like without this library. Each in a translation unit with flags of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace kvcrush::bench {

/// One popcount per word in a plain loop: what a compiler makes of it for any x86-64, with -O3 and no -march.
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

/// A loop whose width the compiler knows, over packed codes of 8, 16, 32, 64, 128, 192, 256, 320, 512, 576, 1024, 2048
/// or 4096 bits.
/// @return false for another width
using fixed_width_hamming = bool (*)(
    std::size_t bits, const void* query, const void* codes, std::size_t count, std::uint16_t* out);

/// With -O3 -march=native: the strongest loop that costs no work.
bool native_hamming(
    std::size_t bits, const void* query, const void* codes, std::size_t count, std::uint16_t* out);
/// With -O3 -mpopcnt: what a compiler makes of it for a CPU with AVX2.
bool popcnt_hamming(
    std::size_t bits, const void* query, const void* codes, std::size_t count, std::uint16_t* out);

/// faiss::hammings for one query, on one thread.
/// @return false if FAISS was not there when this was built
bool faiss_hamming(const void* query,
                   const void* codes,
                   std::size_t count,
                   std::size_t code_bytes,
                   std::int32_t* out);
/// "FAISS 1.7.3", or empty.
std::string faiss_version();

} // namespace kvcrush::bench
