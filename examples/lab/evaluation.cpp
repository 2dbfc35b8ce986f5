// SPDX-License-Identifier: Apache-2.0
#include "evaluation.hpp"

#include "compression.hpp"
#include "error.hpp"
#include "work_counter.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

namespace lab {
namespace {

/// As long as so many answers of one policy: what the prefill and a text's measurement weigh in the progress.
constexpr double prefill_weight = 4.0;
constexpr double text_weight = 1.5;

[[nodiscard]] std::vector<double> ratios_of(const policy& how, const experiment& plan) {
    return how.ratios(plan.keep_ratios);
}

[[nodiscard]] std::string
sample_key(const std::string& task, const std::optional<std::uint64_t>& seed, std::size_t index) {
    return fmt::format("{} {} {}", task, seed ? fmt::format("{}", *seed) : "file", index);
}

[[nodiscard]] std::string sample_key(const lm_sample& sample) {
    return sample_key(sample.origin.empty() ? sample.task : sample.task + '@' + sample.origin,
                      sample.seed,
                      sample.index);
}

[[nodiscard]] std::string
row_key(const std::string& sample, const std::string& policy, double keep_ratio) {
    return fmt::format("{} {} {}", sample, policy, keep_ratio);
}

using field = std::pair<const char*, double retrieval_result::*>;
constexpr std::array retrieval_fields{
    field{"keep_ratio", &retrieval_result::keep_ratio},
    field{"kept_tokens_mean", &retrieval_result::kept_tokens_mean},
    field{"bytes_full", &retrieval_result::bytes_full},
    field{"bytes_held", &retrieval_result::bytes_held},
    field{"select_ms", &retrieval_result::select_ms},
    field{"compact_ms", &retrieval_result::compact_ms},
    field{"prefill_ms", &retrieval_result::prefill_ms}};

using measured_field = std::pair<const char*, double measurement::*>;
constexpr std::array measurement_fields{
    measured_field{"keep_ratio", &measurement::keep_ratio},
    measured_field{"kept_tokens_mean", &measurement::kept_tokens_mean},
    measured_field{"bytes_full", &measurement::bytes_full},
    measured_field{"bytes_held", &measurement::bytes_held},
    measured_field{"nll_full", &measurement::nll_full},
    measured_field{"ppl_ratio", &measurement::ppl_ratio},
    measured_field{"select_ms", &measurement::select_ms},
    measured_field{"compact_ms", &measurement::compact_ms},
    measured_field{"prefill_ms", &measurement::prefill_ms},
    measured_field{"decode_ms_per_token", &measurement::decode_ms_per_token}};

using quality_field = std::pair<const char*, double fidelity::*>;
constexpr std::array quality_fields{quality_field{"nll", &fidelity::nll},
                                    quality_field{"kld_mean", &fidelity::kld_mean},
                                    quality_field{"kld_p99", &fidelity::kld_p99},
                                    quality_field{"top1_agreement", &fidelity::top1_agreement}};

/// JSON has no NaN: it was written as null.
[[nodiscard]] double number(const nlohmann::json& value) {
    return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

[[nodiscard]] nlohmann::json to_json(const retrieval_result& result) {
    nlohmann::json json = {{"policy", result.policy}, {"context", result.context}};
    for (const auto& [name, member] : retrieval_fields) {
        json[name] = result.*member;
    }
    json["turns"] = nlohmann::json::array();
    for (const answer_score& score : result.turns) {
        json["turns"].push_back({{"exact", score.exact}, {"nll", score.nll}});
    }
    return json;
}

[[nodiscard]] retrieval_result retrieval_from(const nlohmann::json& json) {
    retrieval_result result;
    result.policy = json.at("policy").get<std::string>();
    result.context = json.at("context").get<std::size_t>();
    for (const auto& [name, member] : retrieval_fields) {
        result.*member = number(json.at(name));
    }
    for (const nlohmann::json& score : json.at("turns")) {
        result.turns.push_back({score.at("exact").get<bool>(), number(score.at("nll"))});
    }
    return result;
}

[[nodiscard]] nlohmann::json to_json(const measurement& m) {
    nlohmann::json json = {{"name", m.name}, {"policy", m.policy}, {"context", m.context}};
    for (const auto& [name, member] : measurement_fields) {
        json[name] = m.*member;
    }
    for (const auto& [name, member] : quality_fields) {
        json[name] = m.quality.*member;
    }
    return json;
}

[[nodiscard]] measurement measurement_from(const nlohmann::json& json) {
    measurement m;
    m.name = json.at("name").get<std::string>();
    m.policy = json.at("policy").get<std::string>();
    m.context = json.at("context").get<std::size_t>();
    for (const auto& [name, member] : measurement_fields) {
        m.*member = number(json.at(name));
    }
    for (const auto& [name, member] : quality_fields) {
        m.quality.*member = number(json.at(name));
    }
    return m;
}

/// Rows by key, with those of earlier runs.
class finished_rows {
public:
    explicit finished_rows(journal* file) : file_(file) {}

    [[nodiscard]] bool has(const std::string& key) const {
        return file_ != nullptr && file_->find(key) != nullptr;
    }
    template <typename From>
    [[nodiscard]] auto read(const std::string& key, const From& from) const {
        try {
            return from(*file_->find(key));
        } catch (const nlohmann::json::exception&) {
            fail("the journal's result ", in_quotes(key), " is broken");
        }
    }
    template <typename Row>
    void add(const std::string& key, const Row& row) const {
        if (file_ != nullptr) {
            file_->add(key, to_json(row));
        }
    }

private:
    journal* file_;
};

/// Policies of which a row of the sample is missing.
[[nodiscard]] std::vector<policy>
missing(const experiment& plan, const std::string& sample, const finished_rows& rows) {
    std::vector<policy> result;
    for (const policy& how : plan.policies) {
        for (const double ratio : ratios_of(how, plan)) {
            if (!rows.has(row_key(sample, how.text, ratio))) {
                result.push_back(how);
                break;
            }
        }
    }
    return result;
}

class runner {
public:
    runner(const evaluation& all, const llama& model, journal* done, const step_callback& progress)
        : all_(all), model_(model), rows_(done), work_(progress) {
        questions_.mode = all.mode;
        questions_.style = all.style;
        questions_.type = all.plan.type;
        questions_.repeat_request = all.plan.repeat_request;
    }

    [[nodiscard]] evaluation_results run() {
        count_work();
        for (const lm_sample& sample : all_.texts) {
            measure(sample);
        }
        for (const dialogue& about : all_.dialogues) {
            measure(about);
        }
        return std::move(results_);
    }

private:
    void count_work() {
        const auto weigh = [&](const std::string& sample, double weight) {
            double answers = 0.0;
            for (const policy& how : missing(all_.plan, sample, rows_)) {
                answers += weight * static_cast<double>(ratios_of(how, all_.plan).size());
            }
            work_.expect(answers > 0.0 ? prefill_weight + answers : 0.0);
        };
        for (const lm_sample& sample : all_.texts) {
            weigh(sample_key(sample), text_weight);
        }
        for (const dialogue& about : all_.dialogues) {
            weigh(sample_key(about.task, about.seed, about.index), 1.0);
        }
    }

    void measure(const lm_sample& sample) {
        const std::string key = sample_key(sample);
        experiment rest = all_.plan;
        rest.policies = missing(all_.plan, key, rows_);
        std::vector<measurement> fresh;
        if (!rest.policies.empty()) {
            double weight = prefill_weight;
            for (const policy& how : rest.policies) {
                weight += text_weight * static_cast<double>(ratios_of(how, rest).size());
            }
            fresh = lab::run(rest, {sample.text}, model_, [&](double done, double total) {
                work_.at(weight, done / total);
            });
            work_.finish(weight);
            for (const measurement& m : fresh) {
                rows_.add(row_key(key, m.policy, m.keep_ratio), m);
            }
        }
        for (const policy& how : all_.plan.policies) {
            for (const double ratio : ratios_of(how, all_.plan)) {
                measurement m;
                const auto found =
                    std::find_if(fresh.begin(), fresh.end(), [&](const measurement& candidate) {
                        return candidate.policy == how.text && candidate.keep_ratio == ratio;
                    });
                if (found != fresh.end()) {
                    m = *found;
                } else {
                    m = rows_.read(row_key(key, how.text, ratio), measurement_from);
                    ++results_.read_back;
                }
                results_.texts.push_back({sample.task, sample.seed, std::move(m)});
            }
        }
    }

    void measure(const dialogue& about) {
        const std::string sample = sample_key(about.task, about.seed, about.index);
        std::optional<prefilled_dialogue> prefilled;
        for (const policy& how : all_.plan.policies) {
            for (const double ratio : ratios_of(how, all_.plan)) {
                const std::string key = row_key(sample, how.text, ratio);
                retrieval_row row{about.task, about.name, about.seed, about.depth, {}};
                if (rows_.has(key)) {
                    row.measured = rows_.read(key, retrieval_from);
                    ++results_.read_back;
                } else {
                    if (!prefilled) {
                        prefilled.emplace(
                            model_, questions_, about, [&](std::size_t done, std::size_t total) {
                                work_.at(prefill_weight,
                                         static_cast<double>(done) / static_cast<double>(total));
                            });
                        work_.finish(prefill_weight);
                    }
                    row.measured = prefilled->ask(how, ratio);
                    rows_.add(key, row.measured);
                    work_.finish(1.0);
                }
                results_.dialogues.push_back(std::move(row));
            }
        }
    }

    const evaluation& all_;
    const llama& model_;
    finished_rows rows_;
    work_counter work_;
    retrieval_plan questions_;
    evaluation_results results_;
};

/// What the policies of a run see of its first sample.
[[nodiscard]] kept_maps first_sample(const evaluation& all) {
    if (!all.texts.empty()) {
        const window& text = all.texts.front().text;
        return {text.name, text.context};
    }
    const dialogue& about = all.dialogues.front();
    kept_maps result{about.name, about.context};
    if (all.mode == visibility::aware) {
        const std::vector<int>& question = about.turns.front().question;
        result.tokens.insert(result.tokens.end(), question.begin(), question.end() - 1);
    }
    return result;
}

} // namespace

void check(const evaluation& all, const llama& model) {
    std::vector<window> windows;
    for (const lm_sample& sample : all.texts) {
        windows.push_back(sample.text);
    }
    check(all.plan, windows, model);
    check({all.mode, all.style, all.plan.type},
          all.dialogues,
          all.plan.policies,
          all.plan.keep_ratios,
          model);
}

evaluation_results
run(const evaluation& all, const llama& model, journal* done, const step_callback& progress) {
    check(all, model);
    return runner(all, model, done, progress).run();
}

kept_maps
map_first_sample(const evaluation& all, const llama& model, const step_callback& progress) {
    kept_maps result = first_sample(all);
    result.num_layers = model.config().num_layers;
    result.num_kv_heads = model.config().num_kv_heads;
    work_counter work(progress);
    work.expect(prefill_weight + static_cast<double>(all.plan.policies.size()));
    kvcrush::kv_cache prefilled = model.make_cache(all.plan.type);
    static_cast<void>(model.forward(result.tokens, prefilled, 0));
    work.finish(prefill_weight);
    for (const policy& how : all.plan.policies) {
        const double ratio = ratios_of(how, all.plan).front();
        kvcrush::kv_cache cache = copy_for(prefilled, how);
        timed_compression done =
            compress(cache, {model, result.tokens, all.plan.repeat_request}, how.at(ratio));
        result.maps.push_back({how.text, ratio, std::move(done.kept)});
        work.finish(1.0);
    }
    return result;
}

} // namespace lab
