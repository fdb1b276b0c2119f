// pentimento: personalises an SD3-family image model to a few reference images, on any GPU.
//
// Generated from ffi/src/lib.rs; to refresh it: PENTIMENTO_BLESS=1 cargo test -p tests --test ffi
//
// Results    Functions that can fail return PMT_STATUS_OK or the kind of failure; pmt_error_message gives the sentence.
//            A `_new` that fails sets its result to NULL. Nothing aborts on purpose, exits or prints; running out of
//            memory does end the process, and a bug inside the library (PMT_STATUS_INTERNAL) leaves a line on stderr.
// Ownership  What a `_new` gives is the caller's until its `_free`, which takes NULL too. Everything passed in is copied
//            before the call returns. Handles may be freed in any order: they keep what they need of their context.
//            What is no handle, was freed or is of another kind is PMT_STATUS_BAD_ARGUMENT; nothing is read through it.
//            A `_free` while another thread's call uses the handle takes effect when that call ends.
// Pointers   Must be NULL or valid. NULL is PMT_STATUS_BAD_ARGUMENT unless its parameter says otherwise. Strings are
//            UTF-8 and end in 0; paths too, on every system.
// Threads    Where the device is a GPU, up to eight threads for each handle build shaders; they end when all are built, and a
//            `_free` waits for those in work, a shader for each thread. The library starts no others (a graphics driver
//            may). A handle may be used from any thread, by one at a time: a second one gets PMT_STATUS_BAD_ARGUMENT and
//            waits for nothing. Two handles are independent, but share the message of their context: give each thread its
//            own. The `_cancel` functions are for every thread.
// Processes  A graphics driver does not survive fork. In the child only what needs no handle works, every handle of the
//            parent is PMT_STATUS_BAD_ARGUMENT there; a child that is to use the library must call exec first.
// Time       Each function says how long it blocks. Work reaches the GPU in pieces of about 0.1 s, so other programs
//            stay responsive; to pause, just do not call.
// Images     8 bits per channel, R G B, row after row from the top, no padding unless a stride is given.
// Folders    A model is opened by its `_new` and, for trainers, again by the first step: a relative path means the same
//            folder even if the program has changed its own meanwhile.
// Left out   Sharing the host's GPU device, callbacks, listing devices (a wrong device name lists them).


#ifndef PENTIMENTO_H
#define PENTIMENTO_H

#include <stddef.h>
#include <stdint.h>

// Version of this header's functions and structures. Compare it with `pmt_abi_version` when linking dynamically. It
// changes only when a program built for the old one would break: new functions, and new fields at the end of
// structures, keep it.
#define PMT_ABI_VERSION 1

// The outcome of a call.
typedef enum pmt_status {
    // It worked.
    PMT_STATUS_OK = 0,
    // A NULL, size, setting or order of calls that cannot be.
    PMT_STATUS_BAD_ARGUMENT = 1,
    // A model, adapter or other file cannot be used as it is.
    PMT_STATUS_BAD_FILE = 2,
    // A file, tensor, adapter or device that must be there is not.
    PMT_STATUS_MISSING = 3,
    // The operating system refused to read or write.
    PMT_STATUS_IO = 4,
    // The GPU cannot run this, or failed while running it.
    PMT_STATUS_DEVICE = 5,
    // Stopped by one of the `_cancel` functions.
    PMT_STATUS_CANCELLED = 6,
    // A bug in the library. The handle is of no more use: free it.
    PMT_STATUS_INTERNAL = 7,
    // A NaN or infinity in a file, or made by a training that diverged or by settings; the message names the first. The
    // adapter from before stays readable.
    PMT_STATUS_NOT_FINITE = 8,
} pmt_status;

// Where a training is.
typedef enum pmt_phase {
    // Encoding prompts and references; `done` of `total` pieces.
    PMT_PHASE_ENCODE = 0,
    // Supervised steps on the references; `done` of `total`.
    PMT_PHASE_WARM = 1,
    // Iterations; `done` of `total` model runs within the one that follows `iteration`.
    PMT_PHASE_ADVERSARIAL = 2,
    // Finished.
    PMT_PHASE_DONE = 3,
} pmt_phase;

// Recipes. All but the released one begin with supervised steps on the references. Take the settings of another than the
// default from `pmt_config_recipe`.
typedef enum pmt_recipe {
    // What suits the device: `Pathwise`.
    PMT_RECIPE_DEFAULT = 0,
    // The released schedule, epoch by epoch: `iterations` counts epochs of `prompts` batches (at least 2), of which every
    // tenth trains the adapter. With PickScore as reward model, the adapter trains while the references score higher.
    // The `warm` and `head` fields are not used.
    PMT_RECIPE_RELEASED = 1,
    // The adversarial reward's own gradient, through backbone, decoder and a sampling step.
    PMT_RECIPE_PATHWISE = 2,
    // Adv-GRPO that uses every batch for reward head and adapter.
    PMT_RECIPE_GRPO = 3,
    // Flow-GRPO, the baseline: a reward that is fixed after its first steps, and a policy held to the base model.
    PMT_RECIPE_FLOW_GRPO = 4,
    // The forward-process objective on every batch (DiffusionNFT).
    PMT_RECIPE_NFT = 5,
    // Supervised fine-tuning with prior preservation and without a reward: an iteration is ten optimiser steps. `prompts`,
    // `group` and the `head` fields are not used.
    PMT_RECIPE_SUPERVISED = 6,
} pmt_recipe;

// Where errors are told, and which device is used.
typedef struct pmt_context pmt_context;

// A model to draw with, with or without an adapter.
typedef struct pmt_pipeline pmt_pipeline;

// A training.
typedef struct pmt_trainer pmt_trainer;

// Settings of a training. Start from `pmt_config_default` or `pmt_config_recipe`.
typedef struct pmt_config {
    // Bytes of this structure in the program, set by the functions that fill it in.
    uint64_t size;
    // Everything random follows from it.
    uint64_t seed;
    // End after about this many seconds in `pmt_trainer_step`, the first call left out, instead of after `iterations`; 0: no
    // such limit.
    double max_seconds;
    // Training resolution, pixels; 0: the model's own.
    uint32_t width;
    // Training resolution, pixels; 0: the model's own.
    uint32_t height;
    // LoRA rank, 1 to 4096.
    uint32_t rank;
    // Supervised steps before the first iteration; may be 0.
    uint32_t warm_steps;
    // References in one of those steps.
    uint32_t warm_batch;
    // Learning rate of those steps.
    float warm_rate;
    // Iterations after those steps.
    uint32_t iterations;
    // Prompts in an iteration.
    uint32_t prompts;
    // Images drawn for each prompt; even where `window` is not 0.
    uint32_t group;
    // Sampling steps of those images.
    uint32_t steps;
    // How many of these are stochastic, the ones that the GRPO recipes train; at most `steps`.
    uint32_t window;
    // Samples in one training run: less of them, less memory.
    uint32_t micro_batch;
    // Steps of the reward head before the first update.
    uint32_t head_warm;
    // References, and as many drawn images, in a step of the reward head.
    uint32_t head_batch;
    // Classifier-free guidance; 1 turns it off.
    float guidance;
    // Learning rate.
    float rate;
    // What happens to references of another shape than the training's: 0 the centre is cropped, 1 the background is
    // added around them, 2 they are squashed.
    uint32_t fit;
    // Colour of that background, 0xRRGGBB.
    uint32_t background;
    // What is done, and in which order: one of `pmt_recipe`.
    uint32_t recipe;
    // Iterations from one look at fixed pictures to the next; looks end a training that gets clearly worse, and the adapter is
    // then the best one seen. 0: none. Not in the released schedule.
    uint32_t watch_every;
    // Bits that the model's matrices are quantised to while loading, 8 or 4: half or a quarter of the memory, and an approximation
    // of the model; 0: as they are in the file.
    uint32_t base_bits;
    // T5 tokens of a prompt.
    uint32_t text_tokens;
    // Megabytes (10^6 bytes) of the device's memory to stay within: values are computed again on the way back, then fewer images go through
    // the device at a time. The first step refuses what cannot be, and says how much would do. 0: no limit.
    uint32_t memory_mb;
    // Values that are computed again on the way back instead of kept: 1 none, 2 most (not attentions), 3 all: less memory, up to a third more
    // work. 0: all above 256 x 256 pixels, none below; with `memory_mb` as few as it allows.
    uint32_t recompute;
} pmt_config;

// How far a training is. Numbers of the last complete iteration stay until the next one is complete.
typedef struct pmt_progress {
    // Where `done` and `total` belong.
    enum pmt_phase phase;
    // Work done in this phase.
    uint32_t done;
    // All work of this phase; 0 while unknown.
    uint32_t total;
    // Iterations complete.
    uint32_t iteration;
    // All iterations; 0 while `max_seconds` decides.
    uint32_t iterations;
    // Loss of the last supervised step.
    float warm_loss;
    // Mean reward of the generated images.
    float reward_generated;
    // Mean reward of the references.
    float reward_reference;
    // Standard deviation of the rewards within groups.
    float reward_spread;
    // Hinge loss of the reward head.
    float head_loss;
    // Part of images the reward head told apart, 0 to 1.
    float head_accuracy;
    // Part of probability ratios outside the clip range, 0 to 1.
    float clip_fraction;
    // Gradient norm before clipping.
    float gradient_norm;
    // Seconds the iteration took, in calls of `pmt_trainer_step`.
    float iteration_seconds;
    // How far fixed pictures keep the base model's shapes at the last look, 0 to 1; -1 where those have no background.
    float silhouettes;
    // How far they are from the references, in units of the references' deviations.
    float distance;
    // Iteration of the best look so far; 0: the warm start's. It is the adapter's when the last look is worse.
    uint32_t best_iteration;
} pmt_progress;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, such as "0.1.0". Static.
const char *pmt_version(void);

// `PMT_ABI_VERSION` of the library.
uint32_t pmt_abi_version(void);

// Makes a context. `device` is a GPU's index, PCI id ("0000:01:00.0") or name, or a part of the name that no other one has;
// NULL or "" for the best one. Returns at once: the device is opened, and the choice judged, by `pmt_pipeline_new` and the
// first `pmt_trainer_step`, for each handle anew.
enum pmt_status pmt_context_new(const char *device,
                                struct pmt_context **context);

// Frees a context. Its trainers and pipelines live on, but their messages can no longer be read.
void pmt_context_free(struct pmt_context *context);

// Copies the sentence about the last call that failed on this context, its trainers or pipelines; "" before. At most
// `len` bytes, the final 0 included, cut between characters. Gives the length of the whole sentence without the 0; so
// `buffer` may be NULL when `len` is 0. Gives 0 when `context` is NULL. Returns at once.
size_t pmt_error_message(const struct pmt_context *context,
                         char *buffer,
                         size_t len);

// Does what `pmt_trainer_cancel` and `pmt_pipeline_cancel` do to all trainers and pipelines of this context. For every
// thread. Returns at once.
enum pmt_status pmt_context_cancel(const struct pmt_context *context);

// Names a file that keeps what the driver builds of the library's kernels, so that later programs start faster; NULL for none,
// which is how a context begins. For handles whose device is opened after this. It is read when the device is opened and
// written, whole, when the handle is freed; a driver that cannot do it leaves it alone, and a file that is missing, damaged
// or another device's costs nothing but time. A driver believes what is in it: keep it where nobody else writes. Its folder
// must be there. Returns at once.
enum pmt_status pmt_context_pipeline_cache(const struct pmt_context *context,
                                           const char *file);

// Fills in the recommended settings, for GPUs; with a CPU driver set `max_seconds`, or draw fewer images. `size` is
// `sizeof(pmt_config)`; one that is larger than the library knows, so of a newer header, is PMT_STATUS_BAD_ARGUMENT.
// Returns at once.
enum pmt_status pmt_config_default(struct pmt_config *config,
                                   size_t size);

// Fills in the settings of a recipe, one of `pmt_recipe`, as `pmt_config_default` does the recommended ones. Returns at
// once.
enum pmt_status pmt_config_recipe(struct pmt_config *config,
                                  size_t size,
                                  uint32_t recipe);

// Makes a training. `model` is a diffusers folder of an SD3-family model, or a single file with what it lacks
// (tokenizers) in folders beside it; `reward` is a Dinov2Model folder or NULL for the folder `reward` inside the
// model's, `config` the settings. Reads configurations and maps weights, milliseconds; the device is opened by the
// first step.
enum pmt_status pmt_trainer_new(const struct pmt_context *context,
                                const char *model,
                                const char *reward,
                                const struct pmt_config *config,
                                struct pmt_trainer **trainer);

// Frees a training and its device memory. An adapter that was not saved is lost.
void pmt_trainer_free(struct pmt_trainer *trainer);

// Makes the `pmt_trainer_step` or `pmt_trainer_generate` in progress return PMT_STATUS_CANCELLED; with `ask` 0 takes that
// back. A step ends first and loses nothing: the next one goes on. Drawing stops before its next submit. Where no call is in
// progress nothing happens, to later ones neither. For every thread. Returns at once.
enum pmt_status pmt_trainer_cancel(const struct pmt_trainer *trainer,
                                   uint32_t ask);

// The training resolution in pixels. References may have any size: they are brought to this one as the settings' `fit`
// says. Returns at once.
enum pmt_status pmt_trainer_resolution(const struct pmt_trainer *trainer,
                                       uint32_t *width,
                                       uint32_t *height);

// Adds a reference image, before the first step. Rows begin `stride` bytes apart, at least `3 * width`; the last one
// need not be padded. Sides are 1 to 16384. `caption` says what it shows, NULL: nothing. Copied. Milliseconds.
enum pmt_status pmt_trainer_add_reference(struct pmt_trainer *trainer,
                                          const uint8_t *pixels,
                                          uint32_t width,
                                          uint32_t height,
                                          size_t stride,
                                          const char *caption);

// Adds a prompt to draw from while training, before the first step. Without any, the captions serve. Returns at once.
enum pmt_status pmt_trainer_add_prompt(struct pmt_trainer *trainer,
                                       const char *prompt);

// Trains a little. The first call opens the device and loads the reward model: seconds. Every later one encodes a text,
// or submits or reads one piece of work, about 0.1 s; at first it also builds shaders, or waits for the threads that do, one
// after another as 0.1 s allow, so that a call takes as long as the slowest shader: seconds on drivers that compile slowly. `progress` may be NULL; else `size` is `sizeof(pmt_progress)`. Call until
// `progress->phase` is PMT_PHASE_DONE; calls after that do nothing. After a failure the adapter can still be saved.
enum pmt_status pmt_trainer_step(struct pmt_trainer *trainer,
                                 struct pmt_progress *progress,
                                 size_t size);

// Writes the adapter as it is now, averaged over the iterations, or the best one seen if the last look (see
// `watch_every`) found that one worse, as a safetensors file that diffusers, ComfyUI and
// stable-diffusion.cpp read. Not before the first step. A reader never sees half a file. Milliseconds.
enum pmt_status pmt_trainer_save_adapter(struct pmt_trainer *trainer,
                                         const char *path);

// Writes all that the training is, as of the last moment between two of its stages or two steps of the warm start: adapter, averages,
// optimisers, reward head, random streams. `pmt_trainer_resume` goes on from there to the same adapter, bit for bit, on the same device
// and driver. After a failure, a lost device for one, too. PMT_STATUS_BAD_ARGUMENT while prompts and references are still being
// prepared: there is nothing to save then. A reader never sees half a file, and the one that is replaced stays whole until then. As
// long as writing takes: the file is about six adapters and the images that the head remembers.
enum pmt_status pmt_trainer_save_state(struct pmt_trainer *trainer,
                                       const char *path);

// Goes on with a training that `pmt_trainer_save_state` wrote: to be called before the first step of a training of the same model,
// reward, settings, prompts and references, but for more `iterations`; `max_seconds` counts those of the saved one, too. The file is
// read now; whether it fits is told by the first step, with a sentence that names the difference.
enum pmt_status pmt_trainer_resume(struct pmt_trainer *trainer,
                                   const char *path);

// Draws an image with the adapter that `pmt_trainer_save_adapter` would write; training goes on as if nothing had been
// drawn. Not before the first step. Parameters and time as `pmt_pipeline_generate`.
enum pmt_status pmt_trainer_generate(struct pmt_trainer *trainer,
                                     const char *prompt,
                                     uint64_t seed,
                                     uint32_t steps,
                                     float guidance,
                                     uint32_t width,
                                     uint32_t height,
                                     uint8_t *rgb,
                                     size_t rgb_len);

// Opens a model to draw with. `model` is a diffusers folder of an SD3-family model, or a single file with what it
// lacks (tokenizers) in folders beside it; `adapter` is a LoRA file or folder or NULL. An adapter that does not fit
// the model in every part is refused. Opens the device and loads the text encoders: seconds.
enum pmt_status pmt_pipeline_new(const struct pmt_context *context,
                                 const char *model,
                                 const char *adapter,
                                 struct pmt_pipeline **pipeline);

// As `pmt_pipeline_new`, with `count` adapters that add up; their ranks and layers may differ. `adapters` may be NULL when
// `count` is 0. Each has its finite number of `strengths`: 1 is as trained, 0 nothing, a negative one takes away what the
// adapter learnt; NULL is 1 for all.
enum pmt_status pmt_pipeline_new_adapted(const struct pmt_context *context,
                                         const char *model,
                                         const char *const *adapters,
                                         const float *strengths,
                                         size_t count,
                                         struct pmt_pipeline **pipeline);

// Frees a pipeline and its device memory.
void pmt_pipeline_free(struct pmt_pipeline *pipeline);

// Makes the `pmt_pipeline_generate` in progress return PMT_STATUS_CANCELLED before its next submit, as `pmt_trainer_cancel`
// does. For every thread. Returns at once.
enum pmt_status pmt_pipeline_cancel(const struct pmt_pipeline *pipeline,
                                    uint32_t ask);

// The side, in pixels, of the square images the model was trained on: one that `pmt_pipeline_generate` can draw, or
// PMT_STATUS_BAD_FILE. Returns at once.
enum pmt_status pmt_pipeline_resolution(const struct pmt_pipeline *pipeline,
                                        uint32_t *side);

// Draws an image: `steps` sampling steps (1 to 1000), classifier-free `guidance` (1 turns it off), into the first
// `3 * width * height` of the `rgb_len` bytes at `rgb`. Equal parameters give equal images on one device. Blocks until
// the image is there: `steps` model runs (two each where guided) and the decoder's; the first image of a size also
// loads the model and builds shaders, and its buffers are kept for the next one until the handle is freed.
enum pmt_status pmt_pipeline_generate(struct pmt_pipeline *pipeline,
                                      const char *prompt,
                                      uint64_t seed,
                                      uint32_t steps,
                                      float guidance,
                                      uint32_t width,
                                      uint32_t height,
                                      uint8_t *rgb,
                                      size_t rgb_len);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PENTIMENTO_H */
