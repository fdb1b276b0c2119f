// A window that keeps its frame rate while it personalises: balls bounce, a training goes on beside them within a budget a frame, and what it
// has learnt so far is shown as it learns.
//
//   cargo build --release -p pentimento-ffi
//   c++ -std=c++17 -O2 examples/game/main.cpp -Iinclude -Ltarget/release -lpentimento $(sdl2-config --cflags --libs) -o game
//   LD_LIBRARY_PATH=target/release ./game examples/models/icons FOLDER [budget=4000] [frames=0] [shot=FILE.bmp] [prompt=TEXT] [SETTING=VALUE ...]
//
// FOLDER holds references (PNG, JPEG, WebP) with captions beside them. Keys: P pauses, C cancels, S starts again, Escape ends. With `frames` it
// ends by itself, half of them without training and half with, and prints how long frames took.
#include "game.hpp"

#include <SDL.h>
#include <cmath>

namespace {

using namespace game;

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
    auto take = [&](const pentimento::Job &job, std::uint32_t width, std::uint32_t height) {
        rgba.resize(std::size_t{width} * height * 4);
        bool there{job.image(0, pentimento::image(rgba.data(), rgba.size(), width, height, PMT_FORMAT_RGBA8))};
        if (there) strip.add(renderer, rgba, width, height);
        return there;
    };
    game::play(o, artist, take, [&](const std::string &shot) {
        SDL_SetRenderDrawColor(renderer, 24, 26, 34, 255);
        SDL_RenderClear(renderer);
        for (Ball &b : balls) draw_ball(renderer, b);
        strip.draw(renderer);
        SDL_SetWindowTitle(window, ("pentimento: " + artist.words()).c_str());
        if (!shot.empty()) save_shot(renderer, shot);
        SDL_RenderPresent(renderer);
    });
    std::printf("%zu pictures\n", strip.size());
    return 0;
}

} // namespace

int main(int argc, char **argv) {
    Options o;
    if (!read_options(argc, argv, o)) {
        return std::fprintf(stderr, "usage: game MODEL FOLDER [budget=US] [frames=N] [shot=FILE.bmp] [prompt=TEXT] [SETTING=VALUE ...]\n"), 2;
    }
    if (SDL_Init(SDL_INIT_VIDEO) != 0) return std::fprintf(stderr, "game: %s\n", SDL_GetError()), 1;
    SDL_Window *window = SDL_CreateWindow("pentimento", SDL_WINDOWPOS_CENTERED, SDL_WINDOWPOS_CENTERED, WIDTH, HEIGHT, 0);
    SDL_Renderer *renderer = window ? SDL_CreateRenderer(window, -1, SDL_RENDERER_SOFTWARE) : nullptr;
    int code = renderer ? play(o, window, renderer) : (std::fprintf(stderr, "game: %s\n", SDL_GetError()), 1);
    SDL_Quit();
    return code;
}
