// The whole of pentimento from C11: reference images in, adapter and a first image out.
//
//   cargo build --release -p pentimento-ffi
//   cc examples/finetune.c -Iinclude -Ltarget/release -lpentimento -lm -o finetune
//   LD_LIBRARY_PATH=target/release ./finetune examples/models/icons FOLDER "icon of red apple" [SETTING=NUMBER ...]
//
// FOLDER holds the references as NAME.ppm with their captions in NAME.txt, and gets adapter.safetensors and image.ppm.
#include <dirent.h>
#include <pentimento.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pmt_context *context;

// Ends the program with the library's sentence unless a call went well.
static void must(pmt_status status) {
    char text[1024] = "";
    if (status == PMT_STATUS_OK) return;
    pmt_error_message(context, text, sizeof text);
    fprintf(stderr, "finetune: %s (status %d)\n", text, (int)status);
    exit(1);
}

// A binary PPM with 8 bits per channel.
static unsigned char *read_ppm(const char *path, unsigned *width, unsigned *height) {
    FILE *file = fopen(path, "rb");
    unsigned char *rgb = NULL;
    if (file && fscanf(file, "P6 %5u %5u 255", width, height) == 2 && fgetc(file) != EOF) {
        size_t bytes = (size_t)*width * *height * 3;
        if ((rgb = malloc(bytes + 1)) && fread(rgb, 1, bytes, file) != bytes) *width = 0; // the library will object
    }
    if (file) fclose(file);
    return rgb;
}

// Adds every NAME.ppm of a folder but our own result.
static void add_references(pmt_trainer *trainer, const char *folder) {
    DIR *entries = opendir(folder);
    for (struct dirent *e; entries && (e = readdir(entries));) {
        char path[4096], caption[1024] = "";
        unsigned width = 0, height = 0;
        int n = snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (n < 4 || n > 4095 || strcmp(path + n - 4, ".ppm") || !strcmp(e->d_name, "image.ppm")) continue;
        unsigned char *rgb = read_ppm(path, &width, &height);
        strcpy(path + n - 4, ".txt");
        FILE *text = fopen(path, "r");
        if (text) caption[fread(caption, 1, sizeof caption - 1, text)] = 0, fclose(text);
        must(pmt_trainer_add_reference(trainer, rgb, width, height, 3 * (size_t)width, caption));
        free(rgb);
    }
    if (entries) closedir(entries);
}

int main(int argc, char **argv) {
    if (argc < 4) return fprintf(stderr, "usage: finetune MODEL FOLDER PROMPT [SETTING=NUMBER ...]\n"), 2;
    must(pmt_context_new(getenv("PENTIMENTO_ADAPTER"), &context)); // index, PCI id or part of a name; NULL: the best one

    pmt_config config;
    must(pmt_config_default(&config, sizeof config));
    struct { const char *name; uint32_t *value; } settings[] = {
        {"warm_steps=", &config.warm_steps}, {"warm_batch=", &config.warm_batch}, {"steps=", &config.steps},
        {"iterations=", &config.iterations}, {"prompts=", &config.prompts}, {"group=", &config.group},
        {"head_warm=", &config.head_warm}, {"head_batch=", &config.head_batch}, {"rank=", &config.rank},
        {"micro_batch=", &config.micro_batch},
    };
    for (int i = 4; i < argc; i++) {
        size_t k = 0, all = sizeof settings / sizeof *settings;
        while (k < all && strncmp(argv[i], settings[k].name, strlen(settings[k].name))) k++;
        if (k == all) return fprintf(stderr, "finetune: no setting for %s\n", argv[i]), 2;
        *settings[k].value = (uint32_t)strtoul(strchr(argv[i], '=') + 1, NULL, 10);
    }

    pmt_trainer *trainer;
    must(pmt_trainer_new(context, argv[1], NULL, &config, &trainer));
    add_references(trainer, argv[2]);
    pmt_progress now = {0}, last = {0};
    for (; now.phase != PMT_PHASE_DONE; last = now) {
        must(pmt_trainer_step(trainer, &now, sizeof now));
        if (now.phase == PMT_PHASE_WARM && now.done != last.done)
            printf("warm start %u of %u: loss %.4f\n", now.done, now.total, now.warm_loss);
        if (now.iteration != last.iteration)
            printf("iteration %u of %u: reward %.3f, references %.3f, %.1f s\n", now.iteration, now.iterations,
                   now.reward_generated, now.reward_reference, now.iteration_seconds);
    }

    char path[4096];
    uint32_t width, height;
    snprintf(path, sizeof path, "%s/adapter.safetensors", argv[2]);
    must(pmt_trainer_save_adapter(trainer, path));
    must(pmt_trainer_resolution(trainer, &width, &height));
    size_t bytes = (size_t)width * height * 3;
    unsigned char *rgb = malloc(bytes);
    must(pmt_trainer_generate(trainer, argv[3], 0, 20, 4.5f, width, height, rgb, bytes));
    snprintf(path, sizeof path, "%s/image.ppm", argv[2]);
    FILE *out = fopen(path, "wb");
    if (!out || fprintf(out, "P6 %u %u 255\n", width, height) < 0 || fwrite(rgb, 1, bytes, out) != bytes || fclose(out))
        return perror(path), 1;
    printf("wrote %s\n", path);
    free(rgb);
    pmt_trainer_free(trainer);
    pmt_context_free(context);
    return 0;
}
