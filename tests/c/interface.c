// What the C interface promises, checked from C. Run by tests/tests/ffi.rs, under AddressSanitizer where there is one.
//
//   interface MODEL                 everything that needs no GPU
//   interface MODEL ADAPTER DEVICE  and drawing and training, with an adapter that fits the model; DEVICE may be ""
//   interface away FOLDER DEVICE    trains on FOLDER/model.gguf, from FOLDER and then from elsewhere
//   interface overflow              lies about a buffer's length: AddressSanitizer must object
#define _GNU_SOURCE
#include <pentimento.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
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

static void nulls(const char *model) {
    pmt_config config;
    pmt_context *none = context;
    pmt_trainer *trainer = (pmt_trainer *)&config;
    pmt_pipeline *pipeline = (pmt_pipeline *)&config;
    unsigned char rgb[3];
    uint32_t side;
    CHECK(pmt_context_new(NULL, NULL) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pmt_context_new("\xff", &none) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(none == NULL);
    CHECK(pmt_context_cancel(NULL) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pmt_context_pipeline_cache(NULL, "x") == PMT_STATUS_BAD_ARGUMENT);
    BAD(pmt_context_pipeline_cache(context, "\xff"), "file: expected UTF-8");
    BAD(pmt_context_pipeline_cache(context, ""), "file: expected a path");
    OK(pmt_context_pipeline_cache(context, NULL));
    CHECK(pmt_trainer_cancel(NULL, 1) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pmt_pipeline_cancel(NULL, 1) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pmt_error_message(NULL, text, sizeof text) == 0);
    CHECK(pmt_config_default(NULL, sizeof config) == PMT_STATUS_BAD_ARGUMENT);
    OK(pmt_config_default(&config, sizeof config));
    CHECK(pmt_trainer_new(NULL, model, NULL, &config, &trainer) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(trainer == NULL);
    CHECK(pmt_pipeline_new(NULL, model, NULL, &pipeline) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pipeline == NULL);
    BAD(pmt_trainer_new(context, NULL, NULL, &config, &trainer), "model: expected a pointer, found NULL");
    BAD(pmt_trainer_new(context, model, NULL, NULL, &trainer), "config: ");
    BAD(pmt_trainer_new(context, model, NULL, &config, NULL), "trainer: ");
    BAD(pmt_trainer_new(context, "\xff", NULL, &config, &trainer), "model: expected UTF-8");
    BAD(pmt_pipeline_new(context, NULL, NULL, &pipeline), "model: ");
    BAD(pmt_pipeline_new(context, model, NULL, NULL), "pipeline: ");
    pipeline = (pmt_pipeline *)&config;
    CHECK(pmt_pipeline_new_adapted(NULL, model, NULL, NULL, 0, &pipeline) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pipeline == NULL);
    const char *paths[2] = {"no/a", NULL};
    const float strengths[2] = {0.5f, (float)(1e300 * 1e300)};
    BAD(pmt_pipeline_new_adapted(context, NULL, NULL, NULL, 0, &pipeline), "model: ");
    BAD(pmt_pipeline_new_adapted(context, model, NULL, NULL, 0, NULL), "pipeline: ");
    BAD(pmt_pipeline_new_adapted(context, model, NULL, NULL, 1, &pipeline), "adapters: expected a pointer, found NULL");
    BAD(pmt_pipeline_new_adapted(context, model, paths, NULL, 2, &pipeline), "adapters: expected a pointer, found NULL");
    BAD(pmt_pipeline_new_adapted(context, model, paths, strengths, SIZE_MAX, &pipeline), "adapters: expected fewer adapters");
    paths[1] = "\xff";
    BAD(pmt_pipeline_new_adapted(context, model, paths, NULL, 2, &pipeline), "adapters: expected UTF-8");
    paths[1] = "no/b";
    BAD(pmt_pipeline_new_adapted(context, model, paths, strengths, 2, &pipeline), "strengths: expected finite numbers");
    CHECK(pmt_trainer_add_reference(NULL, rgb, 1, 1, 3, NULL) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pmt_trainer_add_prompt(NULL, "x") == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pmt_trainer_step(NULL, NULL, 0) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pmt_trainer_resolution(NULL, &side, &side) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pmt_trainer_save_adapter(NULL, "x") == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pmt_trainer_save_state(NULL, "x") == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pmt_trainer_resume(NULL, "x") == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pmt_trainer_generate(NULL, "x", 0, 1, 1, 8, 8, rgb, 3) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pmt_pipeline_resolution(NULL, &side) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pmt_pipeline_generate(NULL, "x", 0, 1, 1, 8, 8, rgb, 3) == PMT_STATUS_BAD_ARGUMENT);
    pmt_trainer_free(NULL);
    pmt_pipeline_free(NULL);
    pmt_context_free(NULL);
}

// What is no handle, was one or is of another kind is a status, and freeing it does nothing.
static void wrong_handles(const char *model) {
    pmt_config config;
    pmt_trainer *trainer, *freed;
    pmt_context *other;
    uint32_t side;
    unsigned char rgb[3] = {0};
    memset(&config, 0x5a, sizeof config);
    pmt_trainer *wild[] = {(pmt_trainer *)&config, (pmt_trainer *)1, (pmt_trainer *)-1, (pmt_trainer *)context};
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        CHECK(pmt_trainer_step(wild[i], NULL, 0) == PMT_STATUS_BAD_ARGUMENT);
        CHECK(pmt_trainer_cancel(wild[i], 1) == PMT_STATUS_BAD_ARGUMENT);
        CHECK(pmt_trainer_save_adapter(wild[i], "x") == PMT_STATUS_BAD_ARGUMENT);
        CHECK(pmt_pipeline_resolution((pmt_pipeline *)wild[i], &side) == PMT_STATUS_BAD_ARGUMENT);
        pmt_trainer_free(wild[i]);
        pmt_pipeline_free((pmt_pipeline *)wild[i]);
    }
    OK(pmt_config_default(&config, sizeof config));
    CHECK(pmt_trainer_new((pmt_context *)&config, model, NULL, &config, &trainer) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(trainer == NULL && pmt_error_message((pmt_context *)&config, text, sizeof text) == 0);
    OK(pmt_trainer_new(context, model, NULL, &config, &trainer));
    freed = trainer;
    pmt_context_free((pmt_context *)trainer); // another kind: it lives on
    OK(pmt_trainer_resolution(trainer, &side, &side));
    pmt_trainer_free(trainer);
    pmt_trainer_free(trainer);
    CHECK(pmt_trainer_add_reference(freed, rgb, 1, 1, 3, NULL) == PMT_STATUS_BAD_ARGUMENT);
    OK(pmt_trainer_new(context, model, NULL, &config, &trainer));
    CHECK(trainer != freed && pmt_trainer_add_prompt(freed, "x") == PMT_STATUS_BAD_ARGUMENT);
    pmt_trainer_free(trainer);
    OK(pmt_context_new(NULL, &other));
    pmt_context_free(other);
    CHECK(pmt_context_cancel(other) == PMT_STATUS_BAD_ARGUMENT && pmt_error_message(other, text, sizeof text) == 0);
    pmt_context_free(other);
    // A fork has the numbers, not what they stand for.
    OK(pmt_trainer_new(context, model, NULL, &config, &trainer));
    pid_t child = fork();
    if (child == 0) _exit(pmt_trainer_add_prompt(trainer, "x") == PMT_STATUS_BAD_ARGUMENT ? 0 : 1);
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    OK(pmt_trainer_add_prompt(trainer, "x"));
    pmt_trainer_free(trainer);
}

static void messages(void) {
    // The sentence begins with the path; two of its letters take two bytes each.
    pmt_trainer *trainer = (pmt_trainer *)text;
    pmt_config config;
    char few[16];
    OK(pmt_config_default(&config, sizeof config));
    FAILS(pmt_trainer_new(context, "no/s\xc3\xbc\xc3\x9f", NULL, &config, &trainer), PMT_STATUS_MISSING, "no/s\xc3\xbc\xc3\x9f");
    CHECK(trainer == NULL);
    size_t whole = strlen(message());
    CHECK(pmt_error_message(context, NULL, 0) == whole);
    memset(few, '#', sizeof few);
    CHECK(pmt_error_message(context, few, 6) == whole);
    CHECK(!strcmp(few, "no/s") && few[5] == '#' && few[6] == '#'); // not half a letter, not a byte more
    CHECK(pmt_error_message(context, few, 7) == whole && !strcmp(few, "no/s\xc3\xbc") && few[7] == '#');
    CHECK(pmt_error_message(context, few, 1) == whole && few[0] == 0);
}

static void settings(const char *model) {
    struct { pmt_config config; char more[16]; } larger;
    pmt_config config, before;
    pmt_trainer *trainer;
    memset(&larger, '#', sizeof larger);
    CHECK(pmt_config_default(&larger.config, sizeof larger) == PMT_STATUS_BAD_ARGUMENT); // a newer program
    CHECK(larger.more[0] == '#' && larger.config.rank == 0x23232323);
    memset(&config, '#', sizeof config);
    OK(pmt_config_default(&config, offsetof(pmt_config, rank))); // an older program
    memset(&before, '#', sizeof before);
    CHECK(config.width == 0 && config.rank == before.rank);
    OK(pmt_config_default(&config, sizeof config));
    before = config;
#define REFUSED(field, value, part)                                            \
    config.field = value;                                                      \
    BAD(pmt_trainer_new(context, model, NULL, &config, &trainer), part);       \
    config = before
    REFUSED(size, sizeof config + 8, "config.size");
    REFUSED(base_bits, 5, "base_bits");
    REFUSED(recompute, 4, "recompute: expected 0 to 3, found 4");
    REFUSED(size, 7, "config.size");
    for (size_t size = 8; size < sizeof config; size++) { // only whole fields
        config.size = size;
        if (size % (size < offsetof(pmt_config, width) ? 8 : 4) == 0) continue;
        CHECK(pmt_config_default(&larger.config, size) == PMT_STATUS_BAD_ARGUMENT);
        BAD(pmt_trainer_new(context, model, NULL, &config, &trainer), "config.size: expected a structure of 8 to 120 bytes, whole");
    }
    config = before;
    REFUSED(rank, 0, "rank: expected 1 to 4096, found 0");
    REFUSED(recipe, 99, "recipe: expected one of pmt_recipe, found 99");
    REFUSED(width, 63, "image size: expected multiples of ");
    REFUSED(guidance, -1, "guidance");
    REFUSED(max_seconds, -1, "max_seconds");
    REFUSED(fit, 3, "fit: expected 0, 1 or 2, found 3");
    REFUSED(background, 0x1000000, "background: expected a colour");
    CHECK(config.fit == 0 && config.background == 0xffffff);
    for (uint32_t recipe = PMT_RECIPE_DEFAULT; recipe <= PMT_RECIPE_SUPERVISED; recipe++) {
        OK(pmt_config_recipe(&config, sizeof config, recipe));
        CHECK(config.recipe == recipe && config.size == sizeof config);
        OK(pmt_trainer_new(context, model, NULL, &config, &trainer));
        pmt_trainer_free(trainer);
    }
    config.rank = 7;
    CHECK(pmt_config_recipe(&config, sizeof config, 99) == PMT_STATUS_BAD_ARGUMENT && config.rank == 7);
    OK(pmt_config_recipe(&config, sizeof config, PMT_RECIPE_GRPO));
    before = config;
    REFUSED(group, 1, "group");
    REFUSED(window, 100, "window");
    OK(pmt_config_default(&config, sizeof config));
    before = config;
    config.size = offsetof(pmt_config, rank); // an older program's: defaults for the rest
    config.rank = 0;
    OK(pmt_trainer_new(context, model, NULL, &config, &trainer));
    pmt_trainer_free(trainer);
    FAILS(pmt_trainer_new(context, model, "no/reward", &before, &trainer), PMT_STATUS_MISSING, "no/reward");
}

static void references(const char *model) {
    pmt_config config;
    pmt_trainer *trainer;
    uint32_t width = 0, height = 0;
    unsigned char *rgb = calloc(7 * 100 + 30, 1); // 10 x 8, rows 100 apart, nothing after the last pixel
    OK(pmt_config_default(&config, sizeof config));
    OK(pmt_trainer_new(context, model, NULL, &config, &trainer));
    OK(pmt_trainer_resolution(trainer, &width, &height));
    CHECK(width > 0 && width == height);
    BAD(pmt_trainer_resolution(trainer, NULL, &height), "width: ");
    OK(pmt_trainer_add_reference(trainer, rgb, 10, 8, 100, NULL));
    BAD(pmt_trainer_add_reference(trainer, NULL, 10, 8, 100, NULL), "pixels: ");
    BAD(pmt_trainer_add_reference(trainer, rgb, 0, 8, 100, NULL), "image size: expected sides of 1 to");
    BAD(pmt_trainer_add_reference(trainer, rgb, 10, 1u << 31, 100, NULL), "image size");
    BAD(pmt_trainer_add_reference(trainer, rgb, 10, 8, 29, NULL), "stride: expected at least 30");
    BAD(pmt_trainer_add_reference(trainer, rgb, 10, 8, SIZE_MAX, NULL), "stride");
    BAD(pmt_trainer_add_reference(trainer, rgb, 10, 8, SIZE_MAX / 8, NULL), "pixels: expected fewer bytes");
    BAD(pmt_trainer_add_reference(trainer, rgb, 10, 8, 100, "\xff"), "caption: expected UTF-8");
    BAD(pmt_trainer_add_prompt(trainer, NULL), "prompt: ");
    BAD(pmt_trainer_save_adapter(trainer, "x"), "trainer: expected a first step");
    BAD(pmt_trainer_generate(trainer, "x", 0, 1, 1, 8, 8, rgb, 3), "trainer: expected a first step");
    BAD(pmt_trainer_step(trainer, (pmt_progress *)text, sizeof(pmt_progress) + 8), "progress: expected a structure of");
    pmt_trainer_free(trainer);
    free(rgb);
}

// An adapter at several strengths, alone and added up. `whole`: what it draws at strength 1; `none`: the model without.
static void strengths(const char *model, const char *adapter, uint32_t side, const unsigned char *whole, const unsigned char *none) {
    const char *twice[2] = {adapter, adapter};
    const struct { size_t count; float of[2]; const unsigned char *same, *other; } cases[] = {
        {1, {1, 0}, whole, none}, {1, {0, 0}, none, whole}, {0, {0, 0}, none, whole}, {2, {1, 0}, whole, none},
        {1, {-1, 0}, NULL, whole}, {1, {2, 0}, NULL, whole}, {2, {1, 1}, NULL, whole},
    };
    size_t bytes = (size_t)side * side * 3;
    unsigned char *rgb = calloc(bytes, 1);
    pmt_pipeline *pipeline;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        OK(pmt_pipeline_new_adapted(context, model, twice, cases[i].of, cases[i].count, &pipeline));
        OK(pmt_pipeline_generate(pipeline, "icon of red apple", 7, 2, 4.5f, side, side, rgb, bytes));
        int worst = 0;
        for (size_t k = 0; cases[i].same && k < bytes; k++) {
            int off = abs(rgb[k] - cases[i].same[k]);
            worst = off > worst ? off : worst;
        }
        CHECK(worst <= 1); // sums of other lengths may round otherwise
        CHECK(memcmp(rgb, cases[i].other, bytes));
        pmt_pipeline_free(pipeline);
    }
    OK(pmt_pipeline_new_adapted(context, model, twice, NULL, 1, &pipeline)); // NULL: 1 for all
    OK(pmt_pipeline_generate(pipeline, "icon of red apple", 7, 2, 4.5f, side, side, rgb, bytes));
    CHECK(!memcmp(rgb, whole, bytes));
    pmt_pipeline_free(pipeline);
    free(rgb);
    twice[1] = "no/adapter";
    FAILS(pmt_pipeline_new_adapted(context, model, twice, NULL, 2, &pipeline), PMT_STATUS_IO, "no/adapter");
    CHECK(pipeline == NULL);
}

// Draws without end, for a person to stop.
static void *endless(void *pipeline) {
    static unsigned char rgb[64 * 64 * 3];
    pmt_status status;
    do status = pmt_pipeline_generate(pipeline, "icon of ink", 1, 1000, 4.5f, 64, 64, rgb, sizeof rgb);
    while (status == PMT_STATUS_BAD_ARGUMENT); // busy
    return (void *)(intptr_t)status;
}

// Stops what is in progress on one handle; the other one goes on.
static void cancelled(pmt_pipeline *pipeline, pmt_pipeline *other, uint32_t side) {
    static unsigned char rgb[64 * 64 * 3];
    pthread_t thread;
    void *status = NULL;
    if (side != 64) return;
    for (int whole = 0; whole < 2; whole++) {
        CHECK(pthread_create(&thread, NULL, endless, pipeline) == 0);
        // A busy handle says so; then the call in the thread has begun.
        while (pmt_pipeline_generate(pipeline, "x", 0, 1, 1, 64, 64, rgb, sizeof rgb) == PMT_STATUS_OK) usleep(1000);
        OK(pmt_pipeline_cancel(other, 1));
        OK(pmt_pipeline_generate(other, "x", 0, 1, 1, 64, 64, rgb, sizeof rgb));
        // It may be checking its arguments still, so once may be too early.
        for (int done = 0; !done; done = pthread_tryjoin_np(thread, &status) == 0) {
            OK(whole ? pmt_context_cancel(context) : pmt_pipeline_cancel(pipeline, 1));
            usleep(1000);
        }
        CHECK((intptr_t)status == PMT_STATUS_CANCELLED);
        OK(pmt_pipeline_generate(pipeline, "x", 0, 1, 1, 64, 64, rgb, sizeof rgb));
    }
}

static void drawing(const char *model, const char *adapter, const char *device) {
    pmt_context *own = context;
    pmt_pipeline *pipeline, *plain;
    pmt_trainer *trainer;
    pmt_config config;
    uint32_t side = 0;
    // Names are judged when the device is opened.
    OK(pmt_context_new("no such device", &context));
    BAD(pmt_pipeline_new(context, model, NULL, NULL), "pipeline");
    BAD(pmt_pipeline_new(context, model, NULL, &pipeline), "no adapter called `no such device`");
    CHECK(pipeline == NULL);
    pmt_context_free(context);
    OK(pmt_context_new(*device ? device : NULL, &context));

    FAILS(pmt_pipeline_new(context, "no/model", NULL, &pipeline), PMT_STATUS_MISSING, "no/model");
    FAILS(pmt_pipeline_new(context, model, "no/adapter", &pipeline), PMT_STATUS_IO, "no/adapter");
    OK(pmt_config_default(&config, sizeof config));
    OK(pmt_trainer_new(context, model, NULL, &config, &trainer));
    FAILS(pmt_trainer_step(trainer, NULL, 0), PMT_STATUS_MISSING, "references: missing images");
    OK(pmt_trainer_add_reference(trainer, (const uint8_t *)"rgb", 1, 1, 3, NULL));
    FAILS(pmt_trainer_step(trainer, NULL, 0), PMT_STATUS_MISSING, "captions");
    pmt_trainer_free(trainer);

    OK(pmt_pipeline_new(context, model, adapter, &pipeline));
    OK(pmt_pipeline_new(context, model, NULL, &plain));
    OK(pmt_pipeline_resolution(pipeline, &side));
    size_t bytes = (size_t)side * side * 3;
    unsigned char *a = calloc(bytes, 1), *b = calloc(bytes, 1), *c = calloc(bytes, 1);
#define DRAW(who, rgb, len) pmt_pipeline_generate(who, "icon of red apple", 7, 2, 4.5f, side, side, rgb, len)
    BAD(DRAW(pipeline, a, bytes - 1), "rgb_len: expected at least");
    BAD(DRAW(pipeline, NULL, bytes), "rgb: ");
    BAD(pmt_pipeline_generate(pipeline, NULL, 0, 2, 1, side, side, a, bytes), "prompt: ");
    BAD(pmt_pipeline_generate(pipeline, "x", 0, 0, 1, side, side, a, bytes), "steps: expected 1 to");
    BAD(pmt_pipeline_generate(pipeline, "x", 0, 2, (float)(1e300 * 1e300), side, side, a, bytes), "guidance");
    BAD(pmt_pipeline_generate(pipeline, "x", 0, 2, 1, side + 1, side, a, bytes), "image size");
    BAD(pmt_pipeline_generate(pipeline, "x", 0, 2, 1, 0, side, a, bytes), "image size");
    BAD(pmt_pipeline_generate(pipeline, "x", 0, 2, 1, 1u << 31, 1u << 31, a, bytes), "image size");
    OK(pmt_context_cancel(context)); // nothing is in progress, so nothing is hit
    OK(pmt_pipeline_cancel(pipeline, 1));
    OK(DRAW(pipeline, a, bytes));
    cancelled(pipeline, plain, side);
    OK(DRAW(pipeline, b, bytes));
    CHECK(!memcmp(a, b, bytes)); // the same every time
    OK(DRAW(plain, c, bytes));
    CHECK(memcmp(a, c, bytes)); // the adapter does something
    strengths(model, adapter, side, a, c);
    pmt_context_free(context); // before its handles
    OK(DRAW(plain, b, bytes));
    CHECK(!memcmp(b, c, bytes));
    context = own;
    pmt_pipeline_free(pipeline);
    pmt_pipeline_free(plain);
    free(a);
    free(b);
    free(c);
}

// Drawing between steps, often in the middle of a run, must not change what is learnt; nor must going on from a saved state.
static void interleaved(const char *model, const char *device) {
    pmt_context *own = context;
    pmt_progress ends[3];
    char state[] = "/tmp/pentimento-state-XXXXXX";
    int file = mkstemp(state), saved = 0;
    pmt_config config;
    uint32_t side;
    OK(pmt_context_new(*device ? device : NULL, &context));
    OK(pmt_config_default(&config, sizeof config));
    config.warm_steps = config.iterations = config.prompts = config.head_warm = 1;
    config.warm_batch = config.group = config.steps = config.micro_batch = config.head_batch = 2;
    config.rank = 3;
    config.watch_every = 0;
    for (int k = 0; k < 3; k++) {
        pmt_trainer *trainer;
        pmt_progress now = {0};
        unsigned char white[12], *rgb = NULL;
        memset(white, 255, sizeof white);
        OK(pmt_trainer_new(context, model, NULL, &config, &trainer));
        OK(pmt_trainer_resolution(trainer, &side, &side));
        size_t bytes = (size_t)side * side * 3;
        rgb = malloc(bytes);
        OK(pmt_trainer_add_reference(trainer, white, 2, 2, 6, "icon of snow"));
        OK(pmt_trainer_add_prompt(trainer, "icon of a white wall"));
        BAD(pmt_trainer_save_state(trainer, state), "trainer: expected a first step");
        if (k == 2) OK(pmt_trainer_resume(trainer, state));
        FAILS(pmt_trainer_resume(trainer, "no/state"), PMT_STATUS_IO, "no/state");
        for (int calls = 0; now.phase != PMT_PHASE_DONE && !failures; calls++) {
            OK(pmt_trainer_step(trainer, &now, sizeof now));
            if (k == 1 && calls > 1 && calls < 40 && calls % 9 == 2) // two samples a run, as in training: the same plan
                OK(pmt_trainer_generate(trainer, "icon of snow", 1, 1, 4.5f, side, side, rgb, bytes));
            if (k == 1 && !saved) saved = pmt_trainer_save_state(trainer, state) == PMT_STATUS_OK;
            if (calls == 0) BAD(pmt_trainer_resume(trainer, state), "a state: expected all of them before");
            if (calls == 0) BAD(pmt_trainer_add_prompt(trainer, "late"), "prompts: expected all of them before");
        }
        OK(pmt_trainer_step(trainer, &now, sizeof now)); // nothing more to do, and no error
        FAILS(pmt_trainer_save_adapter(trainer, "no/folder/x"), PMT_STATUS_MISSING, "no/folder");
        CHECK(now.iteration == 1 && now.iterations == 1 && now.gradient_norm > 0 && now.warm_loss > 0);
        now.iteration_seconds = 0;
        ends[k] = now;
        pmt_trainer_free(trainer);
        free(rgb);
    }
    CHECK(saved && !memcmp(&ends[0], &ends[1], sizeof ends[0]) && !memcmp(&ends[0], &ends[2], sizeof ends[0]));
    // Less memory than would do: told by the first step, with what would.
    pmt_trainer *small;
    pmt_config tight = config;
    tight.memory_mb = 1;
    OK(pmt_trainer_new(context, model, NULL, &tight, &small));
    OK(pmt_trainer_add_reference(small, (const uint8_t *)"rgb", 1, 1, 3, "icon of snow"));
    FAILS(pmt_trainer_step(small, NULL, 0), PMT_STATUS_BAD_FILE, "memory: expected at least ");
    pmt_trainer_free(small);
    // Another training's, and damaged ones: told by the first step.
    pmt_trainer *other;
    config.rank = 4;
    OK(pmt_trainer_new(context, model, NULL, &config, &other));
    OK(pmt_trainer_add_reference(other, (const uint8_t *)"rgb", 1, 1, 3, "icon of snow"));
    OK(pmt_trainer_add_prompt(other, "icon of a white wall"));
    OK(pmt_trainer_resume(other, state));
    FAILS(pmt_trainer_step(other, NULL, 0), PMT_STATUS_BAD_FILE, "rank: expected 3, found 4");
    CHECK(truncate(state, 100) == 0);
    OK(pmt_trainer_resume(other, state));
    FAILS(pmt_trainer_step(other, NULL, 0), PMT_STATUS_BAD_FILE, "expected a safetensors file");
    pmt_trainer_free(other);
    close(file);
    unlink(state);
    pmt_context_free(context);
    context = own;
}

// A single file under a relative path, with the reward beside it; the program moves before the first step. What is built is kept
// under a relative path, too.
static void away(const char *folder, const char *device) {
    pmt_progress now = {0};
    pmt_config config;
    pmt_trainer *trainer;
    pmt_context *own = context;
    OK(pmt_context_new(*device ? device : NULL, &context));
    CHECK(chdir(folder) == 0);
    OK(pmt_context_pipeline_cache(context, "pipelines"));
    OK(pmt_config_default(&config, sizeof config));
    config.warm_steps = config.warm_batch = 1;
    config.iterations = 0;
    config.max_seconds = 3600;
    OK(pmt_trainer_new(context, "model.gguf", NULL, &config, &trainer));
    pmt_trainer_free(trainer);
    OK(pmt_trainer_new(context, "./model.gguf", "reward", &config, &trainer));
    CHECK(chdir("/") == 0);
    OK(pmt_trainer_add_reference(trainer, (const uint8_t *)"rgb", 1, 1, 3, "a cat"));
    while (now.warm_loss == 0 && !failures) OK(pmt_trainer_step(trainer, &now, sizeof now));
    pmt_trainer_free(trainer);
    pmt_context_free(context);
    context = own;
}

// AddressSanitizer must stop this: room for 4 bytes where 64 are promised.
static void overflow(void) {
    char *small = malloc(4);
    pmt_trainer_new(context, "some/long/path/to/a/model", NULL, NULL, NULL);
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
    } else if (argc == 4 && !strcmp(argv[1], "away")) {
        away(argv[2], argv[3]);
    } else if (argc == 2 || argc == 4) {
        nulls(argv[1]);
        wrong_handles(argv[1]);
        messages();
        settings(argv[1]);
        references(argv[1]);
        if (argc == 4) drawing(argv[1], argv[2], argv[3]);
        if (argc == 4) interleaved(argv[1], argv[3]);
    } else {
        return 2;
    }
    pmt_context_free(context);
    printf("%d failures\n", failures);
    return failures ? 1 : 0;
}
