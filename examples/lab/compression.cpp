// SPDX-License-Identifier: Apache-2.0
#include "compression.hpp"

#include "error.hpp"
#include "stopwatch.hpp"

#include <cstdint>
#include <utility>

namespace lab {

kvcrush::kv_cache copy_for(const kvcrush::kv_cache& prefilled, const policy& how) {
    kvcrush::kv_cache copy = prefilled;
    copy.use(how.how);
    copy.remember_queries(0);
    return copy;
}

timed_compression compress(kvcrush::kv_cache& cache,
                           const cache_history& history,
                           const kvcrush::cache_budget& keep) {
    timed_compression result;
    if (!cache.how().keeps_everything()) {
        const std::vector<std::int32_t> context(history.tokens.begin(), history.tokens.end());
        const std::vector<std::int32_t> request(history.repeat_request.begin(),
                                                history.repeat_request.end());
        const auto replay = [&](std::span<const std::int32_t> tokens, kvcrush::kv_cache& copy) {
            const std::vector<int> ids(tokens.begin(), tokens.end());
            static_cast<void>(history.model.forward(ids, copy, 0));
        };
        const stopwatch selecting;
        std::vector<kvcrush::layer_choice> choice = cache.choose(
            {.keep = keep, .replay = replay, .context = context, .repeat_request = request});
        result.select_ms = selecting.milliseconds();
        const stopwatch compacting;
        if (cache.apply(choice).heads_not_stored > 0) {
            fail("the cache holds rows that the codecs of the policy cannot store");
        }
        result.compact_ms = compacting.milliseconds();
        for (kvcrush::layer_choice& layer : choice) {
            result.kept.push_back(std::move(layer.kept));
        }
    }
    result.kept_tokens_mean = cache.mean_rows();
    result.bytes_held = cache.bytes_held();
    return result;
}

} // namespace lab
