// The whole of pentimento from C11: reference images in, adapter and a first image out.
//
//   cargo build --release -p pentimento-ffi
//   cc examples/finetune.c -Iinclude -Ltarget/release -lpentimento -lm -o finetune
//   LD_LIBRARY_PATH=target/release ./finetune examples/models/icons FOLDER "icon of red apple" [SETTING=VALUE ...]
//
// FOLDER holds the references as NAME.ppm with their captions in NAME.txt, and gets adapter.safetensors and image.ppm. Ctrl-C saves
// state.safetensors there, and a second run goes on from it.
#include <dirent.h>
#include <pentimento.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pmt_context *context;
static volatile sig_atomic_t stopped;

static void stop(int number) { (void)number, stopped = 1; }

// Ends the program with the library's sentence unless a call went well.
static void must(pmt_status status) {
    char text[1024] = "";
    if (status == PMT_STATUS_OK) return;
    pmt_error_message(context, text, sizeof text);
    fprintf(stderr, "finetune: %s (status %d)\n", text, (int)status);
    exit(1);
}

// A binary PPM with 8 bits per channel.
static unsigned char *read_ppm(const char *path, pmt_image *image) {
    FILE *file = fopen(path, "rb");
    unsigned char *rgb = NULL;
    if (file && fscanf(file, "P6 %5u %5u 255", &image->width, &image->height) == 2 && fgetc(file) != EOF) {
        image->bytes = (size_t)image->width * image->height * 3;
        if ((rgb = malloc(image->bytes + 1))) image->bytes = fread(rgb, 1, image->bytes, file); // the library tells of less
    }
    if (file) fclose(file);
    return rgb;
}

// Adds every NAME.ppm of a folder but our own result.
static void add_references(pmt_trainer *trainer, const char *folder) {
    DIR *entries = opendir(folder);
    for (struct dirent *e; entries && (e = readdir(entries));) {
        char path[4096], caption[1024] = "";
        pmt_image image = {.format = PMT_FORMAT_RGB8};
        int n = snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (n < 4 || n > 4095 || strcmp(path + n - 4, ".ppm") || !strcmp(e->d_name, "image.ppm")) continue;
        image.pixels = read_ppm(path, &image);
        strcpy(path + n - 4, ".txt");
        FILE *text = fopen(path, "r");
        if (text) caption[fread(caption, 1, sizeof caption - 1, text)] = 0, fclose(text);
        must(pmt_trainer_add_reference(trainer, &image, caption));
        free(image.pixels);
    }
    if (entries) closedir(entries);
}

// Says what happens until a job is over. A program with frames calls pmt_context_poll here instead of waiting.
static pmt_status follow(pmt_job *job) {
    pmt_status status;
    do {
        status = pmt_job_wait(job, 100);
        for (pmt_event e; pmt_job_event(job, &e, sizeof e) == PMT_STATUS_OK;) {
            if (e.kind == PMT_EVENT_KIND_OPENED) printf("device %s\n", e.text);
            if (e.kind == PMT_EVENT_KIND_WARM) printf("warm start step %u: loss %.4f\n", e.done, e.loss);
            if (e.kind == PMT_EVENT_KIND_ITERATION)
                printf("iteration %u: reward %.3f, references %.3f, %.1f s\n", e.iteration,
                       e.metrics.reward_generated, e.metrics.reward_reference, e.metrics.seconds);
        }
        if (stopped) pmt_job_cancel(job);
    } while (status == PMT_STATUS_PENDING);
    return status;
}

int main(int argc, char **argv) {
    if (argc < 4) return fprintf(stderr, "usage: finetune MODEL FOLDER PROMPT [SETTING=VALUE ...]\n"), 2;
    must(pmt_context_new(getenv("PENTIMENTO_ADAPTER"), &context)); // index, PCI id or part of a name; NULL: the best one
    signal(SIGINT, stop);

    pmt_settings *settings;
    must(pmt_settings_new(context, NULL, &settings));
    for (int i = 4; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!value) return fprintf(stderr, "finetune: %s has no =\n", argv[i]), 2;
        *value++ = 0;
        must(pmt_settings_set(settings, argv[i], value));
    }

    pmt_model *model;
    pmt_trainer *trainer;
    pmt_job *job;
    char path[4096];
    must(pmt_model_open(context, argv[1], &model));
    must(pmt_trainer_new(model, NULL, settings, &trainer));
    add_references(trainer, argv[2]);
    snprintf(path, sizeof path, "%s/state.safetensors", argv[2]);
    FILE *state = fopen(path, "rb");
    if (state) fclose(state), must(pmt_trainer_resume(trainer, path)), printf("going on from %s\n", path);
    must(pmt_trainer_start(trainer, &job));
    pmt_status status = follow(job);
    if (status == PMT_STATUS_CANCELLED) {
        must(pmt_trainer_save_state(trainer, path));
        return printf("wrote %s\n", path), 130;
    }
    must(status);
    pmt_job_free(job);
    snprintf(path, sizeof path, "%s/adapter.safetensors", argv[2]);
    must(pmt_trainer_save_adapter(trainer, path));
    printf("wrote %s\n", path);

    pmt_drawing drawing;
    must(pmt_drawing_default(&drawing, sizeof drawing));
    drawing.prompts = (const char *const *)&argv[3];
    must(pmt_trainer_draw(trainer, &drawing, &job));
    must(follow(job));
    pmt_image image = {.format = PMT_FORMAT_RGB8};
    must(pmt_job_image_size(job, &image.width, &image.height));
    image.bytes = (size_t)image.width * image.height * 3;
    image.pixels = malloc(image.bytes);
    must(pmt_job_image(job, 0, &image));
    snprintf(path, sizeof path, "%s/image.ppm", argv[2]);
    FILE *out = fopen(path, "wb");
    if (!out || fprintf(out, "P6 %u %u 255\n", image.width, image.height) < 0 ||
        fwrite(image.pixels, 1, image.bytes, out) != image.bytes || fclose(out))
        return perror(path), 1;
    printf("wrote %s\n", path);
    free(image.pixels);
    pmt_job_free(job);
    pmt_trainer_free(trainer);
    pmt_settings_free(settings);
    pmt_model_free(model);
    pmt_context_free(context);
    return 0;
}
