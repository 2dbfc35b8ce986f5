// SPDX-License-Identifier: Apache-2.0
#include "codec_parser.hpp"

#include <kvcrush/kvcrush.hpp>

#include "arguments.hpp"
#include "error.hpp"
#include "expression.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <variant>

namespace lab {
namespace {

/// Codecs of rows as they are.
using plain_codec = std::variant<kvcrush::q8_0_codec,
                                 kvcrush::q4_0_codec,
                                 kvcrush::q4_1_codec,
                                 kvcrush::q5_0_codec,
                                 kvcrush::q5_1_codec,
                                 kvcrush::iq4_nl_codec,
                                 kvcrush::int8_row_codec,
                                 kvcrush::fp8_e4m3_codec,
                                 kvcrush::fp8_e5m2_codec,
                                 kvcrush::dense_codec<kvcrush::f16>,
                                 kvcrush::dense_codec<kvcrush::bf16>,
                                 kvcrush::dense_codec<float>>;
/// Codecs that are not to be turned: those that turn rows themselves, and those that live on what a turn would spread.
using own_codec =
    std::variant<kvcrush::turbo_quant_codec, kvcrush::kivi_key_codec, kvcrush::kivi_value_codec>;

/// Parameters of hadamard(INNER).
struct rotation_parameters {
    bool signs = false;
    std::uint64_t seed = 0;
    static constexpr auto parameters() {
        using self = rotation_parameters;
        return std::tuple{
            kvcrush::parameter{"signs", &self::signs, "random signs before the transform"},
            kvcrush::parameter{"seed", &self::seed, "another seed, other signs"}};
    }
};

template <typename Policy>
void set_arguments(const expression& text, Policy& policy) {
    for (const expression& value : text.named) {
        set_argument(text, value, {}, policy);
    }
}

[[nodiscard]] const expression& inner_of(const expression& text) {
    if (text.positional.size() != 1) {
        fail("codec ", text.name, " takes one codec, as in ", text.name, "(q4_0)");
    }
    return text.positional.front();
}

[[noreturn]] void fail_unknown_codec(std::string_view name) {
    fail("codec ",
         in_quotes(name),
         " is unknown here; allowed: ",
         join(names_of<plain_codec>(), ", "),
         ", ",
         join(names_of<own_codec>(), ", "),
         ", hadamard(CODEC), mean_centred(CODEC)");
}

template <typename Variant>
[[nodiscard]] bool is_one_of(std::string_view name) {
    Variant ignored;
    return choose(name, ignored);
}

/// Calls visit(codec) with the codec of that expression: plain, of its own, or hadamard(plain).
template <typename Visit>
[[nodiscard]] kvcrush::any_codec with_codec(const expression& text, const Visit& visit) {
    if (is_one_of<plain_codec>(text.name)) {
        return std::visit(visit, parse_choice<plain_codec>(text));
    }
    if (is_one_of<own_codec>(text.name)) {
        return std::visit(visit, parse_choice<own_codec>(text));
    }
    if (text.name == "hadamard") {
        rotation_parameters rotation;
        set_arguments(text, rotation);
        const expression& inner = inner_of(text);
        if (!is_one_of<plain_codec>(inner.name)) {
            fail("codec hadamard: ",
                 in_quotes(inner.text),
                 " cannot be turned; allowed: ",
                 join(names_of<plain_codec>(), ", "));
        }
        return std::visit(
            [&](const auto& codec) {
                return visit(kvcrush::hadamard_codec<std::decay_t<decltype(codec)>>{
                    codec, rotation.signs, rotation.seed});
            },
            parse_choice<plain_codec>(inner));
    }
    fail_unknown_codec(text.name);
}

[[nodiscard]] kvcrush::any_codec parse_codec(const expression& text, bool for_keys) {
    if (text.name == "mean_centred") {
        if (!for_keys) {
            fail("codec mean_centred is for keys: centring values changes the answer");
        }
        if (!text.named.empty()) {
            fail("codec mean_centred takes a codec and no parameters");
        }
        return with_codec(inner_of(text), [](const auto& codec) {
            return kvcrush::any_codec(
                kvcrush::mean_centred_codec<std::decay_t<decltype(codec)>>{codec});
        });
    }
    return with_codec(text, [](const auto& codec) { return kvcrush::any_codec(codec); });
}

/// Parameters of codec(...) and tiered(...) that are plain values.
struct choice_parameters {
    std::size_t window = 128;
    double keep = 0.0;
    bool bytes = false;
    bool exact = false;
    static constexpr auto parameters() {
        using self = choice_parameters;
        return std::tuple{
            kvcrush::parameter{
                "window", &self::window, "newest rows that stay f16 while a text goes on"},
            kvcrush::parameter{
                "keep", &self::keep, "tokens kept, whatever the ratio of the run; 0: that ratio"},
            kvcrush::parameter{
                "bytes", &self::bytes, "the ratio of the run is a share of the f16 bytes"},
            kvcrush::parameter{
                "exact", &self::exact, "attend in fp32 where codes could be computed with"}};
    }
};

/// Parameters of tiered(...) alone.
struct tier_parameters {
    double share = 0.5;
    static constexpr auto parameters() {
        return std::tuple{kvcrush::parameter{
            "share", &tier_parameters::share, "part of the kept tokens in k and v"}};
    }
};

/// How presets store rows: keys and values of important tokens in 5 and 4 bits, the others' keys in 3.
struct two_tiers {
    unsigned other_value_bits;
    std::string_view shares;

    [[nodiscard]] std::string text(std::uint64_t seed) const {
        return fmt::format("+tiered(k=mean_centred(turbo_quant(bits=5,seed={0})),"
                           "v=turbo_quant(bits=4,seed={0}),"
                           "k2=mean_centred(turbo_quant(bits=3,seed={0})),"
                           "v2=turbo_quant(bits={1},seed={0}),{2})",
                           seed,
                           other_value_bits,
                           shares);
    }
};

/// Presets are policies of their own text, so that what they stand for can be read and varied.
struct byte_preset {
    std::string_view name;
    std::string_view about;
    std::string_view policy; ///< which tokens
    two_tiers rows;
};
constexpr std::array presets{
    byte_preset{
        "four_times",
        "a quarter of the bytes: all tokens, keys of half of them in 5 bits, the others in 3",
        "ada_kv(horizons(snapkv))",
        {3, "share=0.46,keep=1"}},
    byte_preset{
        "eight_times",
        "an eighth of the bytes: three fifths of the tokens, keys of a quarter of them in 5 "
        "bits and values in 4, the others in 3 and 2",
        "glob",
        {2, "share=0.25,keep=0.6"}},
    byte_preset{"sixteen_times",
                "a sixteenth of the bytes: three tenths of the tokens, stored as in eight_times",
                "glob",
                {2, "share=0.25,keep=0.292"}}};

/// The library's own policy, and how its rows are stored where its budget is one of bytes.
struct auto_parameters {
    static constexpr std::string_view name = "kvcrush_auto";
    bool bytes = false;
    std::uint64_t seed = 0;
    static constexpr auto parameters() {
        using self = auto_parameters;
        return std::tuple{
            kvcrush::parameter{"bytes",
                               &self::bytes,
                               "keep ratios are shares of the f16 bytes, and rows are stored in "
                               "codecs"},
            kvcrush::parameter{"seed", &self::seed, "of the random signs of the codecs"}};
    }
    [[nodiscard]] std::string text() const {
        std::string result = "ada_kv(horizons(snapkv))";
        if (bytes) {
            result += two_tiers{3, "share=0.5,bytes=1"}.text(seed);
        }
        return result;
    }
};

struct seed_parameter {
    std::uint64_t seed = 0;
    static constexpr auto parameters() {
        return std::tuple{kvcrush::parameter{"seed", &seed_parameter::seed, "of the random signs"}};
    }
};

} // namespace

std::pair<std::string, std::optional<std::string>> split_codec(std::string_view policy) {
    int depth = 0;
    for (std::size_t i = 0; i < policy.size(); ++i) {
        depth += policy[i] == '(' ? 1 : policy[i] == ')' ? -1 : 0;
        const std::string_view rest = policy.substr(i);
        if (depth == 0 && (rest.rfind("+codec", 0) == 0 || rest.rfind("+tiered", 0) == 0)) {
            return {std::string(policy.substr(0, i)), std::string(policy.substr(i + 1))};
        }
    }
    return {std::string(policy), std::nullopt};
}

codec_choice parse_codec_choice(std::string_view text) {
    const expression parsed = parse_expression(text);
    const bool tiered = parsed.name == "tiered";
    if (parsed.name != "codec" && !tiered) {
        fail("policy: ", in_quotes(parsed.name), " is unknown behind +; allowed: codec, tiered");
    }
    if (!parsed.positional.empty()) {
        fail("policy ",
             parsed.name,
             ": ",
             in_quotes(parsed.positional.front().text),
             " has no name; write k=CODEC,v=CODEC");
    }
    codec_choice choice;
    choice.sinks = {kvcrush::q8_0_codec{}, kvcrush::q8_0_codec{}};
    choice.tiers.resize(tiered ? 2 : 1);
    choice_parameters values;
    tier_parameters tiers;
    std::array<bool, 4> given{};
    for (const expression& argument : parsed.named) {
        const auto codec = [&](kvcrush::any_codec& target, bool for_keys) {
            target = parse_codec(argument, for_keys);
        };
        if (argument.key == "k") {
            codec(choice.tiers[0].keys, true);
            given[0] = true;
        } else if (argument.key == "v") {
            codec(choice.tiers[0].values, false);
            given[1] = true;
        } else if (tiered && argument.key == "k2") {
            codec(choice.tiers[1].keys, true);
            given[2] = true;
        } else if (tiered && argument.key == "v2") {
            codec(choice.tiers[1].values, false);
            given[3] = true;
        } else if (argument.key == "sinks") {
            codec(choice.sinks.keys, false);
            choice.sinks.values = choice.sinks.keys;
        } else if (tiered) {
            set_argument(parsed, argument, {"k", "v", "k2", "v2", "sinks"}, values, tiers);
        } else {
            set_argument(parsed, argument, {"k", "v", "sinks"}, values);
        }
    }
    if (!given[0] || !given[1] || (tiered && (!given[2] || !given[3]))) {
        fail("policy ",
             parsed.name,
             " needs ",
             tiered ? "k, v, k2 and v2" : "k and v",
             ", as in ",
             tiered ? "+tiered(k=q8_0,v=q8_0,k2=q4_0,v2=q4_0,share=0.5)" : "+codec(k=q8_0,v=q4_0)");
    }
    if (!(tiers.share > 0.0) || tiers.share > 1.0) {
        fail("policy ", parsed.name, ": share is ", tiers.share, "; it must lie in (0, 1]");
    }
    if (!(values.keep >= 0.0) || values.keep > 1.0) {
        fail("policy ", parsed.name, ": keep is ", values.keep, "; it must lie in [0, 1]");
    }
    if (values.bytes && values.keep > 0.0) {
        fail("policy ", parsed.name, ": keep says how many tokens stay, and so does bytes");
    }
    choice.window = values.window;
    choice.counts_bytes = values.bytes;
    choice.attention = values.exact ? kvcrush::arithmetic::exact : kvcrush::arithmetic::integer;
    choice.first_share = tiered ? tiers.share : 1.0;
    if (values.keep > 0.0) {
        choice.keep = values.keep;
    }
    return choice;
}

std::string expand_preset(std::string_view policy) {
    const auto [base, codec] = split_codec(policy);
    const std::size_t begin = (std::min)(base.find_first_not_of(' '), base.size());
    const std::string_view name =
        std::string_view(base).substr(begin, base.find_first_of("( ", begin) - begin);
    const auto* const preset = std::find_if(
        presets.begin(), presets.end(), [&](const byte_preset& one) { return one.name == name; });
    const bool is_auto = name == auto_parameters::name;
    if (preset == presets.end() && !is_auto) {
        return std::string(policy);
    }
    const expression parsed = parse_expression(base);
    if (!parsed.positional.empty()) {
        fail("policy ", name, " takes seed=NUMBER and no policy");
    }
    if (is_auto) {
        auto_parameters values;
        set_arguments(parsed, values);
        if (codec && values.bytes) {
            fail("policy ", name, " with bytes=1 says already how rows are stored");
        }
        return values.text() + (codec ? "+" + *codec : std::string());
    }
    if (codec) {
        fail("policy ", name, " says already how rows are stored");
    }
    seed_parameter values;
    set_arguments(parsed, values);
    return std::string(preset->policy) + preset->rows.text(values.seed);
}

std::vector<std::string_view> preset_names() {
    std::vector<std::string_view> names{auto_parameters::name};
    for (const byte_preset& preset : presets) {
        names.push_back(preset.name);
    }
    return names;
}

std::vector<policy_help> list_codecs() {
    std::vector<policy_help> list;
    policy_help codec{
        "POLICY+codec(k=C,v=C)",
        "whose rows are stored in codecs C: " + join(names_of<plain_codec>(), ", ") +
            ", turbo_quant(bits=4,seed=0), kivi_key and kivi_value(bits=4), hadamard(C), and "
            "for keys mean_centred(C)",
        {}};
    codec.add(choice_parameters{});
    list.push_back(codec);
    policy_help tiered{"POLICY+tiered(k=C,v=C,k2=C,v2=C)",
                       "whose most important rows are stored in k and v, the others in k2 and v2",
                       {}};
    tiered.add(choice_parameters{});
    tiered.add(tier_parameters{});
    list.push_back(tiered);
    policy_help own{std::string(auto_parameters::name),
                    "what works best here: ada_kv(horizons(snapkv)), no knob but the budget",
                    {}};
    own.add(auto_parameters{});
    list.push_back(own);
    for (const byte_preset& preset : presets) {
        policy_help help{std::string(preset.name), std::string(preset.about), {}};
        help.add(seed_parameter{});
        list.push_back(help);
    }
    return list;
}

} // namespace lab
