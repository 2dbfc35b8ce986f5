// SPDX-License-Identifier: Apache-2.0
/// @file
/// Numbers drawn one after the other, the same on every platform.
#pragma once

#include <kvcrush/core/random.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace lab {

/// Two draws with the same seed and stream give the same numbers; the standard's distributions need not.
class seeded_draw {
public:
    seeded_draw(std::uint64_t seed, std::uint64_t stream) noexcept : seed_(seed), stream_(stream) {}

    [[nodiscard]] std::uint64_t bits() noexcept {
        return kvcrush::random_bits(seed_, stream_, next_++);
    }
    /// 0 to count - 1. The remainder favours small numbers by less than count / 2^64. @pre  count > 0
    [[nodiscard]] std::size_t below(std::size_t count) noexcept {
        return static_cast<std::size_t>(bits() % count);
    }
    /// In [0, 1).
    [[nodiscard]] double unit() noexcept { return static_cast<double>(bits() >> 11U) * 0x1p-53; }

    template <typename T>
    void shuffle(std::vector<T>& values) noexcept {
        for (std::size_t i = values.size(); i > 1; --i) {
            std::swap(values[i - 1], values[below(i)]);
        }
    }

private:
    std::uint64_t seed_;
    std::uint64_t stream_;
    std::uint64_t next_ = 0;
};

} // namespace lab
