// What C programs that check promises have in common. A program counts its failures and ends with `ended`.
#ifndef CHECK_H
#define CHECK_H
#include <pentimento.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_int failures;
static pmt_context *context;
static char text[1024];

static const char *message(void) {
    pmt_error_message(context, text, sizeof text);
    return text;
}

#define CHECK(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            printf("%s:%d: not so: %s (message: %s)\n", __FILE__, __LINE__, #condition, message());    \
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

static inline pmt_image image_of(void *pixels, size_t bytes, uint32_t width, uint32_t height) {
    return (pmt_image){.pixels = pixels, .bytes = bytes, .width = width, .height = height, .format = PMT_FORMAT_RGB8};
}

static inline pmt_model *opened(const char *path) {
    pmt_model *model;
    OK(pmt_model_open(context, path, &model));
    return model;
}

// Settings of a training that ends soon.
static inline pmt_settings *short_settings(void) {
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

static inline int ended(void) {
    printf("%d failures\n", (int)failures);
    return failures ? 1 : 0;
}
#endif
