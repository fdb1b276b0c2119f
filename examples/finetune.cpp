// Personalising beside other work, from C++17: the training runs on the library's own thread; the loop below stands for a program's frames.
//
//   cargo build --release -p pentimento-ffi
//   c++ -std=c++17 examples/finetune.cpp -Iinclude -Ltarget/release -lpentimento -lm -o finetune-cpp
//   LD_LIBRARY_PATH=target/release ./finetune-cpp examples/models/icons ADAPTER.safetensors IMAGE.ppm "CAPTION" [IMAGE.ppm CAPTION ...]
#include <pentimento.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace {

int complain(const pentimento::Status &status) {
    std::fprintf(stderr, "finetune: %s\n", status.message().c_str());
    return 1;
}

// A binary PPM with 8 bits per channel.
bool read_ppm(const char *path, std::vector<unsigned char> &rgb, unsigned &width, unsigned &height) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    unsigned most = 0;
    file >> magic >> width >> height >> most;
    file.get();
    if (!file || magic != "P6" || most != 255 || width > 16384 || height > 16384) return false;
    rgb.resize(std::size_t{width} * height * 3);
    file.read(reinterpret_cast<char *>(rgb.data()), static_cast<std::streamsize>(rgb.size()));
    return static_cast<bool>(file);
}

int run(int argc, char **argv) {
    pentimento::Context context;
    pentimento::Settings settings;
    pentimento::Model model;
    pentimento::Trainer trainer;
    pentimento::Job job;
    if (auto s = pentimento::Context::create(std::getenv("PENTIMENTO_ADAPTER"), context); !s) return complain(s);
    if (auto s = context.settings(nullptr, settings); !s) return complain(s);
    // Settings for a first look; leave them out for the recommended ones.
    const std::pair<const char *, const char *> quick[] = {{"iterations", "2"}, {"warm.steps", "20"}, {"pathwise.images", "8"},
                                                          {"watch.every", "0"}};
    for (const auto &[name, value] : quick) {
        if (auto s = settings.set(name, value); !s) return complain(s);
    }
    if (auto s = context.model(argv[1], model); !s) return complain(s);
    if (auto s = model.trainer(settings, trainer); !s) return complain(s);
    for (int i = 3; i + 1 < argc; i += 2) {
        std::vector<unsigned char> rgb;
        unsigned width = 0, height = 0;
        if (!read_ppm(argv[i], rgb, width, height)) return std::fprintf(stderr, "finetune: %s is no PPM\n", argv[i]), 1;
        auto s = trainer.add_reference(pentimento::image(rgb.data(), rgb.size(), width, height), argv[i + 1]);
        if (!s) return complain(s);
    }
    if (auto s = trainer.start(job); !s) return complain(s);

    pmt_progress now{};
    do {
        // What a frame does: 4 ms of the GPU and 8 ms of the library's thread, and never a wait.
        if (auto s = context.poll(4000, 8000); !s) return complain(s);
        for (pmt_event event; job.event(event);) {
            if (event.kind == PMT_EVENT_KIND_ITERATION)
                std::printf("iteration %u: reward %.3f\n", event.iteration, event.metrics.reward_generated);
        }
        if (auto s = job.progress(now); !s) return complain(s);
        std::this_thread::sleep_for(std::chrono::milliseconds(4));
    } while (now.status == PMT_STATUS_PENDING);
    if (auto s = job.wait(0); !s) return complain(s);
    if (auto s = trainer.save_adapter(argv[2]); !s) return complain(s);
    std::printf("wrote %s\n", argv[2]);
    return 0;
}

} // namespace

int main(int argc, char **argv) {
    if (argc < 5) return std::fprintf(stderr, "usage: finetune-cpp MODEL ADAPTER IMAGE.ppm CAPTION ...\n"), 2;
    return run(argc, argv);
}
