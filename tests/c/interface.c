// What the C interface promises, checked from C. Run by tests/tests/ffi.rs, under AddressSanitizer where there is one.
//
//   interface MODEL      everything that needs no GPU; with PENTIMENTO_NO_DEVICES nothing that valgrind would blame on a driver or a fork
//   interface overflow   lies about a buffer's length: AddressSanitizer must object
//   interface undefined  adds one to the largest int: UndefinedBehaviorSanitizer must object
#define _GNU_SOURCE
#include "check.h"
#include <sys/wait.h>
#include <unistd.h>

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
    WRONG(pmt_context_limit_memory(wild, 1));
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
    uint32_t count = 9;
    char folder[4096];
    snprintf(folder, sizeof folder, "%s/references/mono", path);
    OK(pmt_trainer_add_references(trainer, folder, NULL, &count));
    CHECK(count > 15);
    OK(pmt_trainer_add_references(trainer, folder, "an icon", NULL));
    FAILS(pmt_trainer_add_references(trainer, "no/folder", NULL, &count), PMT_STATUS_MISSING, "no/folder");
    BAD(pmt_trainer_add_references(trainer, NULL, NULL, &count), "path: ");
    BAD(pmt_trainer_add_references(trainer, folder, "\xff", &count), "caption: expected UTF-8");
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
    if (argc != 2) return 2;
    if (!strcmp(argv[1], "overflow")) {
        overflow();
    } else if (!strcmp(argv[1], "undefined")) {
        volatile int most = 2147483647;
        printf("wrapped unseen: %d\n", most + argc);
    } else {
        handles(argv[1]);
        messages();
        settings(argv[1]);
        references(argv[1]);
    }
    pmt_context_free(context);
    return ended();
}
