// SPDX-License-Identifier: Apache-2.0
/// @file
/// A codec that is chosen when a program runs, for caches whose formats come from a configuration.
#pragma once

#include <kvcrush/attend/code_tiles.hpp>
#include <kvcrush/attend/kernels_of.hpp>
#include <kvcrush/attend/row_kernels.hpp>
#include <kvcrush/attend/stored_rows.hpp>
#include <kvcrush/codec/codec.hpp>
#include <kvcrush/codec/dense.hpp>
#include <kvcrush/config.hpp>
#include <kvcrush/core/policy_text.hpp>
#include <kvcrush/simd/isa.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace kvcrush {
inline namespace v0 {

/// Any value that models Codec. Copies share it, so that the tables of kernels() stay valid as long as one copy lives.
class any_codec {
public:
    /// f16 rows.
    any_codec() : any_codec(dense_codec<f16>{}) {}
    /// There is always one inside: what is moved from keeps it.
    any_codec(const any_codec&) = default;
    any_codec& operator=(const any_codec&) = default;
    ~any_codec() = default;

    /// @throws std::invalid_argument if the codec's parameters are out of range
    template <typename C>
        requires(!std::is_same_v<std::remove_cvref_t<C>, any_codec> &&
                 Codec<std::remove_cvref_t<C>>)
    any_codec(
        C&& codec) // NOLINT(google-explicit-constructor): a codec is one wherever one is asked for
        : model_(validated<std::remove_cvref_t<C>>(std::forward<C>(codec))) {}

    [[nodiscard]] std::string_view name() const noexcept { return model_->name(); }
    /// Its parameters that are not the defaults, and the codec inside: "q4_0,signs=1".
    [[nodiscard]] std::string arguments() const { return model_->arguments(); }
    /// As it is written in a recipe: "hadamard(q4_0,signs=1)".
    [[nodiscard]] std::string text() const { return call_text(name(), arguments()); }
    [[nodiscard]] bool centres_keys() const noexcept { return model_->centres_keys(); }
    [[nodiscard]] std::size_t group_size() const noexcept { return model_->group_size(); }
    [[nodiscard]] std::size_t group_bytes(std::size_t dim) const noexcept {
        return model_->group_bytes(dim);
    }
    /// @throws std::invalid_argument if rows of `dim` channels cannot be stored
    void validate_for(std::size_t dim) const { model_->validate_for(dim); }
    [[nodiscard]] bool encode(std::span<const float> rows,
                              std::size_t dim,
                              std::span<std::byte> bytes,
                              simd::isa at_most = simd::best()) const noexcept {
        return model_->encode(rows, dim, bytes, at_most);
    }
    void decode(std::span<const std::byte> bytes,
                std::size_t dim,
                std::span<float> rows,
                simd::isa at_most = simd::best()) const noexcept {
        model_->decode(bytes, dim, rows, at_most);
    }
    [[nodiscard]] row_kernels kernels(simd::isa at_most = simd::best()) const noexcept {
        return kernels(arithmetic::exact, at_most);
    }
    [[nodiscard]] row_kernels kernels(arithmetic how,
                                      simd::isa at_most = simd::best()) const noexcept {
        return model_->kernels(how, at_most);
    }
    /// How rows of `dim` channels lie in tiles; nothing if they cannot.
    [[nodiscard]] std::optional<code_tile> tile(tile_role role, std::size_t dim) const noexcept {
        return model_->tile(role, dim);
    }
    /// The kernels of rows that do. @pre tile()
    [[nodiscard]] row_kernels tile_kernels(tile_role role,
                                           simd::isa at_most = simd::best()) const noexcept {
        return model_->tile_kernels(role, at_most);
    }

private:
    struct concept_ {
        concept_() = default;
        concept_(const concept_&) = delete;
        concept_& operator=(const concept_&) = delete;
        virtual ~concept_() = default;
        [[nodiscard]] virtual std::string_view name() const noexcept = 0;
        [[nodiscard]] virtual std::string arguments() const = 0;
        [[nodiscard]] virtual bool centres_keys() const noexcept = 0;
        [[nodiscard]] virtual std::size_t group_size() const noexcept = 0;
        [[nodiscard]] virtual std::size_t group_bytes(std::size_t dim) const noexcept = 0;
        virtual void validate_for(std::size_t dim) const = 0;
        [[nodiscard]] virtual bool encode(std::span<const float> rows,
                                          std::size_t dim,
                                          std::span<std::byte> bytes,
                                          simd::isa at_most) const noexcept = 0;
        virtual void decode(std::span<const std::byte> bytes,
                            std::size_t dim,
                            std::span<float> rows,
                            simd::isa at_most) const noexcept = 0;
        [[nodiscard]] virtual row_kernels kernels(arithmetic how,
                                                  simd::isa at_most) const noexcept = 0;
        [[nodiscard]] virtual std::optional<code_tile> tile(tile_role role,
                                                            std::size_t dim) const noexcept = 0;
        [[nodiscard]] virtual row_kernels tile_kernels(tile_role role,
                                                       simd::isa at_most) const noexcept = 0;
    };

    template <typename C>
    struct model final : concept_ {
        explicit model(C value) : codec(std::move(value)) {}
        [[nodiscard]] std::string_view name() const noexcept override { return C::name; }
        [[nodiscard]] std::string arguments() const override { return policy_arguments(codec); }
        [[nodiscard]] bool centres_keys() const noexcept override { return CentringCodec<C>; }
        [[nodiscard]] std::size_t group_size() const noexcept override {
            return codec.group_size();
        }
        [[nodiscard]] std::size_t group_bytes(std::size_t dim) const noexcept override {
            return codec.group_bytes(dim);
        }
        void validate_for(std::size_t dim) const override { codec.validate_for(dim); }
        [[nodiscard]] bool encode(std::span<const float> rows,
                                  std::size_t dim,
                                  std::span<std::byte> bytes,
                                  simd::isa at_most) const noexcept override {
            return codec.encode(rows, dim, bytes, at_most);
        }
        void decode(std::span<const std::byte> bytes,
                    std::size_t dim,
                    std::span<float> rows,
                    simd::isa at_most) const noexcept override {
            codec.decode(bytes, dim, rows, at_most);
        }
        [[nodiscard]] row_kernels kernels(arithmetic how,
                                          simd::isa at_most) const noexcept override {
            return kernels_of(codec, how, at_most);
        }
        [[nodiscard]] std::optional<code_tile> tile(tile_role role,
                                                    std::size_t dim) const noexcept override {
            using stored = detail::stored_codec_of<C>;
            if constexpr (TiledCodec<stored>) {
                if (code_tile::suits(dim)) {
                    return code_tile_for<stored>::of(detail::stored_codec_in(codec), role, dim);
                }
            }
            return std::nullopt;
        }
        [[nodiscard]] row_kernels tile_kernels(tile_role role,
                                               simd::isa at_most) const noexcept override {
            if constexpr (TiledCodec<detail::stored_codec_of<C>>) {
                return tile_kernels_of(codec, role, at_most);
            } else {
                KVCRUSH_ASSERT(false);
                return kernels_of(codec, at_most);
            }
        }
        C codec;
    };

    template <typename C>
    [[nodiscard]] static std::shared_ptr<const concept_> validated(C codec) {
        codec.validate();
        return std::make_shared<const model<C>>(std::move(codec));
    }

    std::shared_ptr<const concept_> model_;
};

} // namespace v0
} // namespace kvcrush

#if KVCRUSH_EXTERN_INSTANCES
#    include <kvcrush/attend/detail/any_codec_instances.hpp>
#endif
