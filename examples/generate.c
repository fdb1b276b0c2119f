// Draws from C11, with any number of adapters.
//
//   cargo build --release -p pentimento-ffi
//   cc examples/generate.c -Iinclude -Ltarget/release -lpentimento -lm -o generate
//   LD_LIBRARY_PATH=target/release ./generate examples/models/icons OUT.ppm "icon of red apple" [ADAPTER STRENGTH ...]
#include <pentimento.h>
#include <stdio.h>
#include <stdlib.h>

static pmt_context *context;

static void must(pmt_status status) {
    char text[1024] = "";
    if (status == PMT_STATUS_OK) return;
    pmt_error_message(context, text, sizeof text);
    fprintf(stderr, "generate: %s (status %d)\n", text, (int)status);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc < 4) return fprintf(stderr, "usage: generate MODEL OUT.ppm PROMPT [ADAPTER STRENGTH ...]\n"), 2;
    pmt_model *model;
    pmt_pipeline *pipeline;
    pmt_job *job;
    must(pmt_context_new(getenv("PENTIMENTO_ADAPTER"), &context));
    must(pmt_model_open(context, argv[1], &model));
    must(pmt_pipeline_new(model, NULL, &pipeline));
    for (int i = 4; i + 1 < argc; i += 2) {
        uint32_t id; // for pmt_pipeline_set_strength and pmt_pipeline_detach
        must(pmt_pipeline_attach(pipeline, argv[i], strtof(argv[i + 1], NULL), &id));
    }

    pmt_drawing drawing;
    must(pmt_drawing_default(&drawing, sizeof drawing));
    drawing.prompts = (const char *const *)&argv[3];
    must(pmt_pipeline_draw(pipeline, &drawing, &job));
    while (pmt_job_wait(job, 500) == PMT_STATUS_PENDING) {
        pmt_progress now;
        must(pmt_job_progress(job, &now, sizeof now));
        if (now.phase == PMT_PHASE_DRAWING) printf("step %u of %u\n", now.done, now.total);
    }
    must(pmt_job_wait(job, 0));

    pmt_image image = {.format = PMT_FORMAT_RGB8};
    must(pmt_job_image_size(job, &image.width, &image.height));
    image.bytes = (size_t)image.width * image.height * 3;
    image.pixels = malloc(image.bytes);
    must(pmt_job_image(job, 0, &image));
    FILE *out = fopen(argv[2], "wb");
    if (!out || fprintf(out, "P6 %u %u 255\n", image.width, image.height) < 0 ||
        fwrite(image.pixels, 1, image.bytes, out) != image.bytes || fclose(out))
        return perror(argv[2]), 1;
    free(image.pixels);
    pmt_job_free(job);
    pmt_pipeline_free(pipeline);
    pmt_model_free(model);
    pmt_context_free(context);
    return 0;
}
