// What both games have: options, times of frames, and the artist that personalises beside them.
#ifndef GAME_HPP
#define GAME_HPP
#include <pentimento.hpp>

#include <SDL.h>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace game {

constexpr int WIDTH = 960, HEIGHT = 540, PICTURE = 192;
constexpr std::uint32_t FRAME_US = 16667;
using Clock = std::chrono::steady_clock;

inline double milliseconds(Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); }

// What the command line says.
struct Options {
    std::string model, folder, shot, prompt = "icon of red apple";
    std::uint32_t budget = 4000; // microseconds of the GPU a frame
    int frames = 0;
    std::vector<std::pair<std::string, std::string>> settings;
};

inline bool read_options(int argc, char **argv, Options &o) {
    if (argc < 3) return false;
    o.model = argv[1];
    o.folder = argv[2];
    for (int i = 3; i < argc; i++) {
        std::string text = argv[i];
        auto at = text.find('=');
        if (at == std::string::npos) return false;
        std::string name = text.substr(0, at), value = text.substr(at + 1);
        if (name == "budget") o.budget = static_cast<std::uint32_t>(std::strtoul(value.c_str(), nullptr, 10));
        else if (name == "frames") o.frames = std::atoi(value.c_str());
        else if (name == "shot") o.shot = value;
        else if (name == "prompt") o.prompt = value;
        else o.settings.emplace_back(name, value);
    }
    return true;
}

// Times of frames, and what they say.
class Times {
public:
    void add(double ms) { all_.push_back(ms); }
    void print(const char *what) {
        if (all_.empty()) return;
        std::sort(all_.begin(), all_.end());
        auto at = [&](double part) { return all_[std::min(all_.size() - 1, std::size_t(part * double(all_.size())))]; };
        std::printf("%s: %zu frames, median %.2f ms, 95 %% %.2f, 99 %% %.2f, longest %.2f\n", what, all_.size(), at(0.5),
                    at(0.95), at(0.99), all_.back());
    }

private:
    std::vector<double> all_;
};

// Personalising, as the game sees it.
class Artist {
public:
    // On a device of the library's own, or on one that the game lends.
    pentimento::Status open(const Options &o, const pmt_vulkan *lent = nullptr) {
        auto made = lent ? pentimento::Context::create(*lent, context_)
                         : pentimento::Context::create(std::getenv("PENTIMENTO_ADAPTER"), context_);
        if (!made) return made;
        if (auto s = context_.settings(nullptr, settings_); !s) return s;
        for (const auto &[name, value] : o.settings) {
            if (auto s = settings_.set(name.c_str(), value); !s) return s;
        }
        if (auto s = context_.model(o.model.c_str(), model_); !s) return s;
        if (auto s = model_.trainer(settings_, trainer_); !s) return s;
        prompt_ = o.prompt;
        std::uint32_t count = 0;
        return trainer_.add_references(o.folder.c_str(), nullptr, count);
    }
    pentimento::Status start() { return trainer_.start(training_); }
    void pause() { (void)training_.pause(paused_ = !paused_); }
    void cancel() { (void)training_.cancel(); }

    // What it may use of this frame; never waits.
    void frame(std::uint32_t budget) {
        (void)context_.poll(budget, budget * 2);
        for (pmt_event e; training_ && training_.event(e);) {
            if (e.kind == PMT_EVENT_KIND_OVER && e.status != PMT_STATUS_OK) words_ = e.text[0] ? e.text : "cancelled";
            if (e.kind == PMT_EVENT_KIND_OVER && e.status == PMT_STATUS_OK) words_ = "done";
            if (e.kind == PMT_EVENT_KIND_WARM && e.done % 8 == 0) ask();
            if (e.kind == PMT_EVENT_KIND_ITERATION) ask();
        }
        pmt_progress now{};
        if (training_ && training_.progress(now) && now.status == PMT_STATUS_PENDING) {
            static const char *phases[] = {"waiting", "opening the device", "loading", "reading", "warming up", "iteration", "drawing", "over"};
            words_ = std::string(paused_ ? "paused, " : "") + phases[std::min(now.phase, 7U)] + " " +
                     std::to_string(now.phase == PMT_PHASE_ITERATING ? now.iteration + 1 : now.done) + " of " +
                     std::to_string(now.phase == PMT_PHASE_ITERATING ? now.iterations : now.total);
        }
    }
    // A new picture, if there is one: `take` gets the job that drew it and its size.
    template <typename Take> bool fetch(Take take) {
        std::uint32_t width = 0, height = 0;
        if (!drawing_ || !drawing_.size(width, height) || !take(drawing_, width, height)) return false;
        drawing_.reset();
        return true;
    }
    const std::string &words() const { return words_; }

private:
    void ask() {
        if (drawing_) return; // one is on its way
        pentimento::Drawing wanted;
        wanted.prompts = {prompt_};
        wanted.steps = 12;
        (void)trainer_.draw(wanted, drawing_);
    }

    pentimento::Context context_;
    pentimento::Settings settings_;
    pentimento::Model model_;
    pentimento::Trainer trainer_;
    pentimento::Job training_, drawing_;
    std::string prompt_, words_ = "not training";
    bool paused_ = false;
};

// Frames until somebody leaves, or as many as the options say: `take` gets a new picture as Artist::fetch gives it, `draw` draws a frame
// and, for a file that is named, keeps it. Tells how long frames took.
template <typename Take, typename Draw> void play(const Options &o, Artist &artist, Take take, Draw draw) {
    Times off, on, polls;
    bool training = false;
    auto start = [&] {
        if (auto s = artist.start(); !s) std::fprintf(stderr, "game: %s\n", s.message().c_str());
        training = true;
    };
    if (!o.frames) start();
    for (int frame = 0; !o.frames || frame < o.frames; frame++) {
        if (o.frames && frame == o.frames / 2) start();
        const auto began = Clock::now();
        for (SDL_Event e; SDL_PollEvent(&e);) {
            if (e.type == SDL_QUIT || (e.type == SDL_KEYDOWN && e.key.keysym.sym == SDLK_ESCAPE)) return;
            if (e.type != SDL_KEYDOWN) continue;
            if (e.key.keysym.sym == SDLK_p) artist.pause();
            if (e.key.keysym.sym == SDLK_c) artist.cancel();
            if (e.key.keysym.sym == SDLK_s) start();
        }
        const auto before = Clock::now();
        artist.frame(o.budget);
        artist.fetch(take);
        polls.add(milliseconds(Clock::now() - before));
        draw(frame + 1 == o.frames ? o.shot : std::string());
        const double took = milliseconds(Clock::now() - began);
        (training ? on : off).add(took);
        if (took * 1000 < FRAME_US) SDL_Delay(Uint32((FRAME_US - took * 1000) / 1000));
    }
    off.print("frames without training");
    on.print("frames with training");
    polls.print("of these, for pentimento");
    std::printf("%s\n", artist.words().c_str());
}

} // namespace game

#endif
