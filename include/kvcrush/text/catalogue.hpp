// SPDX-License-Identifier: Apache-2.0
/// @file
/// Every policy that a recipe can name. A new one is one more name here.
#pragma once

#include <kvcrush/allocation/ada_kv.hpp>
#include <kvcrush/allocation/baklava.hpp>
#include <kvcrush/allocation/dbudget_kv.hpp>
#include <kvcrush/allocation/head_level.hpp>
#include <kvcrush/allocation/kv_compress.hpp>
#include <kvcrush/allocation/pyramid_kv.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/codec/fp8.hpp>
#include <kvcrush/codec/int8_row.hpp>
#include <kvcrush/codec/iq4_nl.hpp>
#include <kvcrush/codec/kivi.hpp>
#include <kvcrush/codec/q4_0.hpp>
#include <kvcrush/codec/q4_1.hpp>
#include <kvcrush/codec/q5_0.hpp>
#include <kvcrush/codec/q5_1.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/codec/turbo_quant.hpp>
#include <kvcrush/core/types.hpp>
#include <kvcrush/grouping/farthest.hpp>
#include <kvcrush/grouping/linspace.hpp>
#include <kvcrush/grouping/most_important.hpp>
#include <kvcrush/grouping/step.hpp>
#include <kvcrush/recipe/kvzip_plan.hpp>
#include <kvcrush/recipe/model_plans.hpp>
#include <kvcrush/retention/alisa.hpp>
#include <kvcrush/retention/expected_attention.hpp>
#include <kvcrush/retention/glob.hpp>
#include <kvcrush/retention/h2o.hpp>
#include <kvcrush/retention/key_diff.hpp>
#include <kvcrush/retention/keyformer.hpp>
#include <kvcrush/retention/knorm.hpp>
#include <kvcrush/retention/lag_kv.hpp>
#include <kvcrush/retention/r_kv.hpp>
#include <kvcrush/retention/random.hpp>
#include <kvcrush/retention/snapkv.hpp>
#include <kvcrush/retention/squared_attention.hpp>
#include <kvcrush/retention/streaming_llm.hpp>
#include <kvcrush/retention/tova.hpp>
#include <kvcrush/select/chunk_kv.hpp>
#include <kvcrush/select/critical_kv.hpp>
#include <kvcrush/select/diverse_kv.hpp>
#include <kvcrush/select/horizons.hpp>
#include <kvcrush/select/partition.hpp>
#include <kvcrush/select/prefix_suffix.hpp>
#include <kvcrush/signature/head_signature.hpp>
#include <kvcrush/signature/key_sign.hpp>
#include <kvcrush/text/policy_list.hpp>
#include <kvcrush/text/presets.hpp>

namespace kvcrush {
inline namespace v0 {

/// Names are those of the policies themselves. An engine that has more of them says so in a catalogue of its own:
///
///     struct my_catalogue : catalogue {
///         using scorers = extended<catalogue::scorers, my_scorer>;
///     };
///     kv_cache cache(shape, parse_recipe<my_catalogue>("ada_kv(mine(decay=0.9))"));
///
/// What list_policies() says of a policy is its member `about`, where it has one.
struct catalogue {
    /// How important is a token? `snapkv(window=8)`
    using scorers = policy_list<random_scorer,
                                streaming_llm_scorer,
                                knorm_scorer,
                                key_diff_scorer,
                                lag_kv_scorer,
                                expected_attention_scorer,
                                tova_scorer,
                                snapkv_scorer,
                                h2o_scorer,
                                glob_scorer,
                                alisa_scorer,
                                keyformer_scorer,
                                squared_attention_scorer,
                                r_kv_scorer>;
    /// Which tokens, given a scorer? `chunk_kv(snapkv)`; besides kvcrush(SCORER), which is made of pickers and signatures.
    using selectors = policy_list<chunk_kv_selector,
                                  critical_kv_selector<>,
                                  diverse_kv_selector,
                                  horizons_selector,
                                  partition_selector,
                                  prefix_suffix_selector>;
    /// Who represents the rest in kvcrush(SCORER,pick=...), besides second_score?
    using pickers =
        policy_list<linspace_picker, step_picker, farthest_picker, most_important_picker>;
    /// What a portrait shows in kvcrush(SCORER,signature=...), besides pages; the first is the default.
    using signatures = policy_list<head_signature, key_sign_signature>;
    /// How many tokens for each head of a layer? `ada_kv(POLICY)`
    using allocators = policy_list<ada_kv_allocator>;
    /// How many for each layer or head of a model? `pyramid_kv(POLICY)`
    using model_allocators =
        policy_list<pyramid_kv, kv_compress, baklava, duo_attention_plan, head_level>;
    /// Those that say by themselves what every layer keeps: `kvzip(chunk=1000)`
    using whole_models = policy_list<kvzip, dbudget_kv>;
    /// Recipes of their own: `four_times(seed=1)`
    using presets = policy_list<detail::auto_preset,
                                detail::four_times_preset,
                                detail::eight_times_preset,
                                detail::sixteen_times_preset>;
    /// Codecs of rows as they are, which hadamard(CODEC) may turn.
    using plain_codecs = policy_list<q8_0_codec,
                                     q4_0_codec,
                                     q4_1_codec,
                                     q5_0_codec,
                                     q5_1_codec,
                                     iq4_nl_codec,
                                     int8_row_codec,
                                     fp8_e4m3_codec,
                                     fp8_e5m2_codec,
                                     dense_codec<f16>,
                                     dense_codec<bf16>,
                                     dense_codec<float>>;
    /// Codecs that are not to be turned: those that turn rows themselves, and those that live on what a turn would spread.
    using own_codecs = policy_list<turbo_quant_codec, kivi_key_codec, kivi_value_codec>;
};

} // namespace v0
} // namespace kvcrush
