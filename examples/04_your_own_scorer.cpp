// SPDX-License-Identifier: Apache-2.0
// You will know how to write a scorer, which is a value with one function, and that it then goes wherever a scorer goes:
// into a compressor over your memory, and into the recipe of a cache.
#include <kvcrush/kvcrush.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string_view>
#include <vector>

using namespace kvcrush;
/// Tokens with large values are important: they move the output of attention most, once they are looked at.
struct loud_scorer {
    static constexpr std::string_view name = "loud";
    static constexpr bool needs_attention = false; // keys and values are enough
    /// Of the norm.
    float power = 2.0F;

    static constexpr auto parameters() {
        return parameter_list{parameter{"power", &loud_scorer::power, "of the norm"}};
    }
    void validate() const {
        if (!(power > 0.0F)) {
            throw std::invalid_argument("loud: power must be positive");
        }
    }

    /// @param[out] scores  [num_kv_heads, seq_len]; more is more important, sinks and recent tokens stay anyway
    template <KvSource Kv>
    void score(const Kv& kv, head_scores scores) const noexcept {
        for (std::size_t head = 0; head < scores.num_heads(); ++head) {
            for (std::size_t token = 0; token < scores.seq_len(); ++token) {
                const auto value = kv.value(head, token);
                float sum = 0.0F;
                for (std::size_t c = 0; c < value.size(); ++c) {
                    sum += std::pow(std::abs(to_float(value[c])), power);
                }
                scores.row(head)[token] = sum;
            }
        }
    }
};
static_assert(KeyScorer<loud_scorer, kv_view<float>>);

int main() {
    constexpr std::size_t num_tokens = 400, dim = 32;
    const auto is_loud = [](std::size_t token) { return token % 10 == 7; };
    std::vector<float> keys(num_tokens * dim), values(num_tokens * dim);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        keys[i] = random_unit(1, 0, i);
        values[i] = (is_loud(i / dim) ? 3.0F : 1.0F) * (random_unit(2, 0, i) - 0.5F);
    }
    // Your memory, one kv head.
    const kv_view<const float> kv(keys, values, {1, num_tokens, dim, dim});
    compressor crush(loud_scorer{}, top_k_selector{});
    crush.plan({kv.shape()}, budget::keep_ratio(0.25));
    const auto in_memory = std::ranges::count_if(crush.select(kv).kept(0), is_loud);

    // A cache: the same in a recipe, which holds any scorer, with another parameter.
    kv_cache cache({.num_layers = 1, .num_q_heads = 1, .num_kv_heads = 1, .head_dim = dim},
                   {.scorer = loud_scorer{.power = 1.0F},
                    .selector = top_k_selector{},
                    .keep = cache_budget::tokens(100)});
    if (!cache.append(0, keys, values)) {
        return 1;
    }
    const std::vector<layer_choice> choice = cache.choose();
    const auto in_cache = std::ranges::count_if(choice.front().kept.kept(0), is_loud);
    const any_scorer& held = cache.how().scorer;
    std::printf("of 40 loud tokens a compressor keeps %td, a cache by %s(%s) %td\n",
                in_memory,
                held.policy_name().data(),
                held.arguments().c_str(),
                in_cache);
    return in_memory == 40 && in_cache == 40 ? 0 : 1;
}
