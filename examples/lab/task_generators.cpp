// SPDX-License-Identifier: Apache-2.0
#include "task_generators.hpp"

#include "error.hpp"
#include "seeded_draw.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace lab {
namespace {

constexpr std::string_view opening =
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n<|im_start|>user\n";
/// Ends an answer and begins the next question.
constexpr std::string_view next_question = ".<|im_end|>\n<|im_start|>user";
constexpr std::string_view answering = "<|im_end|>\n<|im_start|>assistant\n";

constexpr std::array<std::string_view, 64> words = {
    "ladder",  "ocean",   "velvet", "candle",  "market",   "summer", "dragon",   "guitar",
    "falcon",  "bridge",  "anchor", "blanket", "bottle",   "yogurt", "parrot",   "river",
    "lantern", "orange",  "saddle", "apple",   "carpet",   "tiger",  "mountain", "planet",
    "temple",  "olive",   "garden", "silver",  "umbrella", "pencil", "window",   "rabbit",
    "copper",  "island",  "winter", "castle",  "pepper",   "camera", "needle",   "violin",
    "forest",  "hammer",  "basket", "monkey",  "pillow",   "rocket", "marble",   "turtle",
    "engine",  "lemon",   "mirror", "desert",  "cotton",   "puzzle", "shadow",   "ticket",
    "dolphin", "kitchen", "spider", "helmet",  "harbor",   "cactus", "feather",  "magnet"};

struct text_turn {
    std::string asks;   ///< with the line break in front
    std::string begins; ///< of the answer, up to what is asked
    std::string answer;
};

struct text_dialogue {
    std::vector<text_turn> turns;
    std::optional<double> depth = std::nullopt;
    /// The context with so many units of filler.
    std::function<std::string(std::size_t)> context;
    /// With fewer units the answers would not be right.
    std::size_t least_units = 1;
};

/// Evenly spread over [0, 1) however many are taken: multiples of the golden ratio, shifted by the seed.
[[nodiscard]] double spread(std::uint64_t seed, std::size_t index) {
    constexpr double golden = 0.6180339887498949;
    constexpr std::uint64_t stream_of_shifts = 0x5EED;
    const double place =
        seeded_draw(seed, stream_of_shifts).unit() + golden * static_cast<double>(index);
    return place - std::floor(place);
}

/// Five digits: one token each.
[[nodiscard]] std::vector<std::string> draw_numbers(std::size_t count, seeded_draw& draw) {
    std::vector<std::string> numbers;
    while (numbers.size() < count) {
        std::string number = fmt::format("{}", 10'000 + draw.below(90'000));
        if (std::find(numbers.begin(), numbers.end(), number) == numbers.end()) {
            numbers.push_back(std::move(number));
        }
    }
    return numbers;
}

[[nodiscard]] std::vector<std::string> draw_words(std::size_t count, seeded_draw& draw) {
    std::vector<std::string> all(words.begin(), words.end());
    draw.shuffle(all);
    all.resize(count);
    return all;
}

/// `count` sentences from number `first` on, a space after each.
[[nodiscard]] std::string sentences(const filler& hay, std::size_t first, std::size_t count) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) {
        text += hay.sentence(first + i);
        text += ' ';
    }
    return text;
}

/// Lines evenly spread over filler: line, filler, line, filler, ...
[[nodiscard]] std::string among_filler(const std::vector<std::string>& lines,
                                       const filler& hay,
                                       std::size_t first,
                                       std::size_t count) {
    std::string text;
    std::size_t done = 0;
    for (std::size_t i = 0; i < lines.size(); ++i) {
        const std::size_t end = count * (i + 1) / lines.size();
        text += fmt::format("\n{} {}", lines[i], sentences(hay, first + done, end - done));
        text.pop_back(); // a line ends without a space
        done = end;
    }
    return text + '\n';
}

[[nodiscard]] text_dialogue passkey(const task_options& options,
                                    const filler& hay,
                                    std::size_t index,
                                    std::size_t first,
                                    seeded_draw& draw) {
    const std::string key = draw_numbers(1, draw).front();
    const double depth = options.depth.value_or(spread(options.seed, index));
    const std::string needle =
        fmt::format("\n\nThe pass key is {0}. Remember it. {0} is the pass key.\n\n", key);
    const auto context = [=, &hay](std::size_t units) {
        const auto before =
            static_cast<std::size_t>(std::lround(depth * static_cast<double>(units)));
        return "There is an important info hidden inside a lot of irrelevant text. Find it and "
               "memorize it.\n\n" +
               sentences(hay, first, before * hay.unit) + needle +
               sentences(hay, first + before * hay.unit, (units - before) * hay.unit);
    };
    return {
        {{"\n\nWhat is the pass key? Remember it.", "The pass key is", ' ' + key}}, depth, context};
}

[[nodiscard]] text_dialogue multikey(const filler& hay, std::size_t first, seeded_draw& draw) {
    constexpr std::size_t num_keys = 5;
    const std::vector<std::string> keys = draw_words(num_keys, draw);
    const std::vector<std::string> numbers = draw_numbers(num_keys, draw);
    std::vector<std::string> lines;
    std::vector<text_turn> turns;
    for (std::size_t i = 0; i < num_keys; ++i) {
        lines.push_back(fmt::format("The magic number for {} is {}.", keys[i], numbers[i]));
        turns.push_back({fmt::format("\nWhat is the magic number for {}?", keys[i]),
                         fmt::format("The magic number for {} is", keys[i]),
                         ' ' + numbers[i]});
    }
    draw.shuffle(turns);
    return {turns, std::nullopt, [=, &hay](std::size_t count) {
                return "Memorize the magic numbers." + among_filler(lines, hay, first, count);
            }};
}

[[nodiscard]] text_dialogue multi_value(const filler& hay, std::size_t first, seeded_draw& draw) {
    constexpr std::size_t num_values = 3;
    const std::string key = draw_words(1, draw).front();
    const std::vector<std::string> numbers = draw_numbers(num_values, draw);
    std::vector<std::string> lines;
    for (const std::string& number : numbers) {
        lines.push_back(fmt::format("One of the magic numbers for {} is {}.", key, number));
    }
    return {{{fmt::format("\nWhat are all the magic numbers for {}?", key),
              fmt::format("The magic numbers for {} are", key),
              fmt::format(" {}", fmt::join(numbers, ", "))}},
            std::nullopt,
            [=, &hay](std::size_t count) {
                return "Memorize the magic numbers." + among_filler(lines, hay, first, count);
            }};
}

/// Names of variables: no vowels, so that none is a word.
[[nodiscard]] std::vector<std::string> draw_names(std::size_t count, seeded_draw& draw) {
    constexpr std::string_view consonants = "BCDFGHJKLMNPQRSTVWXZ";
    std::vector<std::string> names;
    while (names.size() < count) {
        std::string name;
        for (int i = 0; i < 3; ++i) {
            name += consonants[draw.below(consonants.size())];
        }
        if (std::find(names.begin(), names.end(), name) == names.end()) {
            names.push_back(std::move(name));
        }
    }
    return names;
}

[[nodiscard]] text_dialogue
variable_tracking(const filler& hay, std::size_t first, seeded_draw& draw) {
    constexpr std::size_t num_chains = 2;
    constexpr std::size_t chain_length = 3;
    const std::vector<std::string> names = draw_names(num_chains * chain_length, draw);
    const std::vector<std::string> numbers = draw_numbers(num_chains, draw);
    std::vector<std::string> lines;
    std::vector<text_turn> turns;
    for (std::size_t hop = 0; hop < chain_length; ++hop) { // the chains take turns
        for (std::size_t chain = 0; chain < num_chains; ++chain) {
            const std::string& name = names[chain * chain_length + hop];
            const std::string value =
                hop == 0 ? numbers[chain] : "VAR " + names[chain * chain_length + hop - 1];
            lines.push_back(fmt::format("VAR {} = {}.", name, value));
            turns.push_back({fmt::format("\nWhat is the value of VAR {}?", name),
                             fmt::format("The value of VAR {} is", name),
                             ' ' + numbers[chain]});
        }
    }
    draw.shuffle(turns);
    return {turns, std::nullopt, [=, &hay](std::size_t count) {
                return "Memorize the values of the variables." +
                       among_filler(lines, hay, first, count);
            }};
}

[[nodiscard]] text_dialogue common_words(seeded_draw& draw) {
    const std::vector<std::string> all = draw_words(words.size(), draw);
    constexpr std::array<std::string_view, 3> ranks = {
        "most common", "second most common", "third most common"};
    std::vector<text_turn> turns;
    for (std::size_t i = 0; i < ranks.size(); ++i) {
        turns.push_back({fmt::format("\nWhat is the {} word in the list?", ranks[i]),
                         fmt::format("The {} word in the list is", ranks[i]),
                         ' ' + all[i]});
    }
    const std::uint64_t order = draw.bits();
    return {turns,
            std::nullopt,
            [=](std::size_t count) {
                // Of 20 words 6, 4 and 2 are the common ones; the others share the rest. 20 are enough to tell.
                seeded_draw shuffled(order, count);
                std::vector<std::string> list;
                for (std::size_t i = 0; i < count; ++i) {
                    const std::size_t place = i % 20;
                    const std::size_t other = 3 + (i / 20 * 8 + place) % (all.size() - 3);
                    list.push_back(place < 6    ? all[0]
                                   : place < 10 ? all[1]
                                   : place < 12 ? all[2]
                                                : all[other]);
                }
                shuffled.shuffle(list);
                std::string text = "Memorize how often each word is in the list.\n";
                for (std::size_t i = 0; i < count; ++i) {
                    text += fmt::format("{}. {} ", i + 1, list[i]);
                }
                text.back() = '\n';
                return text;
            },
            20};
}

[[nodiscard]] text_dialogue write_dialogue(retrieval_task task,
                                           const task_options& options,
                                           const filler& hay,
                                           std::size_t index) {
    // Tasks of one seed and index draw different numbers.
    seeded_draw draw(kvcrush::random_bits(options.seed, static_cast<std::uint64_t>(task), index),
                     0);
    const std::size_t first = hay.unit > 1 ? 0 : draw.below(hay.sentences.size());
    switch (task) {
    case retrieval_task::passkey: return passkey(options, hay, index, first, draw);
    case retrieval_task::multikey: return multikey(hay, first, draw);
    case retrieval_task::multi_value: return multi_value(hay, first, draw);
    case retrieval_task::variable_tracking: return variable_tracking(hay, first, draw);
    case retrieval_task::common_words: break;
    }
    return common_words(draw);
}

/// As much filler as fits: the largest number of units whose context is no longer than asked for.
[[nodiscard]] std::vector<int> fit(const text_dialogue& text,
                                   const task_options& options,
                                   std::string_view task,
                                   const encoder& encode) {
    const auto ids_with = [&](std::size_t units) {
        return encode(std::string(opening) + text.context(units));
    };
    std::size_t fits = text.least_units;
    std::vector<int> best = ids_with(fits);
    if (best.size() > options.context) {
        fail("task ",
             task,
             " needs a context of ",
             best.size(),
             " tokens at least; --context is ",
             options.context);
    }
    std::size_t too_many = (std::max)(options.context, fits) + 1; // every unit has a token
    while (too_many - fits > 1) {
        // The length is nearly linear in the number of units: fewer tries than by halving.
        const double per_unit = static_cast<double>(best.size()) / static_cast<double>(fits);
        const auto guess =
            static_cast<std::size_t>(static_cast<double>(options.context) / per_unit);
        const std::size_t middle = fits + (too_many - fits) / 2;
        const std::size_t units = std::clamp((std::min)(guess, middle), fits + 1, too_many - 1);
        std::vector<int> ids = ids_with(units);
        if (ids.size() <= options.context) {
            fits = units;
            best = std::move(ids);
        } else {
            too_many = units;
        }
    }
    return best;
}

} // namespace

std::string_view name_of(retrieval_task task) noexcept {
    switch (task) {
    case retrieval_task::passkey: return "passkey";
    case retrieval_task::multikey: return "multikey";
    case retrieval_task::multi_value: return "multi_value";
    case retrieval_task::variable_tracking: return "variable_tracking";
    case retrieval_task::common_words: break;
    }
    return "common_words";
}

dialogue make_dialogue(retrieval_task task,
                       const task_options& options,
                       const filler& hay,
                       const encoder& encode,
                       std::size_t index) {
    const text_dialogue text = write_dialogue(task, options, hay, index);
    dialogue result;
    result.task = name_of(task);
    result.name = fmt::format("{}-{}-{}", result.task, options.seed, index);
    result.context = fit(text, options, result.task, encode);
    result.seed = options.seed;
    result.index = index;
    result.depth = text.depth;
    for (const text_turn& one : text.turns) {
        const std::string alone = fmt::format("{}{}{}", one.asks, answering, one.begins);
        turn asked;
        asked.answer = encode(one.answer);
        if (result.turns.empty()) {
            asked.question = encode(alone);
        } else {
            asked.question = encode(std::string(next_question) + alone);
            asked.alone = encode(alone);
        }
        result.turns.push_back(std::move(asked));
    }
    return result;
}

window make_window(const task_options& options, const std::vector<int>& text, std::size_t index) {
    expect_window_fits(options.context, text.size(), "text");
    const auto places = static_cast<double>(text.size() - tokens_of_window(options.context) + 1);
    const auto first = static_cast<std::size_t>(std::floor(spread(options.seed, index) * places));
    return cut_window(fmt::format("lm-{}-{}", options.seed, index), text, first, options.context);
}

} // namespace lab
