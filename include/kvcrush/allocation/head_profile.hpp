// SPDX-License-Identifier: Apache-2.0
/// @file
/// How important the kv heads and layers of a model are, measured once and kept as text.
#pragma once

#include <kvcrush/allocation/head_counts.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <istream>
#include <limits>
#include <locale>
#include <ostream>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvcrush {
inline namespace v0 {

/// Importance per (layer, kv head), and a factor per layer; both finite and not negative.
///
///     kvcrush-head-profile 1
///     layers 2 kv_heads 3 samples 4096
///     1 0.25 0.5 0.75
///     1.5 0 1 0.125
///
/// One line per layer: its factor, then its heads. Numbers have as many digits as it takes to read back the same ones,
/// and a point whatever the locale.
class head_profile {
public:
    /// Larger models are taken for a damaged file.
    static constexpr std::size_t max_heads = std::size_t{1} << 22;

    head_profile() = default;

    /// @param heads    [num_layers, num_kv_heads] importance
    /// @param layers   [num_layers] factors; empty means 1 for each
    /// @param samples  what the importance is a mean over: tokens, prompts; the weight in merge_mean()
    /// @throws std::invalid_argument if the sizes differ or a number is negative or not finite
    head_profile(const model_heads& model,
                 std::vector<double> heads,
                 std::vector<double> layers = {},
                 std::uint64_t samples = 1)
        : model_(model), samples_(samples), heads_(std::move(heads)), layers_(std::move(layers)) {
        using detail::require;
        require_size(model);
        if (layers_.empty()) {
            layers_.assign(model.num_layers, 1.0);
        }
        require(heads_.size() == model.num_layers * model.num_kv_heads,
                "head_profile: ",
                heads_.size(),
                " heads are given for ",
                model.num_layers,
                " layers of ",
                model.num_kv_heads,
                " kv heads");
        require(layers_.size() == model.num_layers,
                "head_profile: ",
                layers_.size(),
                " factors are given for ",
                model.num_layers,
                " layers");
        for (const std::vector<double>* values : {&heads_, &layers_}) {
            for (const double value : *values) {
                require(value >= 0.0 && value <= (std::numeric_limits<double>::max)(),
                        "head_profile: an importance is ",
                        value,
                        "; it must be finite and not negative");
            }
        }
    }

    [[nodiscard]] const model_heads& model() const noexcept { return model_; }
    [[nodiscard]] std::uint64_t samples() const noexcept { return samples_; }
    /// Importance of the kv heads, layer by layer.
    [[nodiscard]] std::span<const double> heads() const noexcept { return heads_; }
    /// Factors of the layers.
    [[nodiscard]] std::span<const double> layers() const noexcept { return layers_; }
    [[nodiscard]] double head(std::size_t layer, std::size_t kv_head) const noexcept {
        KVCRUSH_ASSERT(layer < model_.num_layers && kv_head < model_.num_kv_heads);
        return heads_[layer * model_.num_kv_heads + kv_head];
    }

    friend bool operator==(const head_profile&, const head_profile&) = default;

    /// @throws std::invalid_argument if the profile was made for another model
    void require_made_for(const model_heads& model) const {
        detail::require(model == model_,
                        "head_profile: made for ",
                        model_.num_layers,
                        " layers of ",
                        model_.num_kv_heads,
                        " kv heads; the model has ",
                        model.num_layers,
                        " layers of ",
                        model.num_kv_heads);
    }

    /// The mean of two profiles of one model, weighted by their samples.
    /// @throws std::invalid_argument if the models differ
    void merge_mean(const head_profile& other) {
        require_made_for(other.model_);
        const double mine = static_cast<double>(samples_);
        const double theirs = static_cast<double>(other.samples_);
        if (theirs == 0.0) {
            return;
        }
        const double part = theirs / (mine + theirs);
        const auto mean = [part](double a, double b) { return a + (b - a) * part; };
        std::transform(heads_.begin(), heads_.end(), other.heads_.begin(), heads_.begin(), mean);
        std::transform(
            layers_.begin(), layers_.end(), other.layers_.begin(), layers_.begin(), mean);
        samples_ += other.samples_;
    }

    /// The larger importance of two profiles of one model, as KVzip takes over several contexts.
    /// @throws std::invalid_argument if the models differ
    void merge_max(const head_profile& other) {
        require_made_for(other.model_);
        const auto larger = [](double a, double b) { return (std::max)(a, b); };
        std::transform(heads_.begin(), heads_.end(), other.heads_.begin(), heads_.begin(), larger);
        std::transform(
            layers_.begin(), layers_.end(), other.layers_.begin(), layers_.begin(), larger);
        samples_ += other.samples_;
    }

    /// Writes the profile as text. Whether that worked is what `out` says afterwards.
    void save(std::ostream& out) const {
        std::ostringstream text;
        text.imbue(std::locale::classic());
        text.precision(std::numeric_limits<double>::max_digits10);
        text << magic << ' ' << version << "\nlayers " << model_.num_layers << " kv_heads "
             << model_.num_kv_heads << " samples " << samples_ << '\n';
        for (std::size_t l = 0; l < model_.num_layers; ++l) {
            text << layers_[l];
            for (std::size_t h = 0; h < model_.num_kv_heads; ++h) {
                text << ' ' << head(l, h);
            }
            text << '\n';
        }
        out << text.str();
    }

    /// Reads what save() wrote, and nothing behind it.
    /// @throws std::invalid_argument if the text is not a profile, is damaged or breaks off
    [[nodiscard]] static head_profile load(std::istream& in) {
        using detail::require;
        require(word(in) == magic,
                "head_profile: the text does not begin with '",
                magic,
                "': it is no profile");
        const std::uint64_t found = number<std::uint64_t>(in, "the version");
        require(found == version,
                "head_profile: version ",
                found,
                " is unknown; this is version ",
                version);
        model_heads model;
        model.num_layers = named(in, "layers");
        model.num_kv_heads = named(in, "kv_heads");
        const std::uint64_t samples = named(in, "samples");
        require_size(model);
        std::vector<double> heads;
        std::vector<double> layers;
        for (std::size_t l = 0; l < model.num_layers; ++l) {
            layers.push_back(number<double>(in, "the factor of a layer"));
            for (std::size_t h = 0; h < model.num_kv_heads; ++h) {
                heads.push_back(number<double>(in, "the importance of a head"));
            }
        }
        // save() ends the last line: without its end, digits may be missing.
        require(in.peek() != std::istream::traits_type::eof(),
                "head_profile: the text breaks off in its last number");
        return head_profile(model, std::move(heads), std::move(layers), samples);
    }

private:
    static constexpr std::string_view magic = "kvcrush-head-profile";
    static constexpr std::uint64_t version = 1;

    static void require_size(const model_heads& model) {
        detail::require(
            model.num_layers <= max_heads &&
                (model.num_layers == 0 || model.num_kv_heads <= max_heads / model.num_layers),
            "head_profile: ",
            model.num_layers,
            " layers of ",
            model.num_kv_heads,
            " kv heads; no more than ",
            max_heads,
            " heads together are allowed");
    }

    /// The next word, empty at the end. No word of a profile is long.
    [[nodiscard]] static std::string word(std::istream& in) {
        constexpr int longest = 64;
        std::string text;
        in.width(longest);
        in >> text;
        detail::require(text.size() < longest - 1, "head_profile: '", text, "' is too long");
        return text;
    }

    template <typename T>
    [[nodiscard]] static T number(std::istream& in, std::string_view what) {
        const std::string text = word(in);
        std::istringstream parser(text);
        parser.imbue(std::locale::classic());
        T value{};
        // A sign would wrap an unsigned number instead of failing.
        const bool is_number =
            !text.empty() && text.front() != '-' && parser >> value && parser.peek() == EOF;
        detail::require(is_number,
                        "head_profile: ",
                        what,
                        text.empty() ? " is missing: the text breaks off" : " is not a number: ",
                        text);
        return value;
    }

    [[nodiscard]] static std::size_t named(std::istream& in, std::string_view name) {
        const std::string found = word(in);
        detail::require(
            found == name, "head_profile: '", name, "' is expected, there stands '", found, "'");
        return number<std::size_t>(in, name);
    }

    model_heads model_{};
    std::uint64_t samples_ = 0;
    std::vector<double> heads_;
    std::vector<double> layers_;
};

} // namespace v0
} // namespace kvcrush
