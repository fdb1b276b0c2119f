// A window that keeps its frame rate while it personalises: balls bounce, a training goes on beside them within a budget a frame, and what it
// has learnt so far is shown as it learns.
//
//   cargo build --release -p pentimento-ffi
//   c++ -std=c++17 -O2 examples/game/main.cpp -Iinclude -Ltarget/release -lpentimento $(sdl2-config --cflags --libs) -o game
//   LD_LIBRARY_PATH=target/release ./game examples/models/icons FOLDER [budget=4000] [frames=0] [shot=FILE.bmp] [SETTING=VALUE ...]
//
// FOLDER holds references as NAME.ppm with captions in NAME.txt. Keys: P pauses, C cancels, S starts again, Escape ends. With `frames` it
// ends by itself, half of them without training and half with, and prints how long frames took.
#include <pentimento.hpp>

#include <SDL.h>
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

constexpr int WIDTH = 960, HEIGHT = 540, PICTURE = 192;
constexpr std::uint32_t FRAME_US = 16667;
using Clock = std::chrono::steady_clock;

double milliseconds(Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); }

// What the command line says.
struct Options {
    std::string model, folder, shot;
    std::uint32_t budget = 4000; // microseconds of the GPU a frame
    int frames = 0;
    std::vector<std::pair<std::string, std::string>> settings;
};

bool read_options(int argc, char **argv, Options &o) {
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
    pentimento::Status open(const Options &o) {
        if (auto s = pentimento::Context::create(std::getenv("PENTIMENTO_ADAPTER"), context_); !s) return s;
        if (auto s = context_.settings(nullptr, settings_); !s) return s;
        for (const auto &[name, value] : o.settings) {
            if (auto s = settings_.set(name.c_str(), value); !s) return s;
        }
        if (auto s = context_.model(o.model.c_str(), model_); !s) return s;
        if (auto s = model_.trainer(settings_, trainer_); !s) return s;
        for (const auto &entry : std::filesystem::directory_iterator(o.folder)) {
            if (entry.path().extension() != ".ppm") continue;
            if (auto s = add(entry.path()); !s) return s;
        }
        return {};
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
    // A new picture, if there is one.
    bool fetch(std::vector<std::uint8_t> &rgba, std::uint32_t &width, std::uint32_t &height) {
        if (!drawing_ || !drawing_.size(width, height)) return false;
        rgba.resize(std::size_t{width} * height * 4);
        bool there{drawing_.image(0, pentimento::image(rgba.data(), rgba.size(), width, height, PMT_FORMAT_RGBA8))};
        if (there) drawing_.reset();
        return there;
    }
    const std::string &words() const { return words_; }

private:
    pentimento::Status add(const std::filesystem::path &path) {
        std::ifstream file(path, std::ios::binary);
        std::string magic;
        std::uint32_t width = 0, height = 0, most = 0;
        file >> magic >> width >> height >> most;
        file.get();
        std::vector<char> rgb(std::size_t{std::min(width, 16384U)} * std::min(height, 16384U) * 3);
        file.read(rgb.data(), static_cast<std::streamsize>(rgb.size()));
        if (!file || magic != "P6" || most != 255) return {PMT_STATUS_BAD_FILE, path.string() + " is no PPM."};
        std::ifstream words(std::filesystem::path(path).replace_extension(".txt"));
        std::string caption(std::istreambuf_iterator<char>{words}, {});
        if (prompt_.empty()) prompt_ = caption;
        return trainer_.add_reference(pentimento::image(rgb.data(), rgb.size(), width, height), caption.c_str());
    }
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

struct Ball {
    float x, y, dx, dy, size;
    SDL_Color colour;
};

std::vector<Ball> make_balls() {
    std::vector<Ball> all;
    std::uint32_t seed = 1;
    auto next = [&] { return float((seed = seed * 1664525U + 1013904223U) >> 8) / float(1U << 24); };
    for (int i = 0; i < 24; i++) {
        auto channel = [&] { return static_cast<Uint8>(80 + 150 * next()); };
        all.push_back({next() * WIDTH, next() * HEIGHT, next() * 6 - 3, next() * 6 - 3, 12 + 22 * next(), {channel(), channel(), channel(), 255}});
    }
    return all;
}

void draw_ball(SDL_Renderer *to, Ball &b) {
    if ((b.x += b.dx) < b.size || b.x > WIDTH - b.size) b.dx = -b.dx;
    if ((b.y += b.dy) < b.size || b.y > HEIGHT - b.size) b.dy = -b.dy;
    SDL_SetRenderDrawColor(to, b.colour.r, b.colour.g, b.colour.b, 255);
    for (float y = -b.size; y <= b.size; y++) {
        float half = std::sqrt(std::max(0.0F, b.size * b.size - y * y));
        SDL_RenderDrawLineF(to, b.x - half, b.y + y, b.x + half, b.y + y);
    }
}

void save_shot(SDL_Renderer *from, const std::string &file) {
    SDL_Surface *shot = SDL_CreateRGBSurfaceWithFormat(0, WIDTH, HEIGHT, 32, SDL_PIXELFORMAT_ARGB8888);
    if (!shot) return;
    SDL_RenderReadPixels(from, nullptr, SDL_PIXELFORMAT_ARGB8888, shot->pixels, shot->pitch);
    SDL_SaveBMP(shot, file.c_str());
    SDL_FreeSurface(shot);
}

// Pictures that have been drawn so far, in a strip at the bottom.
class Strip {
public:
    void add(SDL_Renderer *renderer, const std::vector<std::uint8_t> &rgba, std::uint32_t width, std::uint32_t height) {
        SDL_Texture *made = SDL_CreateTexture(renderer, SDL_PIXELFORMAT_ABGR8888, SDL_TEXTUREACCESS_STATIC, int(width), int(height));
        if (!made) return;
        SDL_UpdateTexture(made, nullptr, rgba.data(), int(width * 4));
        all_.push_back(made);
        if (all_.size() > 4) SDL_DestroyTexture(all_.front()), all_.erase(all_.begin());
    }
    void draw(SDL_Renderer *renderer) const {
        for (std::size_t i = 0; i < all_.size(); i++) {
            SDL_Rect place{24 + int(i) * (PICTURE + 24), HEIGHT - PICTURE - 24, PICTURE, PICTURE};
            SDL_RenderCopy(renderer, all_[i], nullptr, &place);
        }
    }
    std::size_t size() const { return all_.size(); }

private:
    std::vector<SDL_Texture *> all_;
};

int play(const Options &o, SDL_Window *window, SDL_Renderer *renderer) {
    Artist artist;
    Strip strip;
    if (auto s = artist.open(o); !s) return std::fprintf(stderr, "game: %s\n", s.message().c_str()), 1;
    std::vector<Ball> balls = make_balls();
    std::vector<std::uint8_t> rgba;
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
            if (e.type == SDL_QUIT || (e.type == SDL_KEYDOWN && e.key.keysym.sym == SDLK_ESCAPE)) return 0;
            if (e.type != SDL_KEYDOWN) continue;
            if (e.key.keysym.sym == SDLK_p) artist.pause();
            if (e.key.keysym.sym == SDLK_c) artist.cancel();
            if (e.key.keysym.sym == SDLK_s) start();
        }
        const auto before = Clock::now();
        artist.frame(o.budget);
        std::uint32_t width = 0, height = 0;
        if (artist.fetch(rgba, width, height)) strip.add(renderer, rgba, width, height);
        polls.add(milliseconds(Clock::now() - before));
        SDL_SetRenderDrawColor(renderer, 24, 26, 34, 255);
        SDL_RenderClear(renderer);
        for (Ball &b : balls) draw_ball(renderer, b);
        strip.draw(renderer);
        SDL_SetWindowTitle(window, ("pentimento: " + artist.words()).c_str());
        if (frame + 1 == o.frames && !o.shot.empty()) save_shot(renderer, o.shot);
        SDL_RenderPresent(renderer);
        const double took = milliseconds(Clock::now() - began);
        (training ? on : off).add(took);
        if (took * 1000 < FRAME_US) SDL_Delay(Uint32((FRAME_US - took * 1000) / 1000));
    }
    off.print("frames without training");
    on.print("frames with training");
    polls.print("of these, for pentimento");
    std::printf("%s; %zu pictures\n", artist.words().c_str(), strip.size());
    return 0;
}

} // namespace

int main(int argc, char **argv) {
    Options o;
    if (!read_options(argc, argv, o)) {
        return std::fprintf(stderr, "usage: game MODEL FOLDER [budget=US] [frames=N] [shot=FILE.bmp] [SETTING=VALUE ...]\n"), 2;
    }
    if (SDL_Init(SDL_INIT_VIDEO) != 0) return std::fprintf(stderr, "game: %s\n", SDL_GetError()), 1;
    SDL_Window *window = SDL_CreateWindow("pentimento", SDL_WINDOWPOS_CENTERED, SDL_WINDOWPOS_CENTERED, WIDTH, HEIGHT, 0);
    SDL_Renderer *renderer = window ? SDL_CreateRenderer(window, -1, SDL_RENDERER_SOFTWARE) : nullptr;
    int code = renderer ? play(o, window, renderer) : (std::fprintf(stderr, "game: %s\n", SDL_GetError()), 1);
    SDL_Quit();
    return code;
}
