// SPDX-License-Identifier: Apache-2.0
/// @file
/// KVzip in a cache: the model repeats its context, and what it looks at for that stays.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/query_view.hpp>
#include <kvcrush/recipe/layer_access.hpp>
#include <kvcrush/recipe/model_allocator.hpp>
#include <kvcrush/retention/kvzip.hpp>
#include <kvcrush/select/kvzip_selector.hpp>

#include <cstddef>
#include <string_view>

namespace kvcrush {
inline namespace v0 {

/// Says what every layer and head keeps, from scores that serve any later question.
/// @note Needs compress_request::replay, context and repeat_request, and every row of the context: it compresses a cache
///       once, right after it was filled.
/// @see  KVzip, arXiv:2505.23416
struct kvzip {
    static constexpr std::string_view name = "kvzip";
    static constexpr std::string_view about =
        "what the model looks at to repeat its context, over all layers and heads";

    kvzip_reconstruction reconstruction{};
    kvzip_selector selector{};

    static constexpr auto parameters() { return parameter_list{}; }
    static constexpr auto parts() {
        return parameter_list{&kvzip::reconstruction, &kvzip::selector};
    }
    /// @throws std::invalid_argument from its parts
    void validate() const {
        reconstruction.validate();
        selector.validate();
    }
};

/// @throws std::invalid_argument if the engine gave no way to run the model again, or other tokens than the cache has seen,
///         if a row was evicted already, or if the budget does not hold sinks and recent tokens
[[nodiscard]] inline model_plan plan_model(const kvzip& how, const model_problem& problem) {
    using detail::require;
    const std::size_t seen = problem.tokens_seen;
    require(static_cast<bool>(problem.replay),
            "kvzip: the model has to repeat its context, and there is no way to ask it to: give "
            "replay, context and repeat_request");
    require(problem.context.size() == seen,
            "kvzip: the context has ",
            problem.context.size(),
            " token ids; the cache has seen ",
            seen,
            " tokens");
    for (const layer_access* const layer : problem.layers) {
        for (std::size_t head = 0; head < layer->shape().num_kv_heads; ++head) {
            require(layer->rows(head) == seen,
                    "kvzip: compresses a cache once, right after it was filled; a head of this one "
                    "holds ",
                    layer->rows(head),
                    " of ",
                    seen,
                    " tokens");
        }
    }
    const model_heads model = problem.heads();
    kvzip_scores scores({model.num_layers, model.num_kv_heads, seen});
    const auto engine = [&](const kvzip_pass& pass, kvzip_observer& observe) {
        problem.replay(pass.tokens,
                       [&](std::size_t layer, const any_source& rows, const query_view& queries) {
                           observe(layer, rows, queries.last(pass.tokens.size()));
                       });
    };
    how.reconstruction.score(problem.context,
                             {.first = problem.repeat_request, .next = problem.repeat_request},
                             engine,
                             scores);
    return {.kept = how.selector.select(scores,
                                        problem.policy.areas,
                                        model.num_layers * model.num_kv_heads *
                                            problem.per_head().tokens_for(seen))};
}

} // namespace v0
} // namespace kvcrush
