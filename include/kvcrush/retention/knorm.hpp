// SPDX-License-Identifier: Apache-2.0
/// @file
/// Keys with a small norm attract attention.
#pragma once

#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/row_view.hpp>
#include <kvcrush/core/scorer.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/math/row_norm.hpp>
#include <kvcrush/simd/norm.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Scores a token by minus the L2 norm of its key. Needs neither queries nor attention weights.
///
///     importance[k, j] = -||key[k, j]||        where a norm exceeds fp32, all of them divided by 2^64
/// @note O(num_kv_heads * seq_len * head_dim). On the reference model it is worse than random rows for text at keep
///       ratios of 0.5 and 0.25: measure before you choose it.
/// @see  arXiv:2406.11430. Deviation: sinks and recent tokens are protected by the areas; layers are not skipped (the
///       paper leaves the first two alone: call it for the others only).
struct knorm_scorer {
    static constexpr std::string_view name = "knorm";
    static constexpr std::string_view about = "keys with a small norm";
    static constexpr bool needs_attention = false;

    static constexpr auto parameters() { return parameter_list{}; }
    void validate() const {}

    /// @param[in]  kv      [num_kv_heads, seq_len, head_dim]
    /// @param[out] scores  [num_kv_heads, seq_len]
    template <KvSource Kv>
    void score(const Kv& kv, head_scores scores) const noexcept {
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const std::span<float> row = scores.row(head);
            squared_norms([&](std::size_t token) { return kv.key(head, token); }, row);
            simd::scale_roots(row, -1.0F);
        }
        if (!mend(kv, 1.0, [](float norm) { return !(norm >= least && norm <= most); }, scores)) {
            mend(kv, 0x1p-64, [](float) { return true; }, scores);
        }
    }

private:
    /// Between them lie the norms whose squares fp32 holds with all their digits.
    static constexpr float least = 0x1p-50F;
    static constexpr float most = 0x1p63F;

    /// Looks again, in double, at the tokens whose norms are not to be trusted.
    /// @return whether fp32 holds what became of all finite norms
    template <KvSource Kv, typename Suspect>
    static bool
    mend(const Kv& kv, double scale, const Suspect& suspect, head_scores scores) noexcept {
        bool held = true;
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            const std::span<float> row = scores.row(head);
            for (std::size_t token = 0; token < row.size(); ++token) {
                if (suspect(-row[token])) {
                    const double norm = scale * norm_of(kv.key(head, token));
                    const bool too_large = norm > (std::numeric_limits<float>::max)();
                    row[token] = too_large ? -std::numeric_limits<float>::infinity()
                                           : -static_cast<float>(norm);
                    held = held && !(too_large && std::isfinite(norm));
                }
            }
        }
        return held;
    }

    template <Element T>
    [[nodiscard]] static double norm_of(const row_view<T>& key) noexcept {
        double sum = 0.0;
        for (std::size_t d = 0; d < key.size(); ++d) {
            const auto x = static_cast<double>(to_float(key[d]));
            sum += x * x;
        }
        return std::sqrt(sum);
    }
};

} // namespace v0
} // namespace kvcrush
