// SPDX-License-Identifier: Apache-2.0
/// @file
/// A model file: its metadata, and its tensors where they lie.
#pragma once

#include "mapped_file.hpp"
#include "tensor_type.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

namespace lab {

/// Types of metadata values. Values as in the file.
enum class gguf_type : std::uint32_t {
    uint8,
    int8,
    uint16,
    int16,
    uint32,
    int32,
    float32,
    boolean,
    string,
    array,
    uint64,
    int64,
    float64
};

/// An array as it lies in the file; its length has been checked, its elements are read when asked for.
struct gguf_array {
    gguf_type element = gguf_type::uint8;
    std::uint64_t count = 0;
    std::span<const std::byte> bytes;
};

/// Integers are widened to 64 bits, floats to double. Text and arrays point into the file.
using gguf_value =
    std::variant<bool, std::uint64_t, std::int64_t, double, std::string_view, gguf_array>;

struct gguf_tensor {
    std::string_view name;
    std::vector<std::uint64_t> shape; ///< as in the file: the length of a row comes first
    tensor_type type = tensor_type::f32;
    std::span<const std::byte> data; ///< checked to lie inside the file
};

/// Reads GGUF versions 2 and 3. Everything is checked when the file is opened: nothing a file says is believed
/// before it has been compared with the size of the file, and memory grows only with bytes really read.
/// Text, arrays and tensors that it hands out live as long as the object, and survive moving it.
/// @see the GGUF specification in the ggml repository, docs/gguf.md
class gguf_file {
public:
    /// @throws input_error naming the file, the thing, its value and what is allowed
    explicit gguf_file(std::string path);

    /// The file's name without folders, as it appears in messages.
    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] const std::string& path() const noexcept { return path_; }

    [[nodiscard]] const gguf_value* find(std::string_view key) const;
    /// The optional values: nothing if the key is missing. @throws input_error if it has another type
    [[nodiscard]] std::optional<std::uint64_t> find_uint(std::string_view key) const;
    [[nodiscard]] std::optional<double> find_float(std::string_view key) const;
    [[nodiscard]] std::optional<bool> find_bool(std::string_view key) const;
    [[nodiscard]] std::optional<std::string_view> find_string(std::string_view key) const;
    /// The required values. @throws input_error if the key is missing or has another type
    [[nodiscard]] std::uint64_t get_uint(std::string_view key) const;
    [[nodiscard]] double get_float(std::string_view key) const;
    [[nodiscard]] std::string_view get_string(std::string_view key) const;
    [[nodiscard]] std::vector<std::string_view> get_strings(std::string_view key) const;
    /// Any integer element type. @throws input_error also if an element exceeds 64 signed bits
    [[nodiscard]] std::vector<std::int64_t> get_integers(std::string_view key) const;

    [[nodiscard]] std::span<const gguf_tensor> tensors() const noexcept { return tensors_; }
    [[nodiscard]] const gguf_tensor* find_tensor(std::string_view name) const;

private:
    template <typename T>
    [[nodiscard]] std::optional<T> find_as(std::string_view key, std::string_view needed) const;
    [[noreturn]] void fail_type(std::string_view key, std::string_view needed) const;
    [[noreturn]] void fail_missing(std::string_view key) const;

    std::string path_;
    std::string name_;
    mapped_file file_;
    std::unordered_map<std::string_view, gguf_value> values_;
    std::vector<gguf_tensor> tensors_;
    std::unordered_map<std::string_view, std::size_t> tensor_index_;
};

} // namespace lab
