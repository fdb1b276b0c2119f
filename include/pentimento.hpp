// pentimento for C++17: owning handles over pentimento.h, without exceptions, RTTI or anything to link beyond the library itself.
//
//     pentimento::Context context;
//     if (auto status = pentimento::Context::create(nullptr, context); !status) return complain(status);
//
// What can fail gives a Status, which converts to true when it went well; results come last, by reference. Everything here may be used from any
// thread as pentimento.h says. Moved-from and default objects are empty: calls on them give Status::BadArgument.
#ifndef PENTIMENTO_HPP
#define PENTIMENTO_HPP

#include "pentimento.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace pentimento {

// A part of memory that somebody else owns; made from arrays, vectors, strings and std::span alike.
template <class T>
class View {
public:
    constexpr View() noexcept = default;
    constexpr View(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <class C, class = decltype(static_cast<T *>(std::declval<C &>().data()))>
    constexpr View(C &&all) noexcept : data_(all.data()), size_(all.size()) {}
    template <std::size_t N>
    constexpr View(T (&all)[N]) noexcept : data_(all), size_(N) {}
    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

// The outcome of a call and, where it failed, the library's sentence.
class [[nodiscard]] Status {
public:
    Status() = default;
    Status(pmt_status code, std::string message) : code_(code), message_(std::move(message)) {}
    explicit operator bool() const noexcept { return code_ == PMT_STATUS_OK; }
    // No mistake: not over, or nothing there yet.
    bool pending() const noexcept { return code_ == PMT_STATUS_PENDING; }
    pmt_status code() const noexcept { return code_; }
    const std::string &message() const noexcept { return message_; }

private:
    pmt_status code_ = PMT_STATUS_OK;
    std::string message_;
};

namespace detail {
// Owns a handle; `context` is only asked for messages.
template <class T, void (*Free)(T *)>
class Handle {
public:
    Handle() noexcept = default;
    Handle(Handle &&other) noexcept
        : own_(std::exchange(other.own_, nullptr)), context_(std::exchange(other.context_, nullptr)) {}
    Handle &operator=(Handle &&other) noexcept {
        if (this != &other) {
            reset();
            own_ = std::exchange(other.own_, nullptr);
            context_ = std::exchange(other.context_, nullptr);
        }
        return *this;
    }
    ~Handle() { reset(); }
    explicit operator bool() const noexcept { return own_ != nullptr; }
    // For what only pentimento.h has.
    T *handle() const noexcept { return own_; }
    void reset() noexcept { Free(std::exchange(own_, nullptr)); }

protected:
    Status status(pmt_status code) const {
        if (code == PMT_STATUS_OK || code == PMT_STATUS_PENDING) return {code, {}};
        if (!own_) return {PMT_STATUS_BAD_ARGUMENT, "pentimento: expected an object, found an empty one."};
        std::string text(pmt_error_message(context_, nullptr, 0), '\0');
        pmt_error_message(context_, text.data(), text.size() + 1);
        return {code, std::move(text)};
    }
    // Takes what a call made.
    template <class Other>
    static void adopt(Other &into, decltype(std::declval<Other &>().handle()) made, pmt_context *context) noexcept {
        Other fresh;
        fresh.own_ = made;
        fresh.context_ = context;
        into = std::move(fresh);
    }
    template <class U, void (*F)(U *)>
    friend class Handle;

    T *own_ = nullptr;
    pmt_context *context_ = nullptr;
};
} // namespace detail

// An image in the program's memory; see pmt_format for the kinds.
inline pmt_image image(void *pixels, std::size_t bytes, std::uint32_t width, std::uint32_t height,
                       pmt_format format = PMT_FORMAT_RGB8, std::size_t stride = 0) noexcept {
    pmt_image made{};
    made.pixels = pixels;
    made.bytes = bytes;
    made.stride = stride;
    made.width = width;
    made.height = height;
    made.format = static_cast<std::uint32_t>(format);
    return made;
}

// What is to be drawn.
struct Drawing {
    std::vector<std::string> prompts;
    std::vector<std::uint64_t> seeds; // empty: 0, 1, 2 and so on
    std::string negative;
    std::uint32_t width = 0, height = 0; // 0: as the model was trained
    std::uint32_t steps = 28, batch = 1, preview = 0;
    float guidance = 4.5F;
};

// Work under way or over.
class Job : public detail::Handle<pmt_job, pmt_job_free> {
public:
    Status progress(pmt_progress &into) const { return status(pmt_job_progress(own_, &into, sizeof into)); }
    // False when there is no event left.
    bool event(pmt_event &into) const noexcept { return pmt_job_event(own_, &into, sizeof into) == PMT_STATUS_OK; }
    // Waits at most so long; pending() where that was not enough. Budgets are not kept meanwhile.
    Status wait(std::uint32_t milliseconds = UINT32_MAX) const { return status(pmt_job_wait(own_, milliseconds)); }
    Status pause(bool paused) const { return status(pmt_job_pause(own_, paused ? 1 : 0)); }
    Status cancel() const { return status(pmt_job_cancel(own_)); }
    Status size(std::uint32_t &width, std::uint32_t &height) const {
        return status(pmt_job_image_size(own_, &width, &height));
    }
    Status image(std::uint32_t index, const pmt_image &into) const { return status(pmt_job_image(own_, index, &into)); }
    Status copy(std::uint32_t index, const pmt_vulkan_image &into) const { return status(pmt_job_copy_image(own_, index, &into)); }
    Status preview(const pmt_image &into) const { return status(pmt_job_preview(own_, &into)); }
};

class Settings : public detail::Handle<pmt_settings, pmt_settings_free> {
public:
    Status set(const char *name, const char *value) { return status(pmt_settings_set(own_, name, value)); }
    Status set(const char *name, const std::string &value) { return set(name, value.c_str()); }
    Status get(const char *name, std::string &value) const {
        std::size_t needed = 0;
        Status first = status(pmt_settings_get(own_, name, nullptr, 0, &needed));
        if (!first) return first;
        value.assign(needed > 0 ? needed - 1 : 0, '\0');
        return status(pmt_settings_get(own_, name, value.data(), needed, nullptr));
    }
    Status check() const { return status(pmt_settings_check(own_)); }
    // All that there are.
    static std::vector<pmt_setting> list() {
        std::vector<pmt_setting> all;
        pmt_setting one;
        while (pmt_settings_describe(static_cast<std::uint32_t>(all.size()), &one, sizeof one) == PMT_STATUS_OK) {
            all.push_back(one);
        }
        return all;
    }
};

class Pipeline;
class Trainer;

class Model : public detail::Handle<pmt_model, pmt_model_free> {
public:
    // Of `settings` those called base, stream and text_tokens count.
    Status pipeline(Pipeline &into, const Settings &settings = {}) const;
    // `reward` nullptr: the folder `reward` inside the model's.
    Status trainer(const Settings &settings, Trainer &into, const char *reward = nullptr) const;
};

namespace detail {
// A drawing as the library takes it; lives as long as the call.
class Wanted {
public:
    explicit Wanted(const Drawing &d) {
        for (const std::string &prompt : d.prompts) prompts_.push_back(prompt.c_str());
        pmt_drawing_default(&made_, sizeof made_);
        made_.prompts = prompts_.data();
        made_.count = static_cast<std::uint32_t>(prompts_.size());
        made_.seeds = d.seeds.size() < d.prompts.size() ? nullptr : d.seeds.data();
        made_.negative = d.negative.c_str();
        made_.width = d.width;
        made_.height = d.height;
        made_.steps = d.steps;
        made_.batch = d.batch;
        made_.preview = d.preview;
        made_.guidance = d.guidance;
    }
    const pmt_drawing *get() const noexcept { return &made_; }

private:
    std::vector<const char *> prompts_;
    pmt_drawing made_{};
};
inline std::int32_t append(void *bytes, const std::uint8_t *data, std::size_t size) {
    auto &all = *static_cast<std::vector<std::uint8_t> *>(bytes);
    all.assign(data, data + size);
    return 0;
}
} // namespace detail

class Pipeline : public detail::Handle<pmt_pipeline, pmt_pipeline_free> {
public:
    std::uint32_t resolution() const noexcept {
        std::uint32_t side = 0;
        pmt_pipeline_resolution(own_, &side);
        return side;
    }
    Status attach(const char *path, float strength, std::uint32_t &id) {
        return status(pmt_pipeline_attach(own_, path, strength, &id));
    }
    Status attach(View<const std::uint8_t> adapter, float strength, std::uint32_t &id) {
        return status(pmt_pipeline_attach_bytes(own_, adapter.data(), adapter.size(), strength, &id));
    }
    Status set_strength(std::uint32_t id, float strength) {
        return status(pmt_pipeline_set_strength(own_, id, strength));
    }
    Status detach(std::uint32_t id) { return status(pmt_pipeline_detach(own_, id)); }
    Status unload() { return status(pmt_pipeline_unload(own_)); }
    Status draw(const Drawing &drawing, Job &into) {
        pmt_job *made = nullptr;
        Status done = status(pmt_pipeline_draw(own_, detail::Wanted(drawing).get(), &made));
        adopt(into, made, context_);
        return done;
    }
};

class Trainer : public detail::Handle<pmt_trainer, pmt_trainer_free> {
public:
    Status resolution(std::uint32_t &width, std::uint32_t &height) const {
        return status(pmt_trainer_resolution(own_, &width, &height));
    }
    Status add_reference(const pmt_image &image, const char *caption) {
        return status(pmt_trainer_add_reference(own_, &image, caption));
    }
    // The images of a folder, or of a file; without a caption they have those beside them.
    Status add_references(const char *path, const char *caption, std::uint32_t &count) {
        return status(pmt_trainer_add_references(own_, path, caption, &count));
    }
    Status add_prompt(const char *prompt) { return status(pmt_trainer_add_prompt(own_, prompt)); }
    Status estimate(pmt_estimate &into) { return status(pmt_trainer_estimate(own_, &into, sizeof into)); }
    Status resume(const char *path) { return status(pmt_trainer_resume(own_, path)); }
    Status resume(View<const std::uint8_t> state) {
        return status(pmt_trainer_resume_bytes(own_, state.data(), state.size()));
    }
    Status start(Job &into) {
        pmt_job *made = nullptr;
        Status done = status(pmt_trainer_start(own_, &made));
        adopt(into, made, context_);
        return done;
    }
    Status draw(const Drawing &drawing, Job &into) {
        pmt_job *made = nullptr;
        Status done = status(pmt_trainer_draw(own_, detail::Wanted(drawing).get(), &made));
        adopt(into, made, context_);
        return done;
    }
    // Pieces of an iteration made by other trainers: see pmt_trainer_spread.
    Status spread(std::uint32_t pieces) { return status(pmt_trainer_spread(own_, pieces)); }
    Status shared(std::vector<std::uint8_t> &into) {
        return status(pmt_trainer_write_shared(own_, detail::append, &into));
    }
    Status give(std::uint32_t piece, View<const std::uint8_t> made, std::uint32_t &missing) {
        return status(pmt_trainer_give(own_, piece, made.data(), made.size(), &missing));
    }
    Status work(View<const std::uint8_t> shared, std::uint32_t piece, Job &into) {
        pmt_job *made = nullptr;
        Status done = status(pmt_trainer_work(own_, shared.data(), shared.size(), piece, &made));
        adopt(into, made, context_);
        return done;
    }
    Status made(std::vector<std::uint8_t> &into) {
        return status(pmt_trainer_write_made(own_, detail::append, &into));
    }
    Status save_adapter(const char *path) { return status(pmt_trainer_save_adapter(own_, path)); }
    Status save_state(const char *path) { return status(pmt_trainer_save_state(own_, path)); }
    Status adapter(std::vector<std::uint8_t> &into) {
        return status(pmt_trainer_write_adapter(own_, detail::append, &into));
    }
    Status state(std::vector<std::uint8_t> &into) {
        return status(pmt_trainer_write_state(own_, detail::append, &into));
    }
};

class Context : public detail::Handle<pmt_context, pmt_context_free> {
public:
    // `device` nullptr: the best one.
    static Status create(const char *device, Context &into) {
        pmt_context *made = nullptr;
        pmt_status code = pmt_context_new(device, &made);
        adopt(into, made, made);
        if (code != PMT_STATUS_OK) return {code, "pentimento: no context could be made."};
        return {};
    }
    // All devices, the best one first.
    static std::vector<pmt_device> devices() {
        std::uint32_t count = 0;
        if (pmt_devices(nullptr, sizeof(pmt_device), 0, &count) != PMT_STATUS_OK) return {};
        std::vector<pmt_device> all(count);
        pmt_devices(all.data(), sizeof(pmt_device), count, &count);
        all.resize(count < all.size() ? count : all.size());
        return all;
    }
    // On a Vulkan device of the program's, see pmt_context_adopt_vulkan.
    static Status create(const pmt_vulkan &device, Context &into) {
        pmt_context *made = nullptr;
        pmt_status code = pmt_context_adopt_vulkan(&device, &made);
        adopt(into, made, made);
        if (code != PMT_STATUS_OK) return {code, "pentimento: no context could be made."};
        return {};
    }
    Status open() const { return status(pmt_context_open(own_)); }
    // Time of the GPU and of the context's thread, in microseconds: once a frame.
    Status poll(std::uint32_t gpu_us, std::uint32_t cpu_us) const {
        return status(pmt_context_poll(own_, gpu_us, cpu_us));
    }
    Status memory(pmt_memory &into) const { return status(pmt_context_memory(own_, &into, sizeof into)); }
    Status cancel() const { return status(pmt_context_cancel(own_)); }
    Status log(pmt_log log, void *user) const { return status(pmt_context_log(own_, log, user)); }
    Status limit_memory(uint64_t bytes) const { return status(pmt_context_limit_memory(own_, bytes)); }
    Status pipeline_cache(const char *file) const { return status(pmt_context_pipeline_cache(own_, file)); }
    // `recipe` nullptr: the recommended one.
    Status settings(const char *recipe, Settings &into) const {
        pmt_settings *made = nullptr;
        Status done = status(pmt_settings_new(own_, recipe, &made));
        adopt(into, made, own_);
        return done;
    }
    // From the program's own archive or memory, see pmt_model_open_files.
    Status model(View<const pmt_file> files, const char *file, pmt_read read, void *user, Model &into) const {
        pmt_model *made = nullptr;
        Status done = status(pmt_model_open_files(own_, files.data(), files.size(), file, read, user, &made));
        adopt(into, made, own_);
        return done;
    }
    Status model(const char *path, Model &into) const {
        pmt_model *made = nullptr;
        Status done = status(pmt_model_open(own_, path, &made));
        adopt(into, made, own_);
        return done;
    }
};

inline Status Model::pipeline(Pipeline &into, const Settings &settings) const {
    pmt_pipeline *made = nullptr;
    Status done = status(pmt_pipeline_new(own_, settings.handle(), &made));
    adopt(into, made, context_);
    return done;
}
inline Status Model::trainer(const Settings &settings, Trainer &into, const char *reward) const {
    pmt_trainer *made = nullptr;
    Status done = status(pmt_trainer_new(own_, reward, settings.handle(), &made));
    adopt(into, made, context_);
    return done;
}

} // namespace pentimento

#endif
