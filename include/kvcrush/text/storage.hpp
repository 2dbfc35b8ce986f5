// SPDX-License-Identifier: Apache-2.0
/// @file
/// `X+codec(k=C,v=C)` and `X+tiered(k=C,v=C,k2=C,v2=C)`: how kept rows are stored.
#pragma once

#include <kvcrush/attend/any_codec.hpp>
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/codec/hadamard.hpp>
#include <kvcrush/codec/mean_centred.hpp>
#include <kvcrush/codec/q8_0.hpp>
#include <kvcrush/core/error.hpp>
#include <kvcrush/core/parameter.hpp>
#include <kvcrush/core/policy_text.hpp>
#include <kvcrush/recipe/cache_budget.hpp>
#include <kvcrush/recipe/recipe.hpp>
#include <kvcrush/recipe/row_storage.hpp>
#include <kvcrush/text/arguments.hpp>
#include <kvcrush/text/expression.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Parameters of codec(...) and tiered(...) that are plain values.
struct storage_parameters {
    std::size_t window = row_storage{}.window;
    std::size_t sink_rows = row_storage{}.num_sink_tokens;
    double keep = 0.0;
    bool bytes = false;
    bool exact = false;
    static constexpr auto parameters() {
        using self = storage_parameters;
        return parameter_list{
            parameter{"window", &self::window, "newest rows that stay f16 while a text goes on"},
            parameter{"sink_rows", &self::sink_rows, "first rows, which are stored in sinks=CODEC"},
            parameter{
                "keep", &self::keep, "tokens kept, whatever the ratio of the run; 0: that ratio"},
            parameter{"bytes", &self::bytes, "the ratio of the run is a share of the f16 bytes"},
            parameter{"exact", &self::exact, "attend in fp32 where codes could be computed with"}};
    }
};

/// Parameters of tiered(...) alone.
struct tier_parameters {
    double share = 0.5;
    static constexpr auto parameters() {
        return parameter_list{
            parameter{"share", &tier_parameters::share, "part of the kept tokens in k and v"}};
    }
};

[[nodiscard]] inline const expression& codec_inside(const expression& text) {
    require(text.positional.size() == 1,
            "codec ",
            text.name,
            " takes one codec, as in ",
            text.name,
            "(q4_0)");
    return text.positional.front();
}

/// Calls use(codec) with the codec of an expression: plain, of its own, or hadamard(plain).
template <typename Catalogue, typename Use>
void parse_codec(const expression& text, const Use& use) {
    using plain = typename Catalogue::plain_codecs;
    using own = typename Catalogue::own_codecs;
    if (plain::contains(text.name)) {
        parse_choice<plain>(text, use);
    } else if (own::contains(text.name)) {
        parse_choice<own>(text, use);
    } else if (text.name == "hadamard") {
        const expression& inner = codec_inside(text);
        require(plain::contains(inner.name),
                "codec hadamard: ",
                in_quotes(inner.text),
                " cannot be turned; allowed: ",
                join(plain::names(), ", "));
        parse_choice<plain>(inner, [&](const auto& codec) {
            hadamard_codec<std::remove_cvref_t<decltype(codec)>> turned{codec};
            set_arguments(text, turned);
            use(turned);
        });
    } else {
        std::vector<std::string> allowed;
        append_names(allowed, plain::names());
        append_names(allowed, own::names());
        allowed.insert(allowed.end(), {"hadamard(CODEC)", "mean_centred(CODEC)"});
        fail({"codec ", in_quotes(text.name), " is unknown here; allowed: ", join(allowed, ", ")});
    }
}

template <typename Catalogue>
[[nodiscard]] any_codec parse_value_codec(const expression& text) {
    require(text.name != "mean_centred",
            "codec mean_centred is for keys: centring values changes the answer");
    any_codec result;
    parse_codec<Catalogue>(text, [&](const auto& codec) { result = any_codec(codec); });
    return result;
}

template <typename Catalogue>
[[nodiscard]] any_codec parse_key_codec(const expression& text) {
    if (text.name != "mean_centred") {
        return parse_value_codec<Catalogue>(text);
    }
    require(text.named.empty(), "codec mean_centred takes a codec and no parameters");
    any_codec result;
    parse_codec<Catalogue>(codec_inside(text), [&](const auto& codec) {
        result = any_codec(mean_centred_codec<std::remove_cvref_t<decltype(codec)>>{codec});
    });
    return result;
}

/// Reads codec(...) and tiered(...) into a recipe.
template <typename Catalogue>
class storage_parser {
public:
    /// @param owner  the policy that stands before the +
    /// @throws std::invalid_argument naming what is misspelt or out of range, and what is allowed
    static void parse(const expression& text, std::string_view owner, recipe& result) {
        require(!result.rows.encodes(), "policy ", owner, " says already how rows are stored");
        storage_parser own(text);
        own.read();
        own.require_complete();
        row_storage& rows = result.rows;
        rows.sinks = {own.sinks_, own.sinks_};
        rows.tiers = own.tiers_;
        rows.tiers.front().share = own.tiered_ ? own.tier_values_.share : 1.0;
        rows.window = own.values_.window;
        rows.num_sink_tokens = own.values_.sink_rows;
        rows.attention = own.values_.exact ? arithmetic::exact : arithmetic::integer;
        own.set_budget(owner, result.keep);
    }

private:
    explicit storage_parser(const expression& text)
        : text_(text), tiered_(text.name == "tiered"), tiers_(tiered_ ? 2 : 1) {}

    void read() {
        require_no_positional(text_, "k=CODEC,v=CODEC");
        for (const expression& argument : text_.named) {
            const std::string_view key = argument.key;
            if (key == "sinks") {
                sinks_ = parse_value_codec<Catalogue>(argument);
            } else if (key == "k" || (tiered_ && key == "k2")) {
                tiers_[key.size() - 1].keys = parse_key_codec<Catalogue>(argument);
                ++num_codecs_;
            } else if (key == "v" || (tiered_ && key == "v2")) {
                tiers_[key.size() - 1].values = parse_value_codec<Catalogue>(argument);
                ++num_codecs_;
            } else if (tiered_) {
                set_argument(
                    text_, argument, {"k", "v", "k2", "v2", "sinks"}, values_, tier_values_);
            } else {
                set_argument(text_, argument, {"k", "v", "sinks"}, values_);
            }
        }
    }

    /// No key can be given twice, so that their number says which are there.
    void require_complete() const {
        require(num_codecs_ == 2 * tiers_.size(),
                "policy ",
                text_.name,
                " needs ",
                tiered_ ? "k, v, k2 and v2" : "k and v",
                ", as in ",
                tiered_ ? "+tiered(k=q8_0,v=q8_0,k2=q4_0,v2=q4_0,share=0.5)"
                        : "+codec(k=q8_0,v=q4_0)");
        require(tier_values_.share > 0.0 && tier_values_.share <= 1.0,
                "policy ",
                text_.name,
                ": share is ",
                tier_values_.share,
                "; it must lie in (0, 1]");
        require(values_.keep >= 0.0 && values_.keep <= 1.0,
                "policy ",
                text_.name,
                ": keep is ",
                values_.keep,
                "; it must lie in [0, 1]");
        require(!values_.bytes || values_.keep == 0.0,
                "policy ",
                text_.name,
                ": keep says how many tokens stay, and so does bytes");
    }

    void set_budget(std::string_view owner, cache_budget& keep) const {
        if (values_.keep > 0.0 || values_.bytes) {
            require(keep.is_open(), "policy ", owner, " says already how much stays");
            keep =
                values_.bytes ? cache_budget::of_bytes() : cache_budget::keep_ratio(values_.keep);
        }
    }

    const expression& text_;
    bool tiered_;
    std::vector<storage_tier> tiers_;
    any_codec sinks_ = q8_0_codec{};
    std::size_t num_codecs_ = 0;
    storage_parameters values_{};
    tier_parameters tier_values_{};
};

/// The call that storage_parser reads as these rows; empty for f16 rows.
/// @throws std::invalid_argument if there is none
[[nodiscard]] inline std::string storage_text(const row_storage& rows) {
    const row_storage plain{};
    require(rows.dense.keys.text() == plain.dense.keys.text() &&
                rows.dense.values.text() == plain.dense.values.text(),
            "recipe: dense rows in ",
            rows.dense.keys.text(),
            " and ",
            rows.dense.values.text(),
            " cannot be written as text; those of f16 can");
    if (!rows.encodes()) {
        return {};
    }
    require(rows.tiers.size() <= 2,
            "recipe: ",
            rows.tiers.size(),
            " tiers cannot be written as text; two can");
    const std::string sinks = rows.sinks.keys.text();
    require(sinks == rows.sinks.values.text(),
            "recipe: sinks with keys in ",
            sinks,
            " and values in ",
            rows.sinks.values.text(),
            " cannot be written as text; one codec for both can");
    std::string arguments;
    for (std::size_t i = 0; i < rows.tiers.size(); ++i) {
        const std::string number = i == 0 ? "" : "2";
        append_argument(arguments, "k" + number + '=' + rows.tiers[i].keys.text());
        append_argument(arguments, "v" + number + '=' + rows.tiers[i].values.text());
    }
    if (sinks != q8_0_codec::name) {
        append_argument(arguments, "sinks=" + sinks);
    }
    const bool tiered = rows.tiers.size() > 1;
    const tier_parameters shares{tiered ? rows.tiers.front().share : tier_parameters{}.share};
    append_argument(arguments, changed_parameters(shares, tier_parameters{}));
    append_argument(arguments,
                    changed_parameters({.window = rows.window,
                                        .sink_rows = rows.num_sink_tokens,
                                        .exact = rows.attention == arithmetic::exact},
                                       storage_parameters{}));
    return call_text(tiered ? "tiered" : "codec", arguments);
}

} // namespace detail
} // namespace v0
} // namespace kvcrush
