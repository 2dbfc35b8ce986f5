// SPDX-License-Identifier: Apache-2.0
#include "baseline_attend.hpp"

#include <cmath>

namespace kvcrush::bench {

void attend_naively(const float* queries,
                    const float* keys,
                    const float* values,
                    std::size_t num_q_heads,
                    std::size_t num_kv_heads,
                    std::size_t tokens,
                    std::size_t dim,
                    float* logits,
                    float* output) {
    const float scale = 1.0F / std::sqrt(static_cast<float>(dim));
    for (std::size_t h = 0; h < num_q_heads; ++h) {
        const std::size_t first = h / (num_q_heads / num_kv_heads) * tokens * dim;
        const float* const query = queries + h * dim;
        float largest = -HUGE_VALF;
        for (std::size_t t = 0; t < tokens; ++t) {
            float sum = 0.0F;
            for (std::size_t c = 0; c < dim; ++c) {
                sum += query[c] * keys[first + t * dim + c];
            }
            logits[t] = scale * sum;
            largest = logits[t] > largest ? logits[t] : largest;
        }
        float sum = 0.0F;
        float* const out = output + h * dim;
        for (std::size_t c = 0; c < dim; ++c) {
            out[c] = 0.0F;
        }
        for (std::size_t t = 0; t < tokens; ++t) {
            const float weight = std::exp(logits[t] - largest);
            sum += weight;
            for (std::size_t c = 0; c < dim; ++c) {
                out[c] += weight * values[first + t * dim + c];
            }
        }
        for (std::size_t c = 0; c < dim; ++c) {
            out[c] /= sum;
        }
    }
}

} // namespace kvcrush::bench
