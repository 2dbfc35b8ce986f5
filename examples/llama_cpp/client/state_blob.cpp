// SPDX-License-Identifier: Apache-2.0
#include "state_blob.hpp"

#include <kvcrush/attend/ggml_type.hpp>

#include "error.hpp"

#include <cstring>
#include <string>
#include <type_traits>

namespace client {
namespace {

using lab::fail;

constexpr std::uint32_t magic_of_version_3 = 0xaf143cd8U;

/// Reads numbers from the front of bytes, never past their end.
class blob_reader {
public:
    explicit blob_reader(std::span<const std::byte> bytes) : all_(bytes) {}

    template <typename T>
    [[nodiscard]] T number(const char* what) {
        static_assert(std::is_trivially_copyable_v<T>);
        T value{};
        std::memcpy(&value, take(1, sizeof(T), what).data(), sizeof(T));
        return value;
    }
    /// @throws input_error where there are fewer
    [[nodiscard]] std::span<const std::byte>
    take(std::size_t count, std::size_t size, const char* what) {
        require_left(count, size, what);
        const std::span<const std::byte> part = all_.subspan(at_, count * size);
        at_ += part.size();
        return part;
    }
    /// @throws input_error unless so many things of that size can be in what is left
    void require_left(std::size_t count, std::size_t size, const char* what) const {
        if (size != 0 && count > left() / size) {
            fail("the state ends within ",
                 what,
                 ": ",
                 count,
                 " times ",
                 size,
                 " bytes are said to be at byte ",
                 at_,
                 " of ",
                 all_.size());
        }
    }
    [[nodiscard]] std::size_t left() const noexcept { return all_.size() - at_; }

private:
    std::span<const std::byte> all_;
    std::size_t at_ = 0;
};

/// Of a cell: position, number of sequences, sequence.
constexpr std::size_t cell_bytes = 12;

[[nodiscard]] std::vector<std::int32_t>
read_cells(blob_reader& reader, std::uint32_t count, std::int32_t sequence, bool in_order) {
    reader.require_left(count, cell_bytes, "its cells");
    std::vector<std::int32_t> positions(count);
    for (std::uint32_t i = 0; i < count; ++i) {
        positions[i] = reader.number<std::int32_t>("a cell");
        const auto sequences = reader.number<std::uint32_t>("a cell");
        if (sequences != 1) {
            fail("cell ",
                 i,
                 " of the state has ",
                 sequences,
                 " sequences; allowed: 1 (models with M-RoPE write their cells in another way)");
        }
        const auto own = reader.number<std::int32_t>("a cell");
        if (own != sequence) {
            fail("cell ",
                 i,
                 " of the state is of sequence ",
                 own,
                 "; the state is of sequence ",
                 sequence);
        }
        if (positions[i] < 0 || (in_order && i > 0 && positions[i] <= positions[i - 1])) {
            fail("cell ",
                 i,
                 " of the state has position ",
                 positions[i],
                 "; allowed: from ",
                 i == 0 || !in_order ? 0 : std::int64_t{positions[i - 1]} + 1,
                 " on");
        }
    }
    return positions;
}

[[nodiscard]] std::vector<blob_rows> read_layers(blob_reader& reader,
                                                 std::uint32_t num_layers,
                                                 std::size_t num_cells,
                                                 const char* what) {
    constexpr std::size_t header_bytes = 12;
    reader.require_left(num_layers, header_bytes, what);
    std::vector<blob_rows> layers(num_layers);
    for (blob_rows& layer : layers) {
        layer.type = reader.number<std::int32_t>(what);
        const auto row_bytes = reader.number<std::uint64_t>(what);
        if (!kvcrush::codec_of_ggml_type(layer.type)) {
            fail("the state has ",
                 what,
                 " of ggml type ",
                 layer.type,
                 "; allowed: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl");
        }
        if (row_bytes == 0 || row_bytes > reader.left()) {
            fail("the state has ",
                 what,
                 " of ",
                 row_bytes,
                 " bytes per row; allowed: 1 to ",
                 reader.left());
        }
        layer.row_bytes = static_cast<std::size_t>(row_bytes);
        layer.bytes = reader.take(num_cells, layer.row_bytes, what);
    }
    return layers;
}

[[nodiscard]] blob_cache read_cache(blob_reader& reader, std::int32_t sequence, bool in_order) {
    const auto streams = reader.number<std::uint32_t>("its header");
    if (streams != 1) {
        fail("the state has ", streams, " streams; allowed: 1");
    }
    const auto cells = reader.number<std::uint32_t>("its header");
    if (cells == 0) {
        fail("the state holds no cells: contexts that share the cells of another one cannot be "
             "read");
    }
    blob_cache cache;
    cache.positions = read_cells(reader, cells, sequence, in_order);
    const auto transposed = reader.number<std::uint32_t>("its header");
    if (transposed != 0) {
        fail("the state has transposed values (",
             transposed,
             "): flash attention is off; contexts must be made with LLAMA_FLASH_ATTN_TYPE_ENABLED");
    }
    const auto layers = reader.number<std::uint32_t>("its header");
    if (layers == 0) {
        fail("the state has a cache without layers");
    }
    cache.keys = read_layers(reader, layers, cells, "keys");
    // MLA models hold no values of their own; their state ends here, or goes on with something else.
    cache.values = read_layers(reader, layers, cells, "values");
    return cache;
}

/// Puts numbers and bytes one after the other.
class blob_writer {
public:
    explicit blob_writer(std::span<std::byte> memory) : memory_(memory) {}
    template <typename T>
    void number(T value) {
        std::memcpy(room(sizeof value).data(), &value, sizeof value);
    }
    [[nodiscard]] std::span<std::byte> room(std::size_t bytes) {
        const std::span<std::byte> part = memory_.subspan(at_, bytes);
        at_ += bytes;
        return part;
    }

private:
    std::span<std::byte> memory_;
    std::size_t at_ = 0;
};

/// Header and rows of one cache for so many cells.
[[nodiscard]] std::size_t bytes_of(const blob_cache& cache, std::size_t num_cells) {
    std::size_t bytes = 4 * sizeof(std::uint32_t) + num_cells * cell_bytes;
    for (const auto* layers : {&cache.keys, &cache.values}) {
        for (const blob_rows& layer : *layers) {
            bytes += sizeof(std::int32_t) + sizeof(std::uint64_t) + num_cells * layer.row_bytes;
        }
    }
    return bytes;
}

[[nodiscard]] std::vector<std::span<std::byte>>
write_layers(blob_writer& writer, const std::vector<blob_rows>& layers, std::size_t num_cells) {
    std::vector<std::span<std::byte>> rows;
    for (const blob_rows& layer : layers) {
        writer.number(layer.type);
        writer.number(std::uint64_t{layer.row_bytes});
        rows.push_back(writer.room(num_cells * layer.row_bytes));
    }
    return rows;
}

struct cache_room {
    std::vector<std::span<std::byte>> keys;
    std::vector<std::span<std::byte>> values;
};

[[nodiscard]] cache_room write_cache(blob_writer& writer,
                                     const blob_cache& cache,
                                     std::int32_t sequence,
                                     std::span<const std::int32_t> positions) {
    writer.number(std::uint32_t{1});
    writer.number(static_cast<std::uint32_t>(positions.size()));
    for (const std::int32_t position : positions) {
        writer.number(position);
        writer.number(std::uint32_t{1});
        writer.number(sequence);
    }
    writer.number(std::uint32_t{0});
    writer.number(static_cast<std::uint32_t>(cache.num_layers()));
    cache_room room;
    room.keys = write_layers(writer, cache.keys, positions.size());
    room.values = write_layers(writer, cache.values, positions.size());
    return room;
}

void copy_rows(const std::vector<blob_rows>& from, const std::vector<std::span<std::byte>>& to) {
    for (std::size_t l = 0; l < from.size(); ++l) {
        std::memcpy(to[l].data(), from[l].bytes.data(), from[l].bytes.size());
    }
}

} // namespace

state_blob parse_state(std::span<const std::byte> bytes, std::size_t num_caches) {
    blob_reader reader(bytes);
    const auto magic = reader.number<std::uint32_t>("its header");
    if (magic != magic_of_version_3) {
        fail("the state begins with ",
             magic,
             "; allowed: ",
             magic_of_version_3,
             ", version 3 of llama.cpp's format for one sequence");
    }
    state_blob blob;
    blob.sequence = reader.number<std::int32_t>("its header");
    for (std::size_t c = 0; c < num_caches; ++c) {
        // Sliding-window caches write over the cells of tokens that fell out of the window.
        blob.caches.push_back(read_cache(reader, blob.sequence, c == 0));
    }
    if (reader.left() != 0) {
        fail("the state goes on for ",
             reader.left(),
             " bytes behind its ",
             num_caches,
             num_caches == 1 ? " cache" : " caches");
    }
    return blob;
}

state_draft draft_state(const state_blob& like, std::span<const std::int32_t> positions) {
    std::size_t bytes = sizeof(std::uint32_t) + sizeof(std::int32_t);
    for (std::size_t c = 0; c < like.caches.size(); ++c) {
        bytes += bytes_of(like.caches[c], c == 0 ? positions.size() : like.caches[c].num_cells());
    }
    state_draft draft;
    draft.bytes = state_bytes(bytes);
    blob_writer writer(draft.bytes.all());
    writer.number(magic_of_version_3);
    writer.number(like.sequence);
    for (std::size_t c = 0; c < like.caches.size(); ++c) {
        const blob_cache& cache = like.caches[c];
        cache_room room = write_cache(
            writer, cache, like.sequence, c == 0 ? positions : std::span(cache.positions));
        if (c == 0) {
            draft.keys = std::move(room.keys);
            draft.values = std::move(room.values);
        } else {
            copy_rows(cache.keys, room.keys);
            copy_rows(cache.values, room.values);
        }
    }
    return draft;
}

} // namespace client
