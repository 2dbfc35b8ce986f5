// SPDX-License-Identifier: Apache-2.0
#include "gguf_parser.hpp"

#include "byte_cursor.hpp"
#include "error.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

namespace lab {
namespace {

constexpr std::uint32_t max_dimensions = 4;
constexpr std::uint64_t default_alignment = 32;

std::string shape_text(std::span<const std::uint64_t> shape) {
    std::string text = "[";
    for (const std::uint64_t length : shape) {
        text += (text.size() > 1 ? ", " : "") + std::to_string(length);
    }
    return text + "]";
}

/// @return nothing on overflow
std::optional<std::uint64_t> multiply(std::uint64_t a, std::uint64_t b) noexcept {
    if (b != 0 && a > std::numeric_limits<std::uint64_t>::max() / b) {
        return std::nullopt;
    }
    return a * b;
}

class parser {
public:
    parser(std::span<const std::byte> bytes, const std::string& file_name)
        : bytes_(bytes), source_("model " + file_name), cursor_(bytes, source_) {}

    gguf_contents parse() {
        read_header();
        for (std::uint64_t i = 0; i < num_values_; ++i) {
            read_value();
        }
        for (std::uint64_t i = 0; i < num_tensors_; ++i) {
            read_tensor();
        }
        place_tensors();
        return std::move(contents_);
    }

private:
    void read_header() {
        const auto magic = cursor_.take(4, "the magic");
        const std::string_view text(reinterpret_cast<const char*>(magic.data()), magic.size());
        if (text != "GGUF") {
            fail(source_, ": magic is ", in_quotes(text), "; a GGUF file starts with \"GGUF\"");
        }
        const auto version = cursor_.number<std::uint32_t>("the version");
        if (version != 2 && version != 3) {
            fail(source_, ": GGUF version is ", version, "; supported: 2, 3");
        }
        num_tensors_ = cursor_.number<std::uint64_t>("the tensor count");
        num_values_ = cursor_.number<std::uint64_t>("the metadata count");
        // The smallest entries: an empty name, a type, and one byte or the shape and offset.
        check_count("tensor count", num_tensors_, 8 + 4 + 8 + 4 + 8);
        check_count("metadata count", num_values_, 8 + 4 + 1);
    }

    void check_count(std::string_view what, std::uint64_t count, std::uint64_t entry_bytes) const {
        if (count > cursor_.left() / entry_bytes) {
            fail(source_,
                 ": ",
                 what,
                 " is ",
                 count,
                 "; the ",
                 cursor_.left(),
                 " bytes left in the file hold at most ",
                 cursor_.left() / entry_bytes);
        }
    }

    void read_value() {
        const std::string_view key = cursor_.string("a metadata key");
        const auto type = static_cast<gguf_type>(cursor_.number<std::uint32_t>("a metadata type"));
        const gguf_value value =
            type == gguf_type::array ? gguf_value(array_of(key)) : scalar_of(key, type);
        if (!contents_.values.emplace(key, value).second) {
            fail(source_, ": metadata key ", in_quotes(key), " occurs twice; keys must differ");
        }
    }

    gguf_value scalar_of(std::string_view key, gguf_type type) {
        constexpr std::string_view what = "a metadata value";
        switch (type) {
        case gguf_type::uint8: return std::uint64_t{cursor_.number<std::uint8_t>(what)};
        case gguf_type::uint16: return std::uint64_t{cursor_.number<std::uint16_t>(what)};
        case gguf_type::uint32: return std::uint64_t{cursor_.number<std::uint32_t>(what)};
        case gguf_type::uint64: return cursor_.number<std::uint64_t>(what);
        case gguf_type::int8: return std::int64_t{cursor_.number<std::int8_t>(what)};
        case gguf_type::int16: return std::int64_t{cursor_.number<std::int16_t>(what)};
        case gguf_type::int32: return std::int64_t{cursor_.number<std::int32_t>(what)};
        case gguf_type::int64: return cursor_.number<std::int64_t>(what);
        case gguf_type::float32: return double{cursor_.number<float>(what)};
        case gguf_type::float64: return cursor_.number<double>(what);
        case gguf_type::string: return cursor_.string(what);
        case gguf_type::boolean: {
            const auto byte = cursor_.number<std::uint8_t>(what);
            if (byte > 1) {
                fail(source_,
                     ": metadata key ",
                     in_quotes(key),
                     " is a bool of value ",
                     int{byte},
                     "; allowed: 0, 1");
            }
            return byte == 1;
        }
        case gguf_type::array: break;
        }
        fail(source_,
             ": metadata key ",
             in_quotes(key),
             " has type ",
             static_cast<std::uint32_t>(type),
             "; allowed: 0 to 12");
    }

    gguf_array array_of(std::string_view key) {
        const auto element =
            static_cast<gguf_type>(cursor_.number<std::uint32_t>("an array's type"));
        const auto count = cursor_.number<std::uint64_t>("an array's length");
        const std::size_t element_bytes = smallest_size(element);
        if (element_bytes == 0) {
            fail(source_,
                 ": metadata key ",
                 in_quotes(key),
                 " is an array of type ",
                 static_cast<std::uint32_t>(element),
                 " (",
                 name_of(element),
                 "); supported: arrays of numbers, bools and strings");
        }
        if (count > cursor_.left() / element_bytes) {
            fail(source_,
                 ": metadata key ",
                 in_quotes(key),
                 " is an array of ",
                 count,
                 " x ",
                 name_of(element),
                 "; the ",
                 cursor_.left(),
                 " bytes left in the file hold at most ",
                 cursor_.left() / element_bytes);
        }
        const std::size_t start = cursor_.offset();
        if (element == gguf_type::string) {
            for (std::uint64_t i = 0; i < count; ++i) {
                static_cast<void>(cursor_.string("a string of an array"));
            }
        } else {
            static_cast<void>(cursor_.take(count * element_bytes, "an array"));
        }
        return {element, count, bytes_.subspan(start, cursor_.offset() - start)};
    }

    void read_tensor() {
        gguf_tensor tensor;
        tensor.name = cursor_.string("a tensor name");
        const std::string label = source_ + ": tensor " + in_quotes(tensor.name);
        const auto num_dimensions = cursor_.number<std::uint32_t>("a tensor's dimension count");
        if (num_dimensions == 0 || num_dimensions > max_dimensions) {
            fail(label, " has ", num_dimensions, " dimensions; allowed: 1 to ", max_dimensions);
        }
        std::optional<std::uint64_t> elements = 1;
        for (std::uint32_t i = 0; i < num_dimensions; ++i) {
            tensor.shape.push_back(cursor_.number<std::uint64_t>("a tensor's dimension"));
            elements = elements ? multiply(*elements, tensor.shape.back()) : elements;
        }
        if (std::ranges::count(tensor.shape, 0U) != 0) {
            fail(label,
                 " has shape ",
                 shape_text(tensor.shape),
                 "; every dimension must be at least 1");
        }
        const auto raw_type = cursor_.number<std::uint32_t>("a tensor's type");
        const auto type = to_tensor_type(raw_type);
        if (!type) {
            fail(label,
                 " has type ",
                 raw_type,
                 " (",
                 ggml_name_of(raw_type),
                 "); supported: ",
                 supported_tensor_types);
        }
        tensor.type = *type;
        const block_layout layout = layout_of(*type);
        if (tensor.shape.front() % layout.elements != 0) {
            fail(label,
                 " has rows of ",
                 tensor.shape.front(),
                 " numbers; ",
                 ggml_name_of(raw_type),
                 " needs a multiple of ",
                 layout.elements);
        }
        const auto size = elements ? multiply(*elements / layout.elements, layout.bytes) : elements;
        if (!size) {
            fail(label,
                 " has shape ",
                 shape_text(tensor.shape),
                 "; its size in bytes must be less than 2 to the 64");
        }
        sizes_.push_back(*size);
        offsets_.push_back(cursor_.number<std::uint64_t>("a tensor's offset"));
        if (!contents_.tensor_index.emplace(tensor.name, contents_.tensors.size()).second) {
            fail(label, " occurs twice; names must differ");
        }
        contents_.tensors.push_back(std::move(tensor));
    }

    /// The data section starts at the next multiple of the alignment; offsets count from there.
    void place_tensors() {
        const std::uint64_t alignment = read_alignment();
        const std::uint64_t padding = (alignment - cursor_.offset() % alignment) % alignment;
        std::span<const std::byte> section;
        if (padding <= cursor_.left()) {
            section = bytes_.subspan(cursor_.offset() + static_cast<std::size_t>(padding));
        }
        for (std::size_t i = 0; i < contents_.tensors.size(); ++i) {
            gguf_tensor& tensor = contents_.tensors[i];
            if (offsets_[i] % alignment != 0) {
                fail(source_,
                     ": tensor ",
                     in_quotes(tensor.name),
                     " has offset ",
                     offsets_[i],
                     "; a multiple of the alignment ",
                     alignment,
                     " is needed");
            }
            if (offsets_[i] > section.size() || sizes_[i] > section.size() - offsets_[i]) {
                fail(source_,
                     ": tensor ",
                     in_quotes(tensor.name),
                     " has ",
                     sizes_[i],
                     " bytes at offset ",
                     offsets_[i],
                     "; the data section of the file has ",
                     section.size());
            }
            tensor.data = section.subspan(static_cast<std::size_t>(offsets_[i]),
                                          static_cast<std::size_t>(sizes_[i]));
        }
    }

    [[nodiscard]] std::uint64_t read_alignment() const {
        const auto found = contents_.values.find("general.alignment");
        if (found == contents_.values.end()) {
            return default_alignment;
        }
        const auto* alignment = std::get_if<std::uint64_t>(&found->second);
        if (alignment == nullptr) {
            fail(source_, ": metadata key \"general.alignment\" is not an unsigned integer");
        }
        if (*alignment < 8 || !std::has_single_bit(*alignment) || *alignment > (1U << 30U)) {
            fail(source_,
                 ": metadata key \"general.alignment\" is ",
                 *alignment,
                 "; allowed: powers of two from 8 to ",
                 1U << 30U);
        }
        return *alignment;
    }

    std::span<const std::byte> bytes_;
    std::string source_;
    byte_cursor cursor_;
    std::uint64_t num_tensors_ = 0;
    std::uint64_t num_values_ = 0;
    gguf_contents contents_;
    std::vector<std::uint64_t> sizes_;
    std::vector<std::uint64_t> offsets_;
};

} // namespace

gguf_contents parse_gguf(std::span<const std::byte> bytes, const std::string& file_name) {
    return parser(bytes, file_name).parse();
}

std::string_view name_of(gguf_type type) noexcept {
    constexpr std::array<std::string_view, 13> names = {"uint8",
                                                        "int8",
                                                        "uint16",
                                                        "int16",
                                                        "uint32",
                                                        "int32",
                                                        "float32",
                                                        "bool",
                                                        "string",
                                                        "array",
                                                        "uint64",
                                                        "int64",
                                                        "float64"};
    const auto index = static_cast<std::size_t>(type);
    return index < names.size() ? names[index] : "unknown";
}

std::size_t smallest_size(gguf_type type) noexcept {
    constexpr std::array<std::size_t, 13> sizes = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};
    const auto index = static_cast<std::size_t>(type);
    return index < sizes.size() ? sizes[index] : 0;
}

} // namespace lab
