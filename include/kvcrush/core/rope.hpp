// SPDX-License-Identifier: Apache-2.0
/// @file
/// How rotary position embedding (RoPE) lays its pairs of channels out, and how fast each of them turns.
#pragma once

#include <kvcrush/core/parameter.hpp>

#include <cmath>
#include <cstddef>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Which channels turn together. r is the number of rotary channels.
enum class rope_pairs {
    /// j and j + r / 2, as in GPT-NeoX, Llama of Hugging Face and most engines.
    half_split,
    /// 2 j and 2 j + 1, as in GPT-J and GGUF files of Llama.
    interleaved
};

template <>
struct enum_names<rope_pairs> {
    static constexpr named_value<rope_pairs> values[] = {{"half_split", rope_pairs::half_split},
                                                         {"interleaved", rope_pairs::interleaved}};
};

/// How a model turns its keys and queries: the one way in which angles are handed over.
struct rope {
    /// Pair j turns by theta^(-2 j / rotary_dim) a token [rad].
    double theta = 10000.0;
    /// Channels that are turned; 0 for all.
    std::size_t rotary_dim = 0;
    rope_pairs pairs = rope_pairs::half_split;
    /// Radians per token of each pair, for models that scale them; empty for those of theta. The caller's memory.
    std::span<const double> frequencies{};
};

/// The usual frequencies: out[j] = base^(-j / out.size()) [radians per token]. Engines with RoPE scaling (linear,
/// YaRN, Llama 3) hand over their own.
/// @pre base > 0
inline void rope_frequencies(double base, std::span<double> out) noexcept {
    for (std::size_t j = 0; j < out.size(); ++j) {
        out[j] = std::pow(base, -static_cast<double>(j) / static_cast<double>(out.size()));
    }
}

} // namespace v0
} // namespace kvcrush
