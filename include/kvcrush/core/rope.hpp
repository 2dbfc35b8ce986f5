// SPDX-License-Identifier: Apache-2.0
/// @file
/// How rotary position embedding (RoPE) lays its pairs of channels out, and how fast each of them turns.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/finite_rows.hpp>
#include <kvcrush/core/parameter.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
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

/// The usual frequencies: out[j] = base^(-j / out.size()) [radians per token]. Engines with RoPE scaling (linear,
/// YaRN, Llama 3) hand over their own.
/// @pre base > 0
inline void rope_frequencies(double base, std::span<double> out) noexcept {
    for (std::size_t j = 0; j < out.size(); ++j) {
        out[j] = std::pow(base, -static_cast<double>(j) / static_cast<double>(out.size()));
    }
}

/// The rotary position embedding of a model: which pairs of channels turn, and how fast.
///
///     rope{.theta = 500000.0}         as most model files say
///     rope{.rotary_dim = 32}          partial: the channels behind never turn, nor does the last one of an odd head_dim
///     rope{.frequencies = scaled}     of an engine that scales them (linear, YaRN, Llama 3)
struct rope {
    static constexpr std::string_view name = "rope";

    /// Pair j turns by theta^(-j / number of pairs) [radians per token]. 10000 in the paper.
    double theta = 10000.0;
    /// Channels that turn, from the first, even; 0 means all, or two per frequency where those are given.
    std::size_t rotary_dim = 0;
    rope_pairs pairing = rope_pairs::half_split;
    /// [rotary_dim / 2] instead of theta's [radians per token]. The memory is the caller's and must outlive this.
    std::span<const double> frequencies{};

    static constexpr auto parameters() {
        return parameter_list{
            parameter{"theta", &rope::theta, "base of the RoPE frequencies"},
            parameter{"rotary_dim", &rope::rotary_dim, "channels that RoPE turns; 0 = all"},
            parameter{"pairing", &rope::pairing, "channels that RoPE turns together"}};
    }

    /// @throws std::invalid_argument if theta is not above 0, rotary_dim is odd, a frequency is not finite, or there are
    ///         not as many as pairs
    void validate() const {
        using detail::require;
        require(theta > 0.0 && detail::is_finite(theta),
                "rope: theta is ",
                theta,
                "; it must be above 0");
        require(rotary_dim % 2 == 0, "rope: rotary_dim is ", rotary_dim, "; it must be even");
        require(frequencies.empty() || rotary_dim == 0 || frequencies.size() == rotary_dim / 2,
                "rope: there are ",
                frequencies.size(),
                " frequencies for ",
                rotary_dim,
                " channels");
        for (const double frequency : frequencies) {
            require(detail::is_finite(frequency),
                    "rope: a frequency is ",
                    frequency,
                    "; it must be finite");
        }
    }

    /// @throws std::invalid_argument from validate(), or if more channels turn than there are
    void validate_for(std::size_t head_dim) const {
        validate();
        detail::require(num_pairs(head_dim) <= head_dim / 2,
                        "rope: ",
                        2 * num_pairs(head_dim),
                        " channels would turn; a head has ",
                        head_dim);
    }

    /// Pairs of channels that turn.
    [[nodiscard]] std::size_t num_pairs(std::size_t head_dim) const noexcept {
        return !frequencies.empty() ? frequencies.size()
                                    : (rotary_dim == 0 ? head_dim : rotary_dim) / 2;
    }

    /// @param[out] out  [num_pairs(head_dim)], radians per token
    void write_frequencies(std::span<double> out) const noexcept {
        if (frequencies.empty()) {
            rope_frequencies(theta, out);
        } else {
            std::copy_n(frequencies.begin(), out.size(), out.begin());
        }
    }
};

} // namespace v0
} // namespace kvcrush
