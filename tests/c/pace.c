// How long a poll takes while a training runs, and how much the training gets done, for several budgets at 60 frames a second.
//
//   pace MODEL DEVICE SECONDS
#define _GNU_SOURCE
#include <pentimento.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static pmt_context *context;
static void must(pmt_status status) {
    char text[1024] = "";
    if (status == PMT_STATUS_OK) return;
    pmt_error_message(context, text, sizeof text);
    printf("pace: %s (%d)\n", text, (int)status);
    exit(1);
}
static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}
static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    pmt_model *model;
    pmt_settings *settings;
    pmt_trainer *trainer;
    pmt_job *job;
    must(pmt_context_new(*argv[2] ? argv[2] : NULL, &context));
    must(pmt_model_open(context, argv[1], &model));
    must(pmt_settings_new(context, "sft", &settings));
    must(pmt_settings_set(settings, "warm.steps", "100000"));
    must(pmt_settings_set(settings, "prior.images", "1"));
    must(pmt_trainer_new(model, NULL, settings, &trainer));
    unsigned char white[12];
    memset(white, 255, sizeof white);
    pmt_image image = {.pixels = white, .bytes = sizeof white, .width = 2, .height = 2, .format = PMT_FORMAT_RGB8};
    must(pmt_trainer_add_reference(trainer, &image, "icon of snow"));
    must(pmt_trainer_start(trainer, &job));
    pmt_progress p = {0};
    while (p.phase != PMT_PHASE_WARM || p.done < 3) { // shaders are built, and times learnt, without limits
        must(pmt_job_progress(job, &p, sizeof p));
        if (p.status != PMT_STATUS_PENDING) must(pmt_job_wait(job, 0));
        usleep(10000);
    }
    int frames = atoi(argv[3]) * 60;
    double *took = calloc((size_t)frames, sizeof *took);
    const uint32_t budgets[] = {1000, 2000, 4000, 8000, UINT32_MAX};
    for (size_t b = 0; b < sizeof budgets / sizeof *budgets; b++) {
        for (int i = 0; i < 60; i++) must(pmt_context_poll(context, budgets[b], budgets[b])), usleep(16000); // settles
        must(pmt_job_progress(job, &p, sizeof p));
        uint32_t before = p.done;
        double next = now_us(), began = next, late = 0;
        for (int i = 0; i < frames; i++) {
            double start = now_us();
            must(pmt_context_poll(context, budgets[b], budgets[b]));
            must(pmt_job_progress(job, &p, sizeof p));
            took[i] = now_us() - start;
            next += 1e6 / 60;
            double left = next - now_us();
            if (left > 0) usleep((useconds_t)left);
            else late++, next = now_us();
        }
        double seconds = (now_us() - began) * 1e-6;
        qsort(took, (size_t)frames, sizeof *took, by_size);
        printf("budget %4.0f ms: poll median %.1f us, 99 %% %.1f us, longest %.0f us; %.2f steps a second; %.0f of %d frames late\n",
               budgets[b] == UINT32_MAX ? 9999.0 : budgets[b] / 1e3, took[frames / 2], took[frames * 99 / 100], took[frames - 1],
               (p.done - before) / seconds, late, frames);
        fflush(stdout);
    }
    free(took);
    pmt_job_free(job);
    pmt_trainer_free(trainer);
    pmt_settings_free(settings);
    pmt_model_free(model);
    pmt_context_free(context);
    return 0;
}
