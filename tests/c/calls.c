// Random calls, right and wrong ones, on handles that are live, freed, of another kind or none: no call may crash, hang or give what is not
// documented. Run by tests/tests/ffi.rs, under AddressSanitizer where there is one.
//
//   calls MODEL DEVICE SEED COUNT
#include <pentimento.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KINDS = 6, CONTEXT = 0, SETTINGS, MODEL, PIPELINE, TRAINER, JOB, EACH = 4 };

static void *handles[KINDS][EACH];
static uint64_t state;
static unsigned long counts[12];
static const char *model_path, *device;

static uint32_t below(uint32_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % n;
}
static int one_in(uint32_t n) { return below(n) == 0; }

// Mostly what the call wants, at times something else.
static void *pick(int kind) {
    if (one_in(40)) return (void *)(uintptr_t)(state >> 20);
    if (one_in(30)) kind = (int)below(KINDS);
    return handles[kind][below(EACH)];
}
static void *at(int kind) {
    return pick(kind);
}
static const char *word(void) {
    static const char *const words[] = {"", "icon of ink", "rank", "3", "no/file", "\xff", "optim.rate", "none", "iterations",
                                        "a cat", "1e-4", "pathwise", "/tmp", "memory", "6GB", "warm.steps"};
    return one_in(20) ? NULL : words[below(sizeof words / sizeof *words)];
}
// Keeps what a call made in place of what was there, which is freed.
static void put(int kind, void *made);
static void let_go(int kind, void *handle) {
    switch (kind) {
        case CONTEXT: pmt_context_free(handle); break;
        case SETTINGS: pmt_settings_free(handle); break;
        case MODEL: pmt_model_free(handle); break;
        case PIPELINE: pmt_pipeline_free(handle); break;
        case TRAINER: pmt_trainer_free(handle); break;
        default: pmt_job_free(handle);
    }
}
static void put(int kind, void *made) {
    uint32_t place = below(EACH);
    if (!made) return;
    let_go(kind, handles[kind][place]);
    handles[kind][place] = made;
}

static int32_t takes(void *user, const uint8_t *bytes, size_t len) { return (void)user, (void)bytes, len % 3 == 0; }
static void hears(void *user, const char *text) { (void)user, (void)text; }
static int32_t reads(void *user, uint32_t file, uint64_t offset, void *into, size_t len) {
    (void)user, (void)file, (void)offset;
    memset(into, '{', len);
    return one_in(2);
}

static unsigned char pixels[64 * 64 * 16];
static pmt_image image(void) {
    pmt_image i = {.pixels = pixels, .bytes = sizeof pixels, .width = 16, .height = 16, .format = below(7)};
    if (one_in(4)) i.width = 1 + below(64), i.height = 1 + below(64);
    if (one_in(10)) i.bytes = below(4096);
    if (one_in(10)) i.stride = below(2048);
    if (one_in(20)) i.format = below(99);
    if (one_in(20)) i.width = state >> 40, i.height = state >> 50;
    if (one_in(30)) i.pixels = NULL, i.bytes = one_in(2) ? 0 : sizeof pixels;
    return i;
}
static pmt_drawing drawing(const char **prompts) {
    pmt_drawing d;
    pmt_drawing_default(&d, sizeof d);
    prompts[0] = one_in(20) ? word() : "a cat";
    prompts[1] = "two dogs";
    d.prompts = one_in(30) ? NULL : prompts;
    d.count = 1 + below(2);
    d.steps = 1 + below(3), d.preview = below(2), d.batch = 1 + below(2);
    if (one_in(10)) d.width = 8 * below(6), d.height = 8 * below(6);
    if (one_in(20)) d.steps = below(2000);
    if (one_in(20)) d.guidance = one_in(2) ? -1 : 1e38f * 10;
    if (one_in(20)) d.size = below(99);
    if (one_in(20)) d.count = below(3);
    return d;
}

// The call first, then what it made.
#define MADE_BY(kind, call)         \
    do {                            \
        pmt_status status = (call); \
        put(kind, made);            \
        return status;              \
    } while (0)

static pmt_status making(uint32_t which) {
    void *made = NULL;
    const char *prompts[2];
    pmt_file file = {word(), one_in(2) ? pixels : NULL, below(64)};
    switch (which) {
        case 0: MADE_BY(CONTEXT, pmt_context_new(one_in(3) ? word() : device, (pmt_context **)&made));
        case 1: MADE_BY(SETTINGS, pmt_settings_new(at(CONTEXT), one_in(2) ? NULL : word(), (pmt_settings **)&made));
        case 2: MADE_BY(MODEL, pmt_model_open(at(CONTEXT), one_in(4) ? word() : model_path, (pmt_model **)&made));
        case 3:
            MADE_BY(MODEL, pmt_model_open_files(at(CONTEXT), one_in(9) ? NULL : &file, 1, one_in(2) ? NULL : word(),
                                                       one_in(3) ? NULL : reads, NULL, (pmt_model **)&made));
        case 4: MADE_BY(PIPELINE, pmt_pipeline_new(at(MODEL), one_in(2) ? NULL : at(SETTINGS), (pmt_pipeline **)&made));
        case 5: MADE_BY(TRAINER, pmt_trainer_new(at(MODEL), one_in(9) ? word() : NULL, one_in(2) ? NULL : at(SETTINGS), (pmt_trainer **)&made));
        case 6: MADE_BY(JOB, pmt_trainer_start(at(TRAINER), (pmt_job **)&made));
        case 7: MADE_BY(JOB, pmt_trainer_work(at(TRAINER), one_in(9) ? NULL : pixels, below(99), below(3), (pmt_job **)&made));
        case 8: {
            pmt_drawing d = drawing(prompts);
            MADE_BY(JOB, pmt_pipeline_draw(at(PIPELINE), one_in(30) ? NULL : &d, (pmt_job **)&made));
        }
        default: {
            pmt_drawing d = drawing(prompts);
            MADE_BY(JOB, pmt_trainer_draw(at(TRAINER), &d, (pmt_job **)&made));
        }
    }
}

static pmt_status using(uint32_t which) {
    uint32_t a = below(4), b = 0;
    size_t needed;
    char text[80];
    float strength = one_in(20) ? 1e38f * 10 : (float)below(3);
    pmt_image i = image();
    pmt_progress progress;
    pmt_event event;
    pmt_memory memory;
    pmt_setting setting;
    pmt_device devices[2];
    switch (which) {
        case 0: return pmt_context_poll(at(CONTEXT), one_in(3) ? UINT32_MAX : below(9000), one_in(3) ? UINT32_MAX : below(9000));
        case 1: return pmt_context_cancel(at(CONTEXT));
        case 2: return pmt_context_log(at(CONTEXT), one_in(2) ? NULL : hears, NULL);
        case 3: return pmt_context_memory(at(CONTEXT), &memory, one_in(9) ? below(99) / 4 * 4 % 44 : sizeof memory);
        case 4:
            if (one_in(2)) return pmt_context_limit_memory(at(CONTEXT), one_in(4) ? 1000000 : UINT64_MAX);
            return pmt_context_pipeline_cache(at(CONTEXT), one_in(2) ? NULL : "");
        case 5: return pmt_settings_set(at(SETTINGS), word(), word());
        case 6: return pmt_settings_get(at(SETTINGS), word(), text, below(sizeof text), one_in(2) ? NULL : &needed);
        case 7: return pmt_settings_check(at(SETTINGS));
        case 8: return pmt_settings_describe(below(120), &setting, one_in(9) ? below(6) * 8 : sizeof setting);
        case 9: return pmt_pipeline_resolution(at(PIPELINE), &b);
        case 10: return pmt_pipeline_attach(at(PIPELINE), word(), strength, &b);
        case 11: return pmt_pipeline_attach_bytes(at(PIPELINE), pixels, below(99), strength, &b);
        case 12: return pmt_pipeline_set_strength(at(PIPELINE), a, strength);
        case 13: return pmt_pipeline_detach(at(PIPELINE), a);
        case 14: return pmt_pipeline_unload(at(PIPELINE));
        case 15: return pmt_trainer_resolution(at(TRAINER), &a, &b);
        case 16: return one_in(9) ? pmt_trainer_add_references(at(TRAINER), word(), word(), one_in(2) ? NULL : &b) : pmt_trainer_add_reference(at(TRAINER), one_in(30) ? NULL : &i, word());
        case 17: return pmt_trainer_add_prompt(at(TRAINER), word());
        case 18: return pmt_trainer_resume(at(TRAINER), word());
        case 19: return pmt_trainer_resume_bytes(at(TRAINER), pixels, below(99));
        case 20: return pmt_trainer_save_adapter(at(TRAINER), one_in(2) ? "no/file" : NULL);
        case 21: return pmt_trainer_write_adapter(at(TRAINER), one_in(9) ? NULL : takes, NULL);
        case 22: return pmt_trainer_save_state(at(TRAINER), "no/file");
        case 23: return pmt_trainer_write_state(at(TRAINER), one_in(9) ? NULL : takes, NULL);
        case 35: return pmt_trainer_spread(at(TRAINER), below(3));
        case 36: return pmt_trainer_write_shared(at(TRAINER), one_in(9) ? NULL : takes, NULL);
        case 37: return pmt_trainer_give(at(TRAINER), a, pixels, below(99), one_in(2) ? NULL : &b);
        case 38: return pmt_trainer_write_made(at(TRAINER), one_in(9) ? NULL : takes, NULL);
        case 24: return pmt_job_progress(at(JOB), &progress, one_in(9) ? below(30) * 4 % (sizeof progress + 1) : sizeof progress);
        case 25: return pmt_job_event(at(JOB), &event, sizeof event);
        case 26: return pmt_job_wait(at(JOB), below(3));
        case 27: return pmt_job_pause(at(JOB), below(2));
        case 28: return pmt_job_cancel(at(JOB));
        case 29: return pmt_job_image_size(at(JOB), &a, &b);
        case 30: return pmt_job_image(at(JOB), below(3), one_in(30) ? NULL : &i);
        case 31: return pmt_job_preview(at(JOB), &i);
        case 32: return pmt_job_message(at(JOB), text, below(sizeof text)) < 4096 ? PMT_STATUS_OK : PMT_STATUS_INTERNAL;
        case 33: return pmt_error_message(at(CONTEXT), text, below(sizeof text)) < 4096 ? PMT_STATUS_OK : PMT_STATUS_INTERNAL;
        case 34: return one_in(50) ? pmt_devices(devices, sizeof *devices, below(3), one_in(9) ? NULL : &a) : PMT_STATUS_OK;
        default: {
            int kind = (int)below(KINDS);
            uint32_t place = below(EACH);
            if (!one_in(25)) return pmt_context_poll(at(CONTEXT), below(4000), below(4000));
            let_go(one_in(20) ? (int)below(KINDS) : kind, handles[kind][place]); // stays in the table: freed handles are used, too
            return PMT_STATUS_OK;
        }
    }
}

static long kilobytes(void) {
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
    if (file) fclose(file);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    model_path = argv[1], device = *argv[2] ? argv[2] : NULL;
    state = strtoull(argv[3], NULL, 10) * 2 + 1;
    unsigned long count = strtoul(argv[4], NULL, 10);
    long half = 0;
    for (int i = 0; i < EACH; i++) // something to begin with
        for (uint32_t which = 0; which < 6; which++)
            if (which != 3) making(which);
    for (unsigned long n = 0; n < count; n++) {
        // What makes handles is rarer than what uses them, and starting work rarer still.
        pmt_status status = one_in(12) ? making(one_in(6) ? below(10) : below(6)) : using(below(40));
        if ((unsigned)status > PMT_STATUS_OUT_OF_MEMORY || status == PMT_STATUS_INTERNAL) {
            return printf("call %lu gave %d\n", n, (int)status), 1;
        }
        counts[status]++;
        if (n == count / 2) half = kilobytes();
    }
    long grown = kilobytes() - half;
    for (int kind = KINDS - 1; kind >= 0; kind--)
        for (int i = 0; i < EACH; i++) let_go(kind, handles[kind][i]);
    printf("%lu calls; statuses:", count);
    for (int i = 0; i < 11; i++) printf(" %lu", counts[i]);
    printf("; %ld KiB more in the second half\n", grown);
    return 0;
}
