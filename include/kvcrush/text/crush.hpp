// SPDX-License-Identifier: Apache-2.0
/// @file
/// `kvcrush(BASE,signature=...,pick=...,...)`: which of the library's selectors that is.
#pragma once

#include <kvcrush/core/error.hpp>
#include <kvcrush/core/policy_text.hpp>
#include <kvcrush/grouping/second_score.hpp>
#include <kvcrush/retention/any_scorer.hpp>
#include <kvcrush/select/any_selector.hpp>
#include <kvcrush/select/kvcrush_selector.hpp>
#include <kvcrush/select/page_selector.hpp>
#include <kvcrush/text/arguments.hpp>
#include <kvcrush/text/expression.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {
namespace detail {

/// Signature, picker, bits and second scorer decide the type of the selector; everything else sets its parameters.
template <typename Catalogue>
class crush_parser {
public:
    using second_picker = second_score_picker<any_scorer>;
    /// The portrait of pages, which is a selector of its own.
    static constexpr std::string_view pages = "page";

    [[nodiscard]] static std::vector<std::string_view> picker_names() {
        std::vector<std::string_view> names = Catalogue::pickers::names();
        names.push_back(second_picker::name);
        return names;
    }
    [[nodiscard]] static std::vector<std::string_view> signature_names() {
        std::vector<std::string_view> names = Catalogue::signatures::names();
        names.push_back(pages);
        return names;
    }

    /// @param areas  sinks and recent tokens may stand among the arguments
    /// @throws std::invalid_argument naming what is misspelt, out of range or does not go together
    [[nodiscard]] static any_selector parse(const expression& text, area_parameters& areas) {
        crush_parser own(text, areas);
        own.take_apart();
        own.refuse_what_does_not_go_together();
        own.choose();
        return std::move(own.result_);
    }

private:
    crush_parser(const expression& text, area_parameters& areas) : text_(text), areas_(areas) {}

    void take_apart() {
        for (const expression& value : text_.named) {
            if (value.key == "signature") {
                signature_ = plain_name(value, signature_names());
            } else if (value.key == "pick") {
                pick_ = plain_name(value, picker_names());
            } else if (value.key == "bits") {
                bits_ = scorer_of(value);
            } else if (value.key == "second") {
                second_ = scorer_of(value);
            } else {
                values_.push_back(&value);
            }
        }
    }

    [[nodiscard]] std::string_view plain_name(const expression& value,
                                              const std::vector<std::string_view>& allowed) const {
        require_plain(text_, value);
        for (const std::string_view name : allowed) {
            if (name == value.name) {
                return name;
            }
        }
        fail({"policy ",
             text_.name,
             ": ",
             value.key,
             " is ",
             in_quotes(value.name),
             "; allowed: ",
             join(allowed, "|")});
    }

    [[nodiscard]] static any_scorer scorer_of(const expression& value) {
        any_scorer result;
        parse_choice<typename Catalogue::scorers>(
            value, [&](const auto& scorer) { result = any_scorer(scorer); });
        return result;
    }

    void refuse_what_does_not_go_together() const {
        const bool has_opinion = pick_ == second_picker::name;
        require(has_opinion == second_.has_value(),
                "policy ",
                text_.name,
                ": pick=second_score and second=SCORER go together, as in "
                "kvcrush(snapkv,pick=second_score,second=h2o(last=256))");
        const bool of_heads = signature_ == head_signature::name;
        require(!has_opinion || (!bits_ && of_heads),
                "policy ",
                text_.name,
                ": pick=second_score looks at no portrait; leave signature and bits out");
    }

    void choose() {
        if (second_) {
            kvcrush_selector<second_picker> selector;
            selector.picker.second = *second_;
            finish(selector);
            return;
        }
        static_cast<void>(Catalogue::pickers::with(pick_, [&](const auto& picker) {
            using picker_type = std::remove_cvref_t<decltype(picker)>;
            if (signature_ == pages) {
                require_no_bits();
                finish(page_selector<picker_type>{});
                return;
            }
            static_cast<void>(Catalogue::signatures::with(signature_, [&](const auto& signature) {
                choose_bits<picker_type, std::remove_cvref_t<decltype(signature)>>();
            }));
        }));
    }

    template <typename Picker, typename Signature>
    void choose_bits() {
        if constexpr (ObservedSignature<Signature>) {
            if (bits_) {
                kvcrush_selector<Picker, any_scorer, Signature> selector;
                selector.bits = *bits_;
                finish(selector);
                return;
            }
        }
        require_no_bits();
        finish(kvcrush_selector<Picker, own_scores, Signature>{});
    }

    void require_no_bits() const {
        require(!bits_, "policy ", text_.name, ": bits=SCORER is for signature=head");
    }

    template <typename SelectorT>
    void finish(SelectorT selector) {
        for (const expression* const value : values_) {
            set_argument(text_, *value, {"signature", "pick", "bits", "second"}, selector, areas_);
        }
        result_ = std::move(selector);
    }

    const expression& text_;
    area_parameters& areas_;
    std::string_view signature_ = head_signature::name;
    std::string_view pick_ = linspace_picker::name;
    std::optional<any_scorer> bits_{};
    std::optional<any_scorer> second_{};
    std::vector<const expression*> values_{};
    any_selector result_{};
};

} // namespace detail
} // namespace v0
} // namespace kvcrush
