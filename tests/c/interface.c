// What the C interface promises, checked from C. Run by tests/tests/ffi.rs, under AddressSanitizer where there is one.
//
//   interface MODEL                 everything that needs no GPU
//   interface MODEL ADAPTER DEVICE  and drawing and training, with an adapter that fits the model; DEVICE may be ""
//   interface away FOLDER DEVICE    trains on FOLDER/model.gguf, from FOLDER and then from elsewhere
//   interface overflow              lies about a buffer's length: AddressSanitizer must object
//   interface undefined             adds one to the largest int: UndefinedBehaviorSanitizer must object
//   with PENTIMENTO_NO_DEVICES nothing that valgrind would blame on a driver or a fork
//   interface race MODEL DEVICE     polls, pauses and cancels from several threads, for ThreadSanitizer
#define _GNU_SOURCE
#include <pentimento.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures;
static pmt_context *context;
static char text[1024];

static const char *message(void) {
    pmt_error_message(context, text, sizeof text);
    return text;
}

#define CHECK(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            printf("interface.c:%d: not so: %s (message: %s)\n", __LINE__, #condition, message()); \
            failures++;                                                                          \
        }                                                                                        \
    } while (0)
// A call that must fail in one way, with a part of its message.
#define FAILS(call, status, part)             \
    do {                                      \
        pmt_status got = (call);              \
        CHECK(got == (status));               \
        CHECK(strstr(message(), part));       \
    } while (0)
#define BAD(call, part) FAILS(call, PMT_STATUS_BAD_ARGUMENT, part)
#define OK(call) CHECK((call) == PMT_STATUS_OK)
#define WRONG(call) CHECK((call) == PMT_STATUS_BAD_ARGUMENT)

static pmt_image image_of(void *pixels, size_t bytes, uint32_t width, uint32_t height) {
    return (pmt_image){.pixels = pixels, .bytes = bytes, .width = width, .height = height, .format = PMT_FORMAT_RGB8};
}

static pmt_model *opened(const char *path) {
    pmt_model *model;
    OK(pmt_model_open(context, path, &model));
    return model;
}

// Settings of a training that ends soon.
static pmt_settings *short_settings(void) {
    pmt_settings *s;
    const char *const set[][2] = {
        {"rank", "3"}, {"iterations", "1"}, {"warm.steps", "1"}, {"warm.batch", "2"}, {"rollout.prompts", "1"},
        {"rollout.group", "2"}, {"rollout.steps", "2"}, {"head.warm", "1"}, {"head.batch", "2"},
        {"optim.micro_batch", "2"}, {"watch.every", "0"}, {"pathwise.images", "2"},
    };
    OK(pmt_settings_new(context, NULL, &s));
    for (size_t i = 0; i < sizeof set / sizeof *set; i++) OK(pmt_settings_set(s, set[i][0], set[i][1]));
    return s;
}

// Every function with what it must refuse and must not touch: handles that are none.
static void no_handle(void *wild) {
    uint32_t n = 7;
    size_t needed;
    float buffer[8];
    pmt_image image = image_of(buffer, sizeof buffer, 1, 1);
    pmt_progress progress;
    pmt_event event;
    pmt_memory memory;
    pmt_estimate estimate;
    pmt_drawing drawing;
    pmt_job *job = (pmt_job *)buffer;
    pmt_settings *settings = (pmt_settings *)buffer;
    pmt_model *model = (pmt_model *)buffer;
    pmt_pipeline *pipeline = (pmt_pipeline *)buffer;
    pmt_trainer *trainer = (pmt_trainer *)buffer;
    const pmt_file file = {"a", "b", 1};
    const char *prompt = "x";
    OK(pmt_drawing_default(&drawing, sizeof drawing));
    drawing.prompts = &prompt;
    WRONG(pmt_context_poll(wild, 1, 1));
    WRONG(pmt_context_open(wild));
    WRONG(pmt_context_memory(wild, &memory, sizeof memory));
    WRONG(pmt_context_cancel(wild));
    WRONG(pmt_context_log(wild, NULL, NULL));
    WRONG(pmt_context_pipeline_cache(wild, "x"));
    CHECK(pmt_error_message(wild, text, sizeof text) == 0);
    WRONG(pmt_settings_new(wild, NULL, &settings));
    WRONG(pmt_settings_set(wild, "rank", "1"));
    WRONG(pmt_settings_get(wild, "rank", text, sizeof text, &needed));
    WRONG(pmt_settings_check(wild));
    WRONG(pmt_model_open(wild, "x", &model));
    CHECK(model == NULL && settings == NULL);
    WRONG(pmt_model_open_files(wild, &file, 1, NULL, NULL, NULL, &model));
    WRONG(pmt_pipeline_new(wild, NULL, &pipeline));
    WRONG(pmt_pipeline_resolution(wild, &n));
    WRONG(pmt_pipeline_attach(wild, "x", 1, &n));
    WRONG(pmt_pipeline_attach_bytes(wild, (const uint8_t *)"x", 1, 1, &n));
    WRONG(pmt_pipeline_set_strength(wild, 1, 1));
    WRONG(pmt_pipeline_detach(wild, 1));
    WRONG(pmt_pipeline_unload(wild));
    WRONG(pmt_pipeline_draw(wild, &drawing, &job));
    WRONG(pmt_trainer_new(wild, NULL, NULL, &trainer));
    CHECK(pipeline == NULL && job == NULL && trainer == NULL);
    WRONG(pmt_trainer_resolution(wild, &n, &n));
    WRONG(pmt_trainer_add_reference(wild, &image, NULL));
    WRONG(pmt_trainer_add_prompt(wild, "x"));
    WRONG(pmt_trainer_resume(wild, "x"));
    WRONG(pmt_trainer_resume_bytes(wild, (const uint8_t *)"x", 1));
    WRONG(pmt_trainer_estimate(wild, &estimate, sizeof estimate));
    WRONG(pmt_trainer_start(wild, &job));
    WRONG(pmt_trainer_draw(wild, &drawing, &job));
    WRONG(pmt_trainer_save_adapter(wild, "x"));
    WRONG(pmt_trainer_write_adapter(wild, NULL, NULL));
    WRONG(pmt_trainer_save_state(wild, "x"));
    WRONG(pmt_trainer_write_state(wild, NULL, NULL));
    WRONG(pmt_job_progress(wild, &progress, sizeof progress));
    WRONG(pmt_job_event(wild, &event, sizeof event));
    WRONG(pmt_job_wait(wild, 0));
    WRONG(pmt_job_pause(wild, 1));
    WRONG(pmt_job_cancel(wild));
    CHECK(pmt_job_message(wild, text, sizeof text) == 0);
    WRONG(pmt_job_image_size(wild, &n, &n));
    WRONG(pmt_job_image(wild, 0, &image));
    WRONG(pmt_job_preview(wild, &image));
    CHECK(n == 7);
}

// What is no handle, was one or is of another kind is a status, and freeing it does nothing.
static void handles(const char *path) {
    int own = 0;
    void *wild[] = {NULL, &own, (void *)1, (void *)-1};
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        no_handle(wild[i]);
        pmt_context_free(wild[i]);
        pmt_settings_free(wild[i]);
        pmt_model_free(wild[i]);
        pmt_pipeline_free(wild[i]);
        pmt_trainer_free(wild[i]);
        pmt_job_free(wild[i]);
    }
    pmt_context *other = (pmt_context *)&own;
    WRONG(pmt_context_new(NULL, NULL));
    WRONG(pmt_context_new("\xff", &other));
    CHECK(other == NULL);
    OK(pmt_context_new(NULL, &other));
    pmt_context_free(other);
    no_handle(other);
    pmt_context_free(other);
    pmt_model *model = opened(path), *again;
    WRONG(pmt_trainer_add_prompt((pmt_trainer *)model, "x"));
    WRONG(pmt_pipeline_new((pmt_model *)context, NULL, (pmt_pipeline **)&other));
    pmt_context_free((pmt_context *)model); // another kind: it lives on
    pmt_trainer *trainer, *freed;
    OK(pmt_trainer_new(model, NULL, NULL, &trainer));
    freed = trainer;
    pmt_model_free(model);
    OK(pmt_trainer_add_prompt(trainer, "x")); // it keeps what it needs
    // A fork has the numbers, not what they stand for.
    pid_t child = getenv("PENTIMENTO_NO_DEVICES") ? -1 : fork();
    if (child == 0) _exit(pmt_trainer_add_prompt(trainer, "x") == PMT_STATUS_BAD_ARGUMENT ? 0 : 1);
    int status = -1;
    if (!getenv("PENTIMENTO_NO_DEVICES")) CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    pmt_trainer_free(trainer);
    pmt_trainer_free(trainer);
    WRONG(pmt_trainer_add_prompt(freed, "x"));
    again = opened(path);
    CHECK((void *)again != (void *)freed && again != model);
    pmt_model_free(again);
}

static void messages(void) {
    // The sentence begins with the path; two of its letters take two bytes each.
    pmt_model *model = (pmt_model *)text;
    char few[16];
    FAILS(pmt_model_open(context, "/no/s\xc3\xbc\xc3\x9f", &model), PMT_STATUS_MISSING, "/no/s\xc3\xbc\xc3\x9f");
    CHECK(model == NULL);
    size_t whole = strlen(message());
    CHECK(pmt_error_message(context, NULL, 0) == whole);
    memset(few, '#', sizeof few);
    CHECK(pmt_error_message(context, few, 7) == whole);
    CHECK(!strcmp(few, "/no/s") && few[6] == '#' && few[7] == '#'); // not half a letter, not a byte more
    CHECK(pmt_error_message(context, few, 8) == whole && !strcmp(few, "/no/s\xc3\xbc") && few[8] == '#');
    CHECK(pmt_error_message(context, few, 1) == whole && few[0] == 0);
    BAD(pmt_model_open(context, NULL, &model), "path: expected a pointer, found NULL");
    BAD(pmt_model_open(context, "\xff", &model), "path: expected UTF-8");
    BAD(pmt_model_open(context, "x", NULL), "model: expected a pointer");
    BAD(pmt_context_pipeline_cache(context, ""), "file: expected a path");
    OK(pmt_context_pipeline_cache(context, NULL));
    if (getenv("PENTIMENTO_NO_DEVICES")) return;
    uint32_t count = 0;
    OK(pmt_devices(NULL, sizeof(pmt_device), 0, &count));
    pmt_device *all = calloc(count + 1, sizeof *all);
    OK(pmt_devices(all, sizeof *all, count + 1, &count));
    for (uint32_t i = 0; i < count; i++) CHECK(all[i].index == i && all[i].name[0] && all[i].backend[0]);
    CHECK(all[count].name[0] == 0);
    if (count) WRONG(pmt_devices(NULL, sizeof *all, 1, &count));
    free(all);
}

static void settings(const char *path) {
    pmt_settings *s = (pmt_settings *)text;
    char value[64];
    size_t needed = 0;
    BAD(pmt_settings_new(context, "no such recipe", &s), "no such recipe");
    CHECK(s == NULL);
    OK(pmt_settings_new(context, "grpo", &s));
    OK(pmt_settings_get(s, "rank", NULL, 0, &needed));
    CHECK(needed >= 2);
    OK(pmt_settings_set(s, "optim.rate", "3e-4"));
    OK(pmt_settings_get(s, "optim.rate", value, sizeof value, &needed));
    CHECK(strtod(value, NULL) > 2.9e-4 && strtod(value, NULL) < 3.1e-4 && needed == strlen(value) + 1);
    BAD(pmt_settings_set(s, "optim.rat", "1"), "optim.rate");
    BAD(pmt_settings_set(s, "rank", "0"), "rank: expected ");
    BAD(pmt_settings_set(s, "rank", NULL), "value: ");
    BAD(pmt_settings_set(s, NULL, "1"), "name: ");
    BAD(pmt_settings_get(s, "no", value, sizeof value, NULL), "no: ");
    OK(pmt_settings_set(s, "rollout.group", "1"));
    BAD(pmt_settings_check(s), "group"); // each is possible, together they are not
    pmt_setting all;
    uint32_t count = 0;
    pmt_settings *defaults;
    OK(pmt_settings_new(context, NULL, &defaults));
    for (; pmt_settings_describe(count, &all, sizeof all) == PMT_STATUS_OK; count++) {
        CHECK(*all.name && *all.expected && *all.about && *all.source && all.unit);
        OK(pmt_settings_get(defaults, all.name, value, sizeof value, &needed));
        OK(pmt_settings_set(defaults, all.name, value));
    }
    CHECK(count > 40 && pmt_settings_describe(count, &all, sizeof all) == PMT_STATUS_MISSING);
    CHECK(pmt_settings_describe(0, &all, sizeof all + 8) == PMT_STATUS_BAD_ARGUMENT);
    pmt_model *model = opened(path);
    pmt_trainer *trainer;
    BAD(pmt_trainer_new(model, NULL, s, &trainer), "group");
    OK(pmt_settings_set(defaults, "width", "63"));
    BAD(pmt_trainer_new(model, NULL, defaults, &trainer), "image size: expected multiples of ");
    BAD(pmt_trainer_new(model, NULL, (pmt_settings *)model, &trainer), "settings: expected a live handle");
    FAILS(pmt_trainer_new(model, "no/reward", NULL, &trainer), PMT_STATUS_MISSING, "no/reward");
    CHECK(trainer == NULL);
    pmt_model_free(model);
    pmt_settings_free(s);
    pmt_settings_free(defaults);
}

static void references(const char *path) {
    pmt_model *model = opened(path);
    pmt_trainer *trainer;
    pmt_job *job;
    uint32_t width = 0, height = 0;
    unsigned char *rgb = calloc(7 * 100 + 30, 1); // 10 x 8, rows 100 apart, nothing after the last pixel
    pmt_image good = image_of(rgb, 7 * 100 + 30, 10, 8), odd;
    good.stride = 100;
    OK(pmt_trainer_new(model, NULL, NULL, &trainer));
    OK(pmt_trainer_resolution(trainer, &width, &height));
    CHECK(width > 0 && width == height);
    BAD(pmt_trainer_resolution(trainer, NULL, &height), "width: ");
    OK(pmt_trainer_add_reference(trainer, &good, NULL));
#define ODD(change, part) do { odd = good; odd.change; BAD(pmt_trainer_add_reference(trainer, &odd, NULL), part); } while (0)
    ODD(pixels = NULL, "image.pixels");
    ODD(width = 0, "image.width and height: expected 1 to");
    ODD(height = 1u << 31, "image.width and height");
    ODD(stride = 29, "image.stride: expected at least 30");
    ODD(stride = SIZE_MAX, "image.stride");
    ODD(bytes = 729, "image.bytes: expected at least 730");
    ODD(format = 7, "image.format: expected one of pmt_format");
    BAD(pmt_trainer_add_reference(trainer, NULL, NULL), "image: ");
    BAD(pmt_trainer_add_reference(trainer, &good, "\xff"), "caption: expected UTF-8");
    BAD(pmt_trainer_add_prompt(trainer, NULL), "prompt: ");
    BAD(pmt_trainer_save_adapter(trainer, "x"), "trainer: expected one that was started");
    BAD(pmt_trainer_save_state(trainer, "x"), "trainer: expected one that was started");
    BAD(pmt_trainer_draw(trainer, NULL, &job), "drawing: expected a pointer");
    BAD(pmt_trainer_start(trainer, NULL), "job: ");
    FAILS(pmt_trainer_resume(trainer, "no/state"), PMT_STATUS_IO, "no/state");
    pmt_trainer_free(trainer);
    pmt_model_free(model);
    free(rgb);
}

// Draws an image of the model's own size.
static void draw(pmt_pipeline *pipeline, uint64_t seed, unsigned char *rgb, uint32_t side) {
    const char *prompt = "icon of red apple";
    pmt_drawing wanted;
    pmt_job *job;
    OK(pmt_drawing_default(&wanted, sizeof wanted));
    wanted.prompts = &prompt;
    wanted.seeds = &seed;
    wanted.steps = 2;
    OK(pmt_pipeline_draw(pipeline, &wanted, &job));
    OK(pmt_job_wait(job, UINT32_MAX));
    pmt_image image = image_of(rgb, (size_t)side * side * 3, side, side);
    OK(pmt_job_image(job, 0, &image));
    CHECK(pmt_job_image(job, 1, &image) == PMT_STATUS_PENDING);
    pmt_job_free(job);
}

static int worst(const unsigned char *a, const unsigned char *b, size_t bytes) {
    int most = 0;
    for (size_t i = 0; i < bytes; i++) most = abs(a[i] - b[i]) > most ? abs(a[i] - b[i]) : most;
    return most;
}

// What a drawing may be asked for, and how it is watched.
static void drawings(pmt_pipeline *pipeline, uint32_t side, const unsigned char *first) {
    const char *prompts[2] = {"icon of red apple", "icon of blue fish"};
    const uint64_t seeds[2] = {7, 8};
    size_t bytes = (size_t)side * side * 3;
    unsigned char *rgb = calloc(bytes, 1);
    pmt_image image = image_of(rgb, bytes, side, side);
    pmt_drawing good, odd;
    pmt_job *job = (pmt_job *)rgb;
    pmt_progress now;
    pmt_event event;
    struct { pmt_drawing drawing; char more[8]; } larger;
    WRONG(pmt_drawing_default(&larger.drawing, sizeof larger)); // a newer program
    OK(pmt_drawing_default(&good, sizeof good));
    good.prompts = prompts, good.seeds = seeds, good.count = 2, good.steps = 2, good.preview = 1;
#undef ODD
#define ODD(change, part) do { odd = good; odd.change; BAD(pmt_pipeline_draw(pipeline, &odd, &job), part); } while (0)
    ODD(count = 0, "drawing.count: expected 1 to");
    ODD(prompts = NULL, "drawing.prompts");
    ODD(steps = 1001, "drawing.steps: expected 1 to 1000");
    ODD(batch = 0, "drawing.batch");
    ODD(guidance = (float)(1e300 * 1e300), "drawing.guidance");
    ODD(negative = "\xff", "drawing.negative: expected UTF-8");
    ODD(size = sizeof good + 8, "drawing.size: expected a structure of 8 to 64 bytes");
    ODD(size = 7, "drawing.size");
    CHECK(job == NULL);
    odd = good, odd.width = side + 1; // told by the job
    OK(pmt_pipeline_draw(pipeline, &odd, &job));
    FAILS(pmt_job_wait(job, UINT32_MAX), PMT_STATUS_BAD_FILE, "image size");
    CHECK(pmt_job_message(job, text, sizeof text) > 0 && strstr(text, "image size"));
    pmt_job_free(job);
    odd = good, odd.size = offsetof(pmt_drawing, batch), odd.batch = 99; // an older program's: defaults for the rest
    OK(pmt_pipeline_draw(pipeline, &odd, &job));
    OK(pmt_job_wait(job, UINT32_MAX));
    pmt_job_free(job);

    OK(pmt_pipeline_draw(pipeline, &good, &job));
    CHECK(pmt_job_image(job, 0, &image) == PMT_STATUS_PENDING || pmt_job_wait(job, 0) == PMT_STATUS_OK);
    int previews = 0, overs = 0;
    pmt_status status;
    do { // as a program with frames does
        OK(pmt_context_poll(context, 4000, 8000));
        while ((status = pmt_job_event(job, &event, sizeof event)) == PMT_STATUS_OK) {
            previews += event.kind == PMT_EVENT_KIND_PREVIEW, overs += event.kind == PMT_EVENT_KIND_OVER;
        }
        CHECK(status == PMT_STATUS_PENDING);
        OK(pmt_job_progress(job, &now, sizeof now));
        usleep(2000);
    } while (!overs);
    CHECK(now.phase == PMT_PHASE_OVER && now.status == PMT_STATUS_OK && previews == 2 && overs == 1);
    OK(pmt_context_poll(context, UINT32_MAX, UINT32_MAX));
    OK(pmt_job_preview(job, &image));
    OK(pmt_job_image(job, 0, &image));
    CHECK(!memcmp(rgb, first, bytes)); // previews and pace change nothing
    OK(pmt_job_image(job, 1, &image));
    CHECK(memcmp(rgb, first, bytes));
    uint32_t width = 0, height = 0;
    OK(pmt_job_image_size(job, &width, &height));
    CHECK(width == side && height == side);
    image.width--;
    BAD(pmt_job_image(job, 0, &image), "image.width and height: expected");
    CHECK(pmt_job_progress(job, (pmt_progress *)text, sizeof now + 8) == PMT_STATUS_BAD_ARGUMENT);
    pmt_job_free(job);
    free(rgb);
}

// Adapters come, change and go. `whole`: what is drawn with one at strength 1; `none`: without.
static void adapters(pmt_pipeline *pipeline, const char *adapter, uint32_t side, unsigned char *whole, const unsigned char *none) {
    size_t bytes = (size_t)side * side * 3;
    unsigned char *rgb = calloc(bytes, 1);
    uint32_t a = 0, b = 0;
    BAD(pmt_pipeline_attach(pipeline, adapter, (float)(1e300 * 1e300), &a), "strength: expected a finite number");
    FAILS(pmt_pipeline_attach(pipeline, "no/adapter", 1, &a), PMT_STATUS_IO, "no/adapter");
    FAILS(pmt_pipeline_attach_bytes(pipeline, (const uint8_t *)"damaged", 7, 1, &a), PMT_STATUS_BAD_FILE, "adapter");
    OK(pmt_pipeline_attach(pipeline, adapter, 1, &a));
    draw(pipeline, 7, whole, side);
    CHECK(memcmp(whole, none, bytes)); // it does something
    OK(pmt_pipeline_set_strength(pipeline, a, 0));
    draw(pipeline, 7, rgb, side);
    CHECK(worst(rgb, none, bytes) <= 1); // sums of other lengths may round otherwise
    OK(pmt_pipeline_set_strength(pipeline, a, -1));
    draw(pipeline, 7, rgb, side);
    CHECK(memcmp(rgb, whole, bytes) && memcmp(rgb, none, bytes));
    FILE *file = fopen(adapter, "rb");
    fseek(file, 0, SEEK_END);
    size_t len = (size_t)ftell(file);
    uint8_t *all = malloc(len);
    rewind(file);
    CHECK(fread(all, 1, len, file) == len);
    fclose(file);
    OK(pmt_pipeline_attach_bytes(pipeline, all, len, 2, &b)); // two less one is one
    free(all);
    CHECK(a != b);
    draw(pipeline, 7, rgb, side);
    CHECK(worst(rgb, whole, bytes) <= 1);
    OK(pmt_pipeline_detach(pipeline, a));
    BAD(pmt_pipeline_detach(pipeline, a), "id: expected that of an attached adapter");
    OK(pmt_pipeline_set_strength(pipeline, b, 1));
    draw(pipeline, 7, rgb, side);
    CHECK(!memcmp(rgb, whole, bytes));
    OK(pmt_pipeline_detach(pipeline, b));
    draw(pipeline, 7, rgb, side);
    CHECK(!memcmp(rgb, none, bytes));
    pmt_memory before, after;
    OK(pmt_context_memory(context, &before, sizeof before));
    OK(pmt_pipeline_unload(pipeline));
    OK(pmt_context_memory(context, &after, sizeof after));
    CHECK(after.now < before.now && after.peak == before.peak && before.weights + before.activations + before.other == before.now);
    free(rgb);
}

static void drawing(const char *path, const char *adapter, const char *device) {
    pmt_context *own = context;
    pmt_pipeline *pipeline;
    uint32_t side = 0;
    // Names are judged when the device is opened.
    OK(pmt_context_new("no such device", &context));
    BAD(pmt_context_open(context), "no adapter called `no such device`");
    pmt_context_free(context);
    OK(pmt_context_new(*device ? device : NULL, &context));
    OK(pmt_context_open(context));
    pmt_model *model = opened(path);
    OK(pmt_pipeline_new(model, NULL, &pipeline));
    OK(pmt_pipeline_resolution(pipeline, &side));
    size_t bytes = (size_t)side * side * 3;
    unsigned char *plain = calloc(bytes, 1), *with = calloc(bytes, 1);
    draw(pipeline, 7, plain, side);
    drawings(pipeline, side, plain);
    adapters(pipeline, adapter, side, with, plain);
    // Cancelled, and by the context.
    const char *prompt = "icon of ink";
    pmt_drawing endless;
    pmt_job *job;
    OK(pmt_drawing_default(&endless, sizeof endless));
    endless.prompts = &prompt, endless.steps = 1000;
    for (int whole = 0; whole < 2; whole++) {
        OK(pmt_pipeline_draw(pipeline, &endless, &job));
        CHECK(pmt_job_wait(job, 50) == PMT_STATUS_PENDING);
        OK(pmt_job_pause(job, 1));
        OK(pmt_job_pause(job, 0));
        OK(whole ? pmt_context_cancel(context) : pmt_job_cancel(job));
        CHECK(pmt_job_wait(job, UINT32_MAX) == PMT_STATUS_CANCELLED);
        pmt_job_free(job);
    }
    // Freed in any order: what is left works until it is freed, too.
    OK(pmt_pipeline_draw(pipeline, &endless, &job));
    pmt_context_free(context);
    pmt_model_free(model);
    pmt_pipeline_free(pipeline);
    context = own;
    CHECK(pmt_job_wait(job, UINT32_MAX) == PMT_STATUS_CANCELLED);
    pmt_job_free(job);
    free(plain);
    free(with);
}

struct bytes { uint8_t *data; size_t len; };
static int32_t take(void *user, const uint8_t *data, size_t len) {
    struct bytes *b = user;
    free(b->data);
    b->data = malloc(len);
    b->len = len;
    memcpy(b->data, data, len);
    return 0;
}
static int32_t refuse(void *user, const uint8_t *data, size_t len) { return (void)user, (void)data, len ? -5 : 0; }

static pmt_trainer *training(pmt_model *model, pmt_settings *s) {
    pmt_trainer *trainer;
    unsigned char white[12];
    memset(white, 255, sizeof white);
    pmt_image image = image_of(white, sizeof white, 2, 2);
    OK(pmt_trainer_new(model, NULL, s, &trainer));
    OK(pmt_trainer_add_reference(trainer, &image, "icon of snow"));
    OK(pmt_trainer_add_prompt(trainer, "icon of a white wall"));
    return trainer;
}

// Polls as frames would until a job is over; the status it ended with.
static pmt_status frames(pmt_job *job, uint32_t gpu_us) {
    pmt_progress now;
    do {
        OK(pmt_context_poll(context, gpu_us, 4000));
        OK(pmt_job_progress(job, &now, sizeof now));
        usleep(1000);
    } while (now.status == PMT_STATUS_PENDING);
    OK(pmt_context_poll(context, UINT32_MAX, UINT32_MAX));
    return (pmt_status)now.status;
}

// Pace, drawing in between, cancelling and going on from a saved state must not change what is learnt.
static void trainings(const char *path, const char *device) {
    pmt_context *own = context;
    char file[] = "/tmp/pentimento-state-XXXXXX";
    int made = mkstemp(file);
    struct bytes adapter[4] = {{0}}, state = {0};
    pmt_job *job, *second;
    OK(pmt_context_new(*device ? device : NULL, &context));
    pmt_model *model = opened(path);
    pmt_settings *s = short_settings();
    pmt_estimate estimate;
    for (int k = 0; k < 4; k++) {
        pmt_trainer *trainer = training(model, s);
        if (k == 0) {
            OK(pmt_trainer_estimate(trainer, &estimate, sizeof estimate));
            CHECK(estimate.peak > estimate.weights + estimate.activations && estimate.work_iteration > 1e9);
        }
        if (k == 3) OK(pmt_trainer_resume(trainer, file));
        OK(pmt_trainer_start(trainer, &job));
        BAD(pmt_trainer_add_prompt(trainer, "late"), "prompts: expected all of them before");
        BAD(pmt_trainer_resume(trainer, file), "a state: expected all of them before");
        if (k == 0) OK(pmt_job_wait(job, UINT32_MAX));
        if (k == 1) OK(frames(job, 2000));
        if (k == 2) { // a second start, a drawing in the middle, a state from a job that is cancelled
            OK(pmt_trainer_start(trainer, &second));
            FAILS(pmt_job_wait(second, UINT32_MAX), PMT_STATUS_BAD_FILE, "training: expected one that is not started");
            pmt_job_free(second);
            while (pmt_trainer_write_state(trainer, take, &state) != PMT_STATUS_OK) usleep(1000);
            const char *prompt = "icon of snow";
            pmt_drawing wanted;
            OK(pmt_drawing_default(&wanted, sizeof wanted));
            wanted.prompts = &prompt, wanted.steps = 1;
            OK(pmt_trainer_draw(trainer, &wanted, &second));
            OK(pmt_job_wait(second, UINT32_MAX));
            pmt_job_free(second);
            OK(pmt_trainer_save_state(trainer, file));
            FAILS(pmt_trainer_write_state(trainer, refuse, NULL), PMT_STATUS_IO, "it gave -5");
            BAD(pmt_trainer_write_state(trainer, NULL, NULL), "write: expected a function");
            OK(pmt_job_cancel(job));
            pmt_status ended = pmt_job_wait(job, UINT32_MAX);
            CHECK(ended == PMT_STATUS_CANCELLED || ended == PMT_STATUS_OK);
            pmt_job_free(job);
            OK(pmt_trainer_start(trainer, &job));
            OK(pmt_job_wait(job, UINT32_MAX));
        }
        if (k == 3) OK(pmt_job_wait(job, UINT32_MAX));
        pmt_progress now;
        OK(pmt_job_progress(job, &now, sizeof now));
        CHECK(now.iteration == 1 && now.iterations == 1);
        if (k < 2) CHECK(now.metrics.gradient_norm > 0 && now.warm_loss > 0); // all of it by one job
        OK(pmt_trainer_write_adapter(trainer, take, &adapter[k]));
        FAILS(pmt_trainer_save_adapter(trainer, "no/folder/x"), PMT_STATUS_MISSING, "no/folder");
        CHECK(adapter[k].len == adapter[0].len && !memcmp(adapter[k].data, adapter[0].data, adapter[0].len));
        pmt_job_free(job);
        pmt_trainer_free(trainer);
    }
    // Another training's state, damaged ones, less memory than would do: told by the job.
    const char *const wrong[][4] = {{"rank", "4", "rank: expected 3, found 4"}, {"memory", "1MB", "memory: expected at least "}};
    for (int k = 0; k < 3; k++) {
        if (k < 2) OK(pmt_settings_set(s, wrong[k][0], wrong[k][1]));
        if (k == 2) OK(pmt_settings_set(s, "memory", "none"));
        pmt_trainer *trainer = training(model, s);
        if (k == 0) OK(pmt_trainer_resume_bytes(trainer, state.data, state.len));
        if (k == 2) OK(pmt_trainer_resume_bytes(trainer, state.data, 100));
        OK(pmt_trainer_start(trainer, &job));
        FAILS(pmt_job_wait(job, UINT32_MAX), PMT_STATUS_BAD_FILE, k < 2 ? wrong[k][2] : "expected a safetensors file");
        CHECK(pmt_trainer_save_adapter(trainer, "/tmp/x") != PMT_STATUS_OK);
        pmt_job_free(job);
        pmt_trainer_free(trainer);
    }
    for (int k = 0; k < 4; k++) free(adapter[k].data);
    free(state.data);
    pmt_settings_free(s);
    pmt_model_free(model);
    close(made);
    unlink(file);
    pmt_context_free(context);
    context = own;
}

// A program's own archive: the model's files from memory and through a function.
struct archive { pmt_file *files; char (*paths)[512]; uint32_t count; };

static void collect(struct archive *a, const char *root, const char *inside) {
    char path[512];
    FILE *list;
    snprintf(path, sizeof path, "cd '%s' && find . -type f ! -path './reward/*' ! -path './references/*' | cut -c3-", root);
    list = popen(path, "r");
    while (list && fgets(path, sizeof path, list)) {
        path[strcspn(path, "\n")] = 0;
        a->files = realloc(a->files, (a->count + 1) * sizeof *a->files);
        a->paths = realloc(a->paths, (a->count + 1) * sizeof *a->paths);
        snprintf(a->paths[a->count], 512, "%.250s/%.250s", root, path);
        struct stat info;
        CHECK(stat(a->paths[a->count], &info) == 0);
        a->files[a->count++] = (pmt_file){strdup(path), NULL, (uint64_t)info.st_size};
    }
    if (list) pclose(list);
    (void)inside;
}
static int32_t read_file(void *user, uint32_t index, uint64_t offset, void *into, size_t len) {
    struct archive *a = user;
    FILE *file = fopen(a->paths[index], "rb");
    int32_t failed = !file || fseek(file, (long)offset, SEEK_SET) || fread(into, 1, len, file) != len;
    if (file) fclose(file);
    return failed;
}
static int32_t read_nothing(void *user, uint32_t index, uint64_t offset, void *into, size_t len) {
    return (void)user, (void)index, (void)offset, (void)into, (void)len, 1;
}

static void archives(const char *path, const char *device) {
    pmt_context *own = context;
    struct archive a = {0};
    pmt_model *model = NULL, *plain;
    pmt_pipeline *pipeline;
    uint32_t side = 0;
    OK(pmt_context_new(*device ? device : NULL, &context));
    collect(&a, path, "");
    BAD(pmt_model_open_files(context, a.files, a.count, NULL, NULL, NULL, &model), "read: expected a function");
    FAILS(pmt_model_open_files(context, a.files, a.count, NULL, read_nothing, &a, &model), PMT_STATUS_IO, "the program's reader could not");
    pmt_file odd = {"../outside", "x", 1};
    BAD(pmt_model_open_files(context, &odd, 1, NULL, NULL, NULL, &model), "mounted file: expected a name such as");
    CHECK(model == NULL);
    for (uint32_t i = 0; i < a.count; i += 2) { // every other file in memory
        void *data = malloc(a.files[i].bytes + 1);
        CHECK(read_file(&a, i, 0, data, a.files[i].bytes) == 0);
        a.files[i].data = data;
    }
    OK(pmt_model_open_files(context, a.files, a.count, NULL, read_file, &a, &model));
    plain = opened(path);
    unsigned char *rgb[2] = {0};
    pmt_settings *s;
    OK(pmt_settings_new(context, NULL, &s));
    OK(pmt_settings_set(s, "stream", "true")); // from memory to memory
    for (int k = 0; k < 2; k++) {
        OK(pmt_pipeline_new(k ? plain : model, k ? NULL : s, &pipeline));
        OK(pmt_pipeline_resolution(pipeline, &side));
        rgb[k] = calloc((size_t)side * side, 3);
        draw(pipeline, 7, rgb[k], side);
        pmt_pipeline_free(pipeline);
    }
    CHECK(!memcmp(rgb[0], rgb[1], (size_t)side * side * 3));
    pmt_settings_free(s);
    pmt_model_free(model);
    pmt_model_free(plain);
    pmt_context_free(context);
    context = own;
    for (uint32_t i = 0; i < a.count; i++) free((void *)a.files[i].data), free((void *)a.files[i].name);
    free(a.files), free(a.paths), free(rgb[0]), free(rgb[1]);
}

// A single file under a relative path, with the reward beside it; the program moves before the start. What is built is kept
// under a relative path, too; and somebody listens.
static void heard(void *user, const char *line) { *(int *)user += strlen(line) > 3; }
static void away(const char *folder, const char *device) {
    pmt_context *own = context;
    int lines = 0;
    OK(pmt_context_new(*device ? device : NULL, &context));
    CHECK(chdir(folder) == 0);
    OK(pmt_context_pipeline_cache(context, "pipelines"));
    OK(pmt_context_log(context, heard, &lines));
    pmt_model *model = opened("model.gguf");
    pmt_settings *s = short_settings();
    OK(pmt_settings_set(s, "iterations", "0"));
    OK(pmt_settings_set(s, "seconds", "3600"));
    pmt_trainer *trainer;
    pmt_job *job;
    pmt_progress now = {0};
    OK(pmt_trainer_new(model, "reward", s, &trainer));
    pmt_image image = image_of((void *)"rgb", 3, 1, 1);
    OK(pmt_trainer_add_reference(trainer, &image, "a cat"));
    CHECK(chdir("/") == 0);
    OK(pmt_trainer_start(trainer, &job));
    while (now.warm_loss == 0 && !failures) {
        OK(pmt_job_progress(job, &now, sizeof now));
        usleep(1000);
    }
    CHECK(now.iterations == 0 && lines >= 1);
    pmt_job_free(job); // cancels it
    pmt_trainer_free(trainer);
    pmt_settings_free(s);
    pmt_model_free(model);
    pmt_context_free(context);
    context = own;
}

// Several threads at one context; the others only look.
static volatile int over;
static void *look(void *job) {
    pmt_progress now;
    pmt_event event;
    while (!over) {
        pmt_context_poll(context, 2000, 2000);
        pmt_job_progress(job, &now, sizeof now);
        pmt_job_event(job, &event, sizeof event);
        pmt_error_message(context, NULL, 0);
        usleep(500);
    }
    return NULL;
}
static void race(const char *path, const char *device) {
    pmt_context *own = context;
    OK(pmt_context_new(*device ? device : NULL, &context));
    pmt_model *model = opened(path);
    pmt_settings *s = short_settings();
    pmt_trainer *trainer = training(model, s);
    pmt_job *job;
    pthread_t threads[3];
    OK(pmt_trainer_start(trainer, &job));
    for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, look, job) == 0);
    for (int i = 0; i < 40; i++) {
        OK(pmt_job_pause(job, i % 2 == 0));
        usleep(5000);
    }
    OK(pmt_job_pause(job, 0));
    usleep(300000);
    OK(pmt_job_cancel(job));
    pmt_status status = pmt_job_wait(job, UINT32_MAX);
    CHECK(status == PMT_STATUS_CANCELLED || status == PMT_STATUS_OK);
    over = 1;
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    pmt_job_free(job);
    pmt_trainer_free(trainer);
    pmt_settings_free(s);
    pmt_model_free(model);
    pmt_context_free(context);
    context = own;
}

// AddressSanitizer must stop this: room for 4 bytes where 64 are promised.
static void overflow(void) {
    char *small = malloc(4);
    pmt_model_open(context, "some/long/path/to/a/model", NULL);
    pmt_error_message(context, small, 64);
    printf("wrote past a buffer unseen: %s\n", small);
    free(small);
}

int main(int argc, char **argv) {
    CHECK(pmt_abi_version() == PMT_ABI_VERSION);
    CHECK(strlen(pmt_version()) >= 5);
    OK(pmt_context_new(NULL, &context));
    CHECK(pmt_error_message(context, text, sizeof text) == 0 && text[0] == 0);
    if (argc == 2 && !strcmp(argv[1], "overflow")) {
        overflow();
    } else if (argc == 2 && !strcmp(argv[1], "undefined")) {
        volatile int most = 2147483647;
        printf("wrapped unseen: %d\n", most + argc);
    } else if (argc == 4 && !strcmp(argv[1], "away")) {
        away(argv[2], argv[3]);
    } else if (argc == 4 && !strcmp(argv[1], "race")) {
        race(argv[2], argv[3]);
    } else if (argc == 2 || argc == 4) {
        handles(argv[1]);
        messages();
        settings(argv[1]);
        references(argv[1]);
        if (argc == 4) drawing(argv[1], argv[2], argv[3]);
        if (argc == 4) trainings(argv[1], argv[3]);
        if (argc == 4) archives(argv[1], argv[3]);
    } else {
        return 2;
    }
    pmt_context_free(context);
    printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
