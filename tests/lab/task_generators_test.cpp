// SPDX-License-Identifier: Apache-2.0
#include "error.hpp"
#include "gguf.hpp"
#include "model_path.hpp"
#include "task_generators.hpp"
#include "tokenizer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace lab {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr std::array all_tasks{retrieval_task::passkey,
                               retrieval_task::multikey,
                               retrieval_task::multi_value,
                               retrieval_task::variable_tracking,
                               retrieval_task::common_words};

/// One id per byte: what was encoded can be read again.
std::vector<int> bytes_of(std::string_view text) {
    std::vector<int> ids;
    for (const char letter : text) {
        ids.push_back(static_cast<unsigned char>(letter));
    }
    return ids;
}
std::string text_of(const std::vector<int>& ids) { return {ids.begin(), ids.end()}; }

dialogue make(retrieval_task task,
              std::size_t index,
              const task_options& options = {4000, 0},
              const filler& hay = classic_filler()) {
    return make_dialogue(task, options, hay, bytes_of, index);
}

std::size_t count(const std::string& text, const std::string& part) {
    std::size_t found = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
        ++found;
    }
    return found;
}

TEST(TaskGenerators, FillTheContextAndNoMore) {
    for (const retrieval_task task : all_tasks) {
        for (const std::size_t context : std::initializer_list<std::size_t>{700, 1500, 5001}) {
            const dialogue made = make(task, 3, {context, 1});
            EXPECT_LE(made.context.size(), context) << name_of(task);
            // A unit of the classic filler has 92 letters.
            EXPECT_GT(made.context.size() + 93, context) << name_of(task);
            EXPECT_EQ(made.task, name_of(task));
            EXPECT_EQ(made.index, 3U);
            EXPECT_EQ(made.seed, 1U);
        }
        try {
            static_cast<void>(make(task, 0, {50, 0}));
            ADD_FAILURE() << "a context without room was accepted";
        } catch (const input_error& error) {
            EXPECT_THAT(error.what(), HasSubstr("--context is 50"));
        }
    }
}

TEST(TaskGenerators, DependOnSeedTaskAndIndexOnly) {
    for (const retrieval_task task : all_tasks) {
        std::set<std::string> answers;
        for (std::uint64_t seed = 0; seed < 3; ++seed) {
            for (std::size_t index = 0; index < 5; ++index) {
                const dialogue once = make(task, index, {4000, seed});
                const dialogue again = make(task, index, {4000, seed});
                EXPECT_EQ(once.context, again.context);
                EXPECT_EQ(once.turns.front().question, again.turns.front().question);
                std::string said;
                for (const turn& one : once.turns) {
                    said += text_of(one.answer);
                }
                answers.insert(said);
            }
        }
        EXPECT_GE(answers.size(), 14U) << name_of(task) << ": samples differ";
    }
}

TEST(TaskGenerators, GiveTheSameOnEveryPlatform) {
    EXPECT_EQ(text_of(make(retrieval_task::passkey, 0).turns[0].answer), " 17732");
    EXPECT_EQ(text_of(make(retrieval_task::multikey, 7, {4000, 9}).turns[2].answer), " 16155");
}

TEST(TaskGenerators, PasskeyHasTheFormOfThePapers) {
    const dialogue made = make(retrieval_task::passkey, 0);
    ASSERT_EQ(made.turns.size(), 1U);
    const std::string context = text_of(made.context);
    const std::string answer = text_of(made.turns[0].answer);
    ASSERT_EQ(answer.size(), 6U);
    const std::string key = answer.substr(1);
    EXPECT_THAT(context, StartsWith("<|im_start|>system\n"));
    EXPECT_EQ(count(context,
                    " \n\nThe pass key is " + key + ". Remember it. " + key +
                        " is the pass key.\n\nThe grass is green. "),
              1U);
    EXPECT_EQ(
        text_of(made.turns[0].question),
        "\n\nWhat is the pass key? Remember it.<|im_end|>\n<|im_start|>assistant\nThe pass key "
        "is");
    EXPECT_EQ(context.back(), ' ');
}

TEST(TaskGenerators, PasskeysAreSpreadEvenlyOrStandWhereAsked) {
    std::vector<double> depths;
    for (std::size_t index = 0; index < 20; ++index) {
        const dialogue made = make(retrieval_task::passkey, index, {8000, 5});
        const std::string context = text_of(made.context);
        const double place =
            static_cast<double>(context.find("The pass key")) / static_cast<double>(context.size());
        ASSERT_TRUE(made.depth.has_value());
        EXPECT_NEAR(place, *made.depth, 0.04);
        depths.push_back(*made.depth);
    }
    std::sort(depths.begin(), depths.end());
    for (std::size_t i = 1; i < depths.size(); ++i) {
        EXPECT_LT(depths[i] - depths[i - 1], 2.0 / 20.0) << "no gap";
    }
    for (const double depth : {0.0, 0.5, 1.0}) {
        const std::string context =
            text_of(make(retrieval_task::passkey, 3, {8000, 5, depth}).context);
        EXPECT_NEAR(static_cast<double>(context.find("The pass key")) /
                        static_cast<double>(context.size()),
                    depth,
                    0.04);
    }
}

TEST(TaskGenerators, MultikeyAsksForEveryKeyOnce) {
    const dialogue made = make(retrieval_task::multikey, 2);
    const std::string context = text_of(made.context);
    ASSERT_EQ(made.turns.size(), 5U);
    EXPECT_EQ(count(context, "\nThe magic number for "), 5U);
    EXPECT_EQ(context.back(), '\n');
    std::set<std::string> questions;
    for (std::size_t t = 0; t < made.turns.size(); ++t) {
        const turn& one = made.turns[t];
        std::string question = text_of(one.question);
        if (t == 0) {
            EXPECT_THAT(question, StartsWith("\nWhat is the magic number for "));
        } else {
            const std::string between = ".<|im_end|>\n<|im_start|>user";
            ASSERT_THAT(question, StartsWith(between));
            EXPECT_EQ(between + text_of(one.alone), question);
        }
        const std::string said = question.substr(question.rfind('\n'));
        EXPECT_EQ(count(context, said + text_of(one.answer) + '.'), 1U) << said;
        questions.insert(question);
    }
    EXPECT_EQ(questions.size(), 5U);
}

TEST(TaskGenerators, MultiValueAsksForAllInTheirOrder) {
    const dialogue made = make(retrieval_task::multi_value, 2);
    ASSERT_EQ(made.turns.size(), 1U);
    std::string context = text_of(made.context);
    std::string answer;
    for (std::size_t at = context.find(" is ", context.find("\nOne of the"));
         at != std::string::npos;) {
        answer += (answer.empty() ? " " : ", ") + context.substr(at + 4, 5);
        at = context.find("\nOne of the", at);
        at = at == std::string::npos ? at : context.find(" is ", at);
    }
    EXPECT_EQ(text_of(made.turns[0].answer), answer);
    EXPECT_EQ(answer.size(), 6U + 7U + 7U);
}

TEST(TaskGenerators, VariablesAreTrackedThroughTheirChains) {
    for (std::size_t index = 0; index < 10; ++index) {
        const dialogue made = make(retrieval_task::variable_tracking, index);
        std::map<std::string, std::string> values; // an obvious interpreter
        std::istringstream lines(text_of(made.context));
        for (std::string line; std::getline(lines, line);) {
            std::istringstream parts(line);
            std::string var;
            std::string name;
            std::string equals;
            std::string value;
            if (parts >> var >> name >> equals >> value && var == "VAR") {
                if (value == "VAR") {
                    parts >> value;
                    value.pop_back(); // the full stop
                    ASSERT_TRUE(values.contains(value)) << "defined before it is used";
                    value = values[value];
                } else {
                    value.pop_back();
                }
                values[name] = value;
            }
        }
        EXPECT_EQ(values.size(), 6U);
        ASSERT_EQ(made.turns.size(), 6U);
        std::set<std::string> asked;
        for (const turn& one : made.turns) {
            const std::string question = text_of(one.question);
            const std::string name = question.substr(question.find("of VAR ") + 7, 3);
            EXPECT_EQ(text_of(one.answer), " " + values[name]) << question;
            asked.insert(name);
        }
        EXPECT_EQ(asked.size(), 6U);
    }
}

TEST(TaskGenerators, CommonWordsAreCountedRight) {
    for (std::size_t index = 0; index < 10; ++index) {
        const dialogue made = make(retrieval_task::common_words, index, {3000, 2});
        std::map<std::string, std::size_t> counts;
        std::istringstream words(
            text_of(made.context).substr(text_of(made.context).find("in the list.\n") + 13));
        for (std::string number, word; words >> number >> word;) {
            counts[word] += 1;
        }
        std::vector<std::pair<std::size_t, std::string>> order;
        for (const auto& [word, times] : counts) {
            order.emplace_back(times, word);
        }
        std::sort(order.rbegin(), order.rend());
        ASSERT_EQ(made.turns.size(), 3U);
        for (std::size_t rank = 0; rank < 3; ++rank) {
            EXPECT_EQ(text_of(made.turns[rank].answer), " " + order[rank].second);
            EXPECT_GT(order[rank].first, order[rank + 1].first) << "no ties";
        }
    }
}

TEST(TaskGenerators, TakeFillerFromAnyText) {
    const filler hay =
        filler_of("One  sentence\nhere. Another! \"A third?\" And <|im_end|> a rest");
    EXPECT_THAT(
        hay.sentences,
        testing::ElementsAre("One sentence here.", "Another!", "\"A third?\"", "And a rest"));
    EXPECT_EQ(hay.sentence(5), "Another!");
    const std::string context = text_of(make(retrieval_task::multikey, 0, {2000, 0}, hay).context);
    EXPECT_THAT(context, HasSubstr("Another! \"A third?\" And a rest One sentence here."));
    std::string endless;
    for (int i = 0; i < 100; ++i) {
        endless += "word ";
    }
    EXPECT_EQ(filler_of(endless).sentences.size(), 3U) << "long sentences are cut";
    EXPECT_THROW(static_cast<void>(filler_of(" \n ")), input_error);
    EXPECT_THROW(static_cast<void>(filler_of("")), input_error);
    EXPECT_THROW(static_cast<void>(filler_of("bad \xFF byte")), input_error);
}

TEST(TaskGenerators, CutWindowsOutOfAText) {
    std::vector<int> text(5000);
    std::iota(text.begin(), text.end(), 1);
    std::set<int> starts;
    for (std::size_t index = 0; index < 12; ++index) {
        const window cut = make_window({100, 3}, text, index);
        ASSERT_EQ(cut.context.size(), 100U);
        ASSERT_EQ(cut.continuation.size(), continuation_tokens);
        EXPECT_EQ(cut.context.front(), 0);
        for (std::size_t i = 2; i < cut.context.size(); ++i) {
            ASSERT_EQ(cut.context[i], cut.context[i - 1] + 1);
        }
        EXPECT_EQ(cut.continuation.front(), cut.context.back() + 1);
        EXPECT_EQ(cut.continuation.back(), cut.continuation.front() + 128);
        EXPECT_LE(cut.continuation.back(), 5000);
        starts.insert(cut.context[1]);
    }
    for (auto at = std::next(starts.begin()); at != starts.end(); ++at) {
        EXPECT_GE(*at - *std::prev(at), 180) << "side by side where there is room";
    }
    text.resize(99 + continuation_tokens);
    EXPECT_EQ(make_window({100, 3}, text, 7).context[1], 1) << "just long enough";
    text.pop_back();
    EXPECT_THROW(static_cast<void>(make_window({100, 3}, text, 0)), input_error);
}

TEST(ModelTaskGenerators, NumbersAreSixTokensInContextAndAnswer) {
    const gguf_file file(lab_test::require_model());
    const tokenizer words(file);
    const encoder encode = [&](std::string_view text) { return words.encode(text); };
    const dialogue passkey =
        make_dialogue(retrieval_task::passkey, {1024, 0}, classic_filler(), encode, 0);
    EXPECT_EQ(passkey.turns[0].answer.size(), 6U) << "a space and five digits";
    EXPECT_EQ(passkey.turns[0].question.size(), 21U);
    EXPECT_EQ(words.decode(passkey.turns[0].question).substr(0, 6), "\n\nWhat");
    EXPECT_EQ(passkey.context[0], 1) << "the chat template is made of special tokens";
    EXPECT_LE(passkey.context.size(), 1024U);
    EXPECT_GT(passkey.context.size(), 1024U - 25U);
    // The answer follows the words as it does in the context, token by token.
    const auto in_context = std::search(passkey.context.begin(),
                                        passkey.context.end(),
                                        passkey.turns[0].answer.begin(),
                                        passkey.turns[0].answer.end());
    EXPECT_NE(in_context, passkey.context.end());
    const dialogue multikey =
        make_dialogue(retrieval_task::multikey, {1024, 0}, classic_filler(), encode, 0);
    EXPECT_EQ(multikey.turns[1].question.size(), multikey.turns[1].alone.size() + 5);
}

} // namespace
} // namespace lab
