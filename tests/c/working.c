// What the C interface promises of work on a device, checked from C. Run by tests/tests/ffi.rs, under AddressSanitizer where there is one.
//
//   working MODEL ADAPTER DEVICE  draws and trains, with an adapter that fits the model; DEVICE may be ""
//   working away FOLDER DEVICE    trains on FOLDER/model.gguf, from FOLDER and then from elsewhere
//   working race MODEL DEVICE     polls, pauses and cancels from several threads
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

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
    FAILS(pmt_job_wait(job, UINT32_MAX), PMT_STATUS_BAD_ARGUMENT, "image size");
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
            FAILS(pmt_job_wait(second, UINT32_MAX), PMT_STATUS_BAD_ARGUMENT, "training: expected one that is not started");
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
        FAILS(pmt_job_wait(job, UINT32_MAX), k == 1 ? PMT_STATUS_BAD_ARGUMENT : PMT_STATUS_BAD_FILE, k < 2 ? wrong[k][2] : "expected a safetensors file");
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
static atomic_int over;
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
    pmt_progress now = {.phase = 0};
    while (now.phase < PMT_PHASE_WARM && !failures) {
        OK(pmt_job_progress(job, &now, sizeof now));
        usleep(1000);
    }
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

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    OK(pmt_context_new(NULL, &context));
    if (!strcmp(argv[1], "away")) {
        away(argv[2], argv[3]);
    } else if (!strcmp(argv[1], "race")) {
        race(argv[2], argv[3]);
    } else {
        drawing(argv[1], argv[2], argv[3]);
        trainings(argv[1], argv[3]);
        archives(argv[1], argv[3]);
    }
    pmt_context_free(context);
    return ended();
}
