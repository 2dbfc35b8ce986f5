// SPDX-License-Identifier: Apache-2.0
#include "gguf.hpp"

#include "byte_cursor.hpp"
#include "error.hpp"
#include "gguf_parser.hpp"

#include <filesystem>
#include <limits>
#include <utility>

namespace lab {

gguf_file::gguf_file(std::string path)
    : path_(std::move(path)),
      name_(printable(std::filesystem::path(path_).filename().string())),
      file_(path_) {
    gguf_contents contents = parse_gguf(file_.bytes(), name_);
    values_ = std::move(contents.values);
    tensors_ = std::move(contents.tensors);
    tensor_index_ = std::move(contents.tensor_index);
}

void gguf_file::fail_type(std::string_view key, std::string_view needed) const {
    constexpr std::array<std::string_view, 6> kinds = {
        "a bool", "an unsigned integer", "a signed integer", "a float", "a string", "an array"};
    const gguf_value& value = *find(key);
    const auto* list = std::get_if<gguf_array>(&value);
    fail("model ",
         name_,
         ": metadata key ",
         in_quotes(key),
         " is ",
         kinds[value.index()],
         list != nullptr ? " of " : "",
         list != nullptr ? name_of(list->element) : "",
         "; needed: ",
         needed);
}

void gguf_file::fail_missing(std::string_view key) const {
    fail("model ", name_, ": metadata key ", in_quotes(key), " is missing; it is required");
}

const gguf_value* gguf_file::find(std::string_view key) const {
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : &found->second;
}

const gguf_tensor* gguf_file::find_tensor(std::string_view name) const {
    const auto found = tensor_index_.find(name);
    return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

std::optional<std::uint64_t> gguf_file::find_uint(std::string_view key) const {
    const gguf_value* value = find(key);
    if (value == nullptr) {
        return std::nullopt;
    }
    if (const auto* number = std::get_if<std::uint64_t>(value)) {
        return *number;
    }
    const auto* number = std::get_if<std::int64_t>(value);
    if (number == nullptr) {
        fail_type(key, "an unsigned integer");
    }
    if (*number < 0) {
        fail("model ",
             name_,
             ": metadata key ",
             in_quotes(key),
             " is ",
             *number,
             "; it must not be negative");
    }
    return static_cast<std::uint64_t>(*number);
}

template <typename T>
std::optional<T> gguf_file::find_as(std::string_view key, std::string_view needed) const {
    const gguf_value* value = find(key);
    if (value == nullptr) {
        return std::nullopt;
    }
    const T* typed = std::get_if<T>(value);
    if (typed == nullptr) {
        fail_type(key, needed);
    }
    return *typed;
}

std::optional<double> gguf_file::find_float(std::string_view key) const {
    return find_as<double>(key, "a float");
}

std::optional<bool> gguf_file::find_bool(std::string_view key) const {
    return find_as<bool>(key, "a bool");
}

std::optional<std::string_view> gguf_file::find_string(std::string_view key) const {
    return find_as<std::string_view>(key, "a string");
}

std::uint64_t gguf_file::get_uint(std::string_view key) const {
    const auto value = find_uint(key);
    return value ? *value : (fail_missing(key), 0);
}

double gguf_file::get_float(std::string_view key) const {
    const auto value = find_float(key);
    return value ? *value : (fail_missing(key), 0.0);
}

std::string_view gguf_file::get_string(std::string_view key) const {
    const auto value = find_string(key);
    return value ? *value : (fail_missing(key), std::string_view());
}

std::vector<std::string_view> gguf_file::get_strings(std::string_view key) const {
    const gguf_value* value = find(key);
    if (value == nullptr) {
        fail_missing(key);
    }
    const auto* list = std::get_if<gguf_array>(value);
    if (list == nullptr || list->element != gguf_type::string) {
        fail_type(key, "an array of string");
    }
    byte_cursor cursor(list->bytes, name_);
    std::vector<std::string_view> strings;
    strings.reserve(static_cast<std::size_t>(list->count));
    for (std::uint64_t i = 0; i < list->count; ++i) {
        strings.push_back(cursor.string(key));
    }
    return strings;
}

std::vector<std::int64_t> gguf_file::get_integers(std::string_view key) const {
    const gguf_value* value = find(key);
    if (value == nullptr) {
        fail_missing(key);
    }
    const auto* list = std::get_if<gguf_array>(value);
    if (list == nullptr) {
        fail_type(key, "an array of integers");
    }
    byte_cursor cursor(list->bytes, name_);
    std::vector<std::int64_t> numbers;
    numbers.reserve(static_cast<std::size_t>(list->count));
    for (std::uint64_t i = 0; i < list->count; ++i) {
        switch (list->element) {
        case gguf_type::uint8: numbers.push_back(cursor.number<std::uint8_t>(key)); break;
        case gguf_type::int8: numbers.push_back(cursor.number<std::int8_t>(key)); break;
        case gguf_type::uint16: numbers.push_back(cursor.number<std::uint16_t>(key)); break;
        case gguf_type::int16: numbers.push_back(cursor.number<std::int16_t>(key)); break;
        case gguf_type::uint32: numbers.push_back(cursor.number<std::uint32_t>(key)); break;
        case gguf_type::int32: numbers.push_back(cursor.number<std::int32_t>(key)); break;
        case gguf_type::int64: numbers.push_back(cursor.number<std::int64_t>(key)); break;
        case gguf_type::uint64: {
            const auto number = cursor.number<std::uint64_t>(key);
            if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
                fail("model ",
                     name_,
                     ": metadata key ",
                     in_quotes(key),
                     " has element ",
                     number,
                     "; allowed: below 2 to the 63");
            }
            numbers.push_back(static_cast<std::int64_t>(number));
            break;
        }
        case gguf_type::boolean:
        case gguf_type::float32:
        case gguf_type::float64:
        case gguf_type::string:
        case gguf_type::array: fail_type(key, "an array of integers");
        }
    }
    return numbers;
}

} // namespace lab
