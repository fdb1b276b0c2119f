// pentimento: personalises an SD3-family image model to a few reference images, on any GPU, beside a program that draws frames.
//
// Generated from ffi/src; to refresh it: PENTIMENTO_BLESS=1 cargo test -p tests --test ffi
//
// In short   pmt_context_new, pmt_model_open, pmt_trainer_new, pmt_trainer_add_reference, pmt_trainer_start; then once a frame
//            pmt_context_poll and, to show something, pmt_job_progress or pmt_job_event; pmt_trainer_save_adapter at the end. Programs
//            without frames call pmt_job_wait instead.
// Work       Everything long happens on a thread of the context's own: opening the device, reading weights, building shaders, training,
//            drawing. A job is such work. Functions return at once unless they say that they wait; those that wait for `the piece of work in
//            progress` take as long as that, milliseconds, or seconds while a shader is built or a model is loaded.
// Results    Functions that can fail return PMT_STATUS_OK or the kind of failure; pmt_error_message gives the sentence.
//            A `_new` that fails sets its result to NULL. Nothing aborts on purpose, exits or prints. Where the program's memory has
//            no room for a file, a tensor, an image or what the device gives, that is PMT_STATUS_OUT_OF_MEMORY; for small lists, and for
//            a training's own numbers, it ends the process. A bug inside the library (PMT_STATUS_INTERNAL) leaves a line on stderr.
// Ownership  What a function gives is the caller's until its `_free`, which takes NULL too. Everything passed in is copied
//            before the call returns. Handles may be freed in any order: they keep what they need of each other.
//            What is no handle, was freed or is of another kind is PMT_STATUS_BAD_ARGUMENT; nothing is read through it.
//            A `_free` while another thread's call uses the handle takes effect when that call ends. The last `_free` of a context's
//            handles waits for the piece of work in progress.
// Pointers   Must be NULL or valid. NULL is PMT_STATUS_BAD_ARGUMENT unless its parameter says otherwise. Strings are
//            UTF-8 and end in 0; paths too, on every system.
// Threads    Every function may be called from any thread. Two calls on one pipeline, trainer or settings at the same time are
//            PMT_STATUS_BAD_ARGUMENT for the second, which waits for nothing; contexts and jobs take any number. The message is the context's: it
//            is that of the last call that failed, on whichever thread. Besides the context's thread there are up to eight, where the
//            device is a GPU, that build shaders; they end when all are built.
// Devices    A context opens a device of its own, or works on the program's (pmt_context_adopt_vulkan). Of an adopted device nothing is ever
//            destroyed, and it must outlive everything that was made with the context: free those first, all of them.
// Processes  A graphics driver does not survive fork. In the child only what needs no handle works, every handle of the
//            parent is PMT_STATUS_BAD_ARGUMENT there; a child that is to use the library must call exec first.
// Sizes      Structures are given with their size, so that they can grow at the end. Numbers are never used for anything else.


#ifndef PENTIMENTO_H
#define PENTIMENTO_H

#include <stddef.h>
#include <stdint.h>

// Version of this header's functions and structures. Compare it with `pmt_abi_version` when linking dynamically. It
// changes only when a program built for the old one would break: new functions, and new fields at the end of
// structures, keep it.
#define PMT_ABI_VERSION 2

// The option of `pmt_vulkan_need` and `pmt_vulkan` for cooperative matrices: where the device has them, products are several times as fast.
#define PMT_VULKAN_MATRIX 1

// For `pmt_vulkan_image`: no queue family in particular.
#define PMT_ANY_FAMILY UINT32_MAX

// The outcome of a call, or of a job.
typedef enum pmt_status {
    // It worked.
    PMT_STATUS_OK = 0,
    // A NULL, size, setting or order of calls that cannot be.
    PMT_STATUS_BAD_ARGUMENT = 1,
    // A model, adapter or other file cannot be used as it is.
    PMT_STATUS_BAD_FILE = 2,
    // A file, tensor, adapter or device that must be there is not.
    PMT_STATUS_MISSING = 3,
    // The operating system, or the program's own reader or writer, refused to read or write.
    PMT_STATUS_IO = 4,
    // The GPU cannot run this, or failed while running it. The next job opens it anew.
    PMT_STATUS_DEVICE = 5,
    // Stopped by `pmt_job_cancel` or `pmt_context_cancel`, or what it worked on was freed.
    PMT_STATUS_CANCELLED = 6,
    // A bug in the library. What it was working on is of no more use: free it.
    PMT_STATUS_INTERNAL = 7,
    // A NaN or infinity in a file, or made by a training that diverged or by settings; the message names the first. The
    // adapter from before stays readable.
    PMT_STATUS_NOT_FINITE = 8,
    // No mistake: the job is not over, or there is nothing to fetch yet.
    PMT_STATUS_PENDING = 9,
    // The device has too little memory left.
    PMT_STATUS_OUT_OF_MEMORY = 10,
} pmt_status;

// What a job is doing.
typedef enum pmt_phase {
    // Other jobs go first.
    PMT_PHASE_WAITING = 0,
    // The device is opened.
    PMT_PHASE_OPENING = 1,
    // Weights and plans are made ready, and memory is planned.
    PMT_PHASE_LOADING = 2,
    // Prompts and references are encoded; `done` of `total` pieces.
    PMT_PHASE_ENCODING = 3,
    // Supervised steps on the references; `done` of `total`.
    PMT_PHASE_WARM = 4,
    // Iterations; `done` of `total` model runs within the one that follows `iteration`.
    PMT_PHASE_ITERATING = 5,
    // Sampling steps of all images; `done` of `total`.
    PMT_PHASE_DRAWING = 6,
    // Over.
    PMT_PHASE_OVER = 7,
} pmt_phase;

// How pixels lie in memory. 8-bit values are 0 to 255, others 0 to 1, all as displays take them (sRGB). Alpha is written as opaque; of a
// reference, it mixes with the `background` setting.
typedef enum pmt_format {
    // 3 bytes.
    PMT_FORMAT_RGB8 = 0,
    // 4 bytes.
    PMT_FORMAT_RGBA8 = 1,
    // 4 bytes, blue first.
    PMT_FORMAT_BGRA8 = 2,
    // 3 half-precision numbers.
    PMT_FORMAT_RGB16F = 3,
    // 4 half-precision numbers.
    PMT_FORMAT_RGBA16F = 4,
    // 3 single-precision numbers.
    PMT_FORMAT_RGB32F = 5,
    // 4 single-precision numbers.
    PMT_FORMAT_RGBA32F = 6,
} pmt_format;

// What happened to a job.
typedef enum pmt_event_kind {
    // The device is open; `text` is its name.
    PMT_EVENT_KIND_OPENED = 1,
    // Another `phase`.
    PMT_EVENT_KIND_PHASE = 2,
    // `done` of `total` pieces of the phase.
    PMT_EVENT_KIND_STEP = 3,
    // Step `done` of the warm start; its `loss`.
    PMT_EVENT_KIND_WARM = 4,
    // Iteration `iteration` is complete; its `metrics`.
    PMT_EVENT_KIND_ITERATION = 5,
    // A look at fixed pictures after `iteration`; `silhouettes` and `distance` as in `pmt_progress`; `text` says why training
    // ends here, or is empty.
    PMT_EVENT_KIND_LOOK = 6,
    // `pmt_job_preview` shows sampling step `done`.
    PMT_EVENT_KIND_PREVIEW = 7,
    // Something that is to be known; `text`.
    PMT_EVENT_KIND_NOTE = 8,
    // Over; `status`, and `text` where it failed.
    PMT_EVENT_KIND_OVER = 9,
    // A training waits for others: `total` pieces are to be made by `pmt_trainer_work` and given to `pmt_trainer_give`; `text` is `rollout` or
    // `gradients`.
    PMT_EVENT_KIND_WANTED = 10,
} pmt_event_kind;

// What a device is to be made with.
typedef enum pmt_vulkan_need_kind {
    // An extension of the VkInstance.
    PMT_VULKAN_NEED_KIND_INSTANCE_EXTENSION = 1,
    // An extension of the VkDevice.
    PMT_VULKAN_NEED_KIND_DEVICE_EXTENSION = 2,
    // A feature of the VkDevice.
    PMT_VULKAN_NEED_KIND_FEATURE = 3,
} pmt_vulkan_need_kind;

// A device and the thread that works on it: models, trainings, drawings and jobs belong to one.
typedef struct pmt_context pmt_context;

// Work of a context, under way or over.
typedef struct pmt_job pmt_job;

// A model's files.
typedef struct pmt_model pmt_model;

// A model to draw with, with or without adapters.
typedef struct pmt_pipeline pmt_pipeline;

// Settings of a training.
typedef struct pmt_settings pmt_settings;

// A training.
typedef struct pmt_trainer pmt_trainer;

// A device that can compute.
typedef struct pmt_device {
    // Bytes of its own memory; 0 where the system does not tell.
    uint64_t memory;
    // Its place in the list: the best one is 0.
    uint32_t index;
    // 1 for a driver that computes on the processor, else 0.
    uint32_t software;
    // Name as the driver gives it.
    char name[128];
    // PCI address such as "0000:01:00.0"; empty where the system tells none.
    char pci[32];
    // "vulkan", "metal", "dx12".
    char backend[32];
    // Driver and its version.
    char driver[128];
} pmt_device;

// Bytes on the device, of all that belongs to a context.
typedef struct pmt_memory {
    // Held now.
    uint64_t now;
    // Held when it was most.
    uint64_t peak;
    // Of `now`: weights, adapters and other parameters.
    uint64_t weights;
    // Of `now`: values between kernels.
    uint64_t activations;
    // Of `now`: all else.
    uint64_t other;
} pmt_memory;

// Takes a sentence, without a line's end, that ends in 0. Called on the context's own thread, which waits for it:
// it must not call what waits.
typedef void (*pmt_log)(void *user, const char *text);

// What one iteration did.
typedef struct pmt_metrics {
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
    // How well the gradients of two halves of the images agree, a cosine; -2 where all went through in one run.
    float agreement;
    // Learning rate of the last optimiser step.
    float rate;
    // Mean squared distance from the warm start's velocities where noise is high.
    float anchor_loss;
    // Loss of the last supervised step.
    float supervised_loss;
    // Seconds of work it took, pauses not counted.
    float seconds;
} pmt_metrics;

// How far a job is. Numbers of the last complete iteration stay until the next one is complete.
typedef struct pmt_progress {
    // One of `pmt_phase`: where `done` and `total` belong.
    uint32_t phase;
    // PMT_STATUS_PENDING, or how the job ended.
    uint32_t status;
    // Pieces of this phase.
    uint32_t done;
    // All pieces of this phase; 0 while unknown.
    uint32_t total;
    // Iterations complete.
    uint32_t iteration;
    // All iterations; 0 where time decides, and for drawings.
    uint32_t iterations;
    // Seconds of work to the end at the speed so far; -1 while unknown.
    float seconds_left;
    // Loss of the last supervised step.
    float warm_loss;
    // How far fixed pictures keep the base model's shapes at the last look, 0 to 1; -1 where those have no background, and
    // before the first look.
    float silhouettes;
    // How far they are from the references, in units of the references' deviations; -1 before the first look.
    float distance;
    // Iteration of the best look so far; 0: the warm start's. It is the adapter's when the last look is worse.
    uint32_t best_iteration;
    // Of the last complete iteration.
    struct pmt_metrics metrics;
} pmt_progress;

// An event. Fields that its kind does not name are 0.
typedef struct pmt_event {
    // One of `pmt_event_kind`.
    uint32_t kind;
    // One of `pmt_phase`.
    uint32_t phase;
    // One of `pmt_status`.
    uint32_t status;
    // See the kinds.
    uint32_t done;
    // See the kinds.
    uint32_t total;
    // See the kinds.
    uint32_t iteration;
    // See the kinds.
    float loss;
    // See the kinds.
    float silhouettes;
    // See the kinds.
    float distance;
    // See the kinds.
    struct pmt_metrics metrics;
    // UTF-8 that ends in 0, cut between characters where it is longer.
    char text[256];
} pmt_event;

// An image in the program's memory, to be read or written.
typedef struct pmt_image {
    // The first row, the uppermost.
    void *pixels;
    // Bytes that may be used from there.
    size_t bytes;
    // Bytes from one row to the next; 0: no padding. The last row needs none.
    size_t stride;
    // Pixels, 1 to 16384.
    uint32_t width;
    // Pixels, 1 to 16384.
    uint32_t height;
    // One of `pmt_format`.
    uint32_t format;
    // 0.
    uint32_t reserved;
} pmt_image;

// A file of the program's own.
typedef struct pmt_file {
    // Its name inside the model's folder, with `/` between parts: "transformer/config.json".
    const char *name;
    // Its bytes, if they are in memory: they have to stay until everything that was made with the model is freed. NULL: they are read when
    // they are needed.
    const void *data;
    // How many they are.
    uint64_t bytes;
} pmt_file;

// Reads `len` bytes of the file of an index from `offset` on into `into`. Not 0: it could not. Called until everything that was made with the
// model is freed, on any thread, several at a time; it must not call what waits.
typedef int32_t (*pmt_read)(void *user, uint32_t file, uint64_t offset, void *into, size_t len);

// What is to be drawn. Start from `pmt_drawing_default`.
typedef struct pmt_drawing {
    // Bytes of this structure in the program, set by `pmt_drawing_default`.
    uint64_t size;
    // A prompt for each image.
    const char *const *prompts;
    // A seed for each image; NULL: 0, 1, 2 and so on. Equal parameters give equal images on one device.
    const uint64_t *seeds;
    // What guidance leads away from; NULL: nothing in particular.
    const char *negative;
    // Images, 1 to 1024.
    uint32_t count;
    // Pixels; 0: the side of the images that the model was trained on.
    uint32_t width;
    // Pixels; 0: as for `width`.
    uint32_t height;
    // Sampling steps, 1 to 1000.
    uint32_t steps;
    // Images sampled at once: more are faster and take more memory.
    uint32_t batch;
    // Sampling steps from one preview to the next; 0: none. Each takes a run of the decoder. Not from trainers.
    uint32_t preview;
    // Classifier-free guidance; 1 turns it off.
    float guidance;
    // 0.
    uint32_t reserved;
} pmt_drawing;

// A setting of a training. All texts are static.
typedef struct pmt_setting {
    // Its name, as in "optim.rate".
    const char *name;
    // What it may be, a part of a sentence.
    const char *expected;
    // What it counts; empty where it has no unit.
    const char *unit;
    // What it is.
    const char *about;
    // Where it comes from: a paper, the released code, or this library.
    const char *source;
} pmt_setting;

// Takes `len` bytes, all of them in one call. Not 0: it could not, which is PMT_STATUS_IO for the call it was given to. Called before that call
// returns, on its thread.
typedef int32_t (*pmt_write)(void *user, const uint8_t *bytes, size_t len);

// What a training takes.
typedef struct pmt_estimate {
    // Most bytes on the device at a time.
    uint64_t peak;
    // Of these: weights, adapters and other parameters.
    uint64_t weights;
    // Of these: values between kernels.
    uint64_t activations;
    // Bytes of a saved state, and of the program's memory for it.
    uint64_t state;
    // Floating-point operations of everything before the first iteration.
    double work_before;
    // Floating-point operations of an iteration.
    double work_iteration;
} pmt_estimate;

// Takes or gives back the program's lock on a queue. Called on the context's own thread, and on those that free the last of a context.
typedef void (*pmt_lock)(void *user);

// A program's Vulkan device. Vulkan's own handles, as they are.
typedef struct pmt_vulkan {
    // `sizeof(pmt_vulkan)`.
    uint64_t size;
    // vkGetInstanceProcAddr.
    const void *get_instance_proc_addr;
    // VkInstance.
    void *instance;
    // VkPhysicalDevice. NULL for `pmt_vulkan_needs`: tell of the instance only.
    void *physical_device;
    // VkDevice. Not looked at by `pmt_vulkan_needs`.
    void *device;
    // The instance's extensions, `instance_extension_count` strings.
    const char *const *instance_extensions;
    // The device's extensions, `device_extension_count` strings.
    const char *const *device_extensions;
    // Where the program uses the queue, too, or calls vkDeviceWaitIdle: takes the lock under which it does. Held while something is
    // submitted and while the queue is let go of, never while work is waited for. NULL: the queue is the library's alone.
    pmt_lock lock;
    // Gives the lock back. NULL exactly where `lock` is.
    pmt_lock unlock;
    // Given to both.
    void *user;
    // How many.
    uint32_t instance_extension_count;
    // How many.
    uint32_t device_extension_count;
    // The version in the VkApplicationInfo of the instance: at least the device's own, or VK_API_VERSION_1_3 where that is lower.
    uint32_t api_version;
    // A family of queues that can compute.
    uint32_t queue_family;
    // The queue in the family, best one of its own: work then runs beside the program's.
    uint32_t queue_index;
    // The options, all of whose needs the device was made with: PMT_VULKAN_MATRIX or 0.
    uint32_t options;
} pmt_vulkan;

// Something that a device is to be made with.
typedef struct pmt_vulkan_need {
    // One of `pmt_vulkan_need_kind`.
    uint32_t kind;
    // 0: there is no doing without. Else the option that it belongs to, PMT_VULKAN_MATRIX.
    uint32_t option;
    // Of a feature: the VkStructureType of the structure that has it, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2 for those of
    // VkPhysicalDeviceFeatures. Where the program uses a VkPhysicalDeviceVulkan11Features or a later one, that one has it by the same name.
    uint32_t structure;
    // Of a feature: where its VkBool32 lies in that structure, bytes.
    uint32_t offset;
    // The extension's name, or "VkPhysicalDevice...Features.feature"; ends in 0.
    char name[128];
} pmt_vulkan_need;

// A VkImage or a VkBuffer of the program's on the adopted device, and when it may be written.
typedef struct pmt_vulkan_image {
    // `sizeof(pmt_vulkan_image)`.
    uint64_t size;
    // VkImage, with VK_IMAGE_USAGE_TRANSFER_DST_BIT, of one sample and the size of the job's images; its first level and layer are written. 0
    // for a buffer.
    uint64_t image;
    // VkBuffer, with VK_BUFFER_USAGE_TRANSFER_DST_BIT; rows follow each other without padding. 0 for an image.
    uint64_t buffer;
    // Of a buffer: the byte where the first row begins.
    uint64_t offset;
    // VkSemaphore that is waited for before the memory is written; 0: none.
    uint64_t wait_semaphore;
    // The value waited for; 0 for a binary semaphore.
    uint64_t wait_value;
    // VkSemaphore that is signalled when the image is there; 0: none, and the call waits for the copy.
    uint64_t signal_semaphore;
    // The value signalled; 0 for a binary semaphore.
    uint64_t signal_value;
    // One of `pmt_format`, in which the image's texels or the buffer's pixels are: PMT_FORMAT_RGBA8 for VK_FORMAT_R8G8B8A8_UNORM and _SRGB,
    // PMT_FORMAT_RGBA16F for VK_FORMAT_R16G16B16A16_SFLOAT and so on.
    uint32_t format;
    // The image's VkImageLayout before; VK_IMAGE_LAYOUT_UNDEFINED (0) where its content is of no use.
    uint32_t old_layout;
    // The image's VkImageLayout after: not VK_IMAGE_LAYOUT_UNDEFINED.
    uint32_t new_layout;
    // The queue family that owns the memory afterwards, where it is of exclusive sharing mode and the program's is another one than the
    // context's: the program acquires it there. PMT_ANY_FAMILY: ownership stays as it is.
    uint32_t family;
} pmt_vulkan_image;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, such as "0.1.0". Static.
const char *pmt_version(void);

// `PMT_ABI_VERSION` of the library.
uint32_t pmt_abi_version(void);

// Lists the devices that can compute, the best one first: at most `capacity` of them into `devices`, each of `size` bytes
// (`sizeof(pmt_device)`), and in `count` how many there are; so `devices` may be NULL when `capacity` is 0. Asks the drivers: up to
// a second.
enum pmt_status pmt_devices(struct pmt_device *devices,
                            size_t size,
                            uint32_t capacity,
                            uint32_t *count);

// Makes a context. `device` is a device's index, PCI id ("0000:01:00.0") or name, or a part of the name that no other one has;
// NULL or "" for the best one. Starts a thread and returns at once: the device is opened, and the choice judged, by the first job or
// by `pmt_context_open`.
enum pmt_status pmt_context_new(const char *device,
                                struct pmt_context **context);

// Frees a context. What was made with it lives on, and so do its device and its thread, until the last of it is freed; but
// messages can no longer be read.
void pmt_context_free(struct pmt_context *context);

// Copies the sentence about the last call that failed on this context or what was made with it; "" before. At most
// `len` bytes, the final 0 included, cut between characters. Gives the length of the whole sentence without the 0; so
// `buffer` may be NULL when `len` is 0. Gives 0 when `context` is NULL. Returns at once.
size_t pmt_error_message(const struct pmt_context *context,
                         char *buffer,
                         size_t len);

// Gives the context time, once a frame: microseconds of the GPU and of the context's own thread. Work takes it in pieces of half of
// `gpu_us`; no more than two pieces, and no more than `gpu_us` together, are ever submitted and not done, however rarely or often this is called.
// What is not used is lost, and what took longer is taken off later calls. A piece is as long as its longest kernel at least, and then the
// only one: kernels are cut to what the device makes in 2 ms, measured when it is opened, copies of weights to 32 MB. How
// long pieces take is learnt from the GPU's own clock where it has one. 0 pauses. Before the first call, and after one with UINT32_MAX for both, work goes as fast as it can. While another thread waits in
// a function that waits, budgets are not kept. For every thread. Returns at once.
enum pmt_status pmt_context_poll(const struct pmt_context *context,
                                 uint32_t gpu_us,
                                 uint32_t cpu_us);

// Opens the device now, and so tells whether there is one, instead of with the first job. Waits: seconds.
enum pmt_status pmt_context_open(const struct pmt_context *context);

// Tells what the context holds on the device. `size` is `sizeof(pmt_memory)`. Waits for the piece of work in progress.
enum pmt_status pmt_context_memory(const struct pmt_context *context,
                                   struct pmt_memory *memory,
                                   size_t size);

// Limits what all work of this context holds on the device together, in bytes; UINT64_MAX lifts it. A training that begins later keeps to
// it as to its setting `memory`, or its job is PMT_STATUS_BAD_ARGUMENT with the least that would do; a drawing for which there is no more room
// frees its model's weights and has them come from the host's memory for each run, and where that is not enough is
// PMT_STATUS_OUT_OF_MEMORY. What is held already stays. Counted is what `pmt_context_memory` tells, without what a driver adds for itself.
// For every thread. Returns at once.
enum pmt_status pmt_context_limit_memory(const struct pmt_context *context,
                                         uint64_t bytes);

// Cancels all jobs of this context. For every thread. Returns at once.
enum pmt_status pmt_context_cancel(const struct pmt_context *context);

// Names a function that is told what happens, and what it is given; NULL for none. Returns at once.
enum pmt_status pmt_context_log(const struct pmt_context *context, pmt_log log, void *user);

// Names a file that keeps what the driver builds of the library's kernels, so that later programs start faster; NULL for none,
// which is how a context begins. It is read when the device is opened and written, whole, when the context ends; a
// driver that cannot do it leaves it alone, and a file that is missing, damaged or another device's costs nothing but time. A driver
// believes what is in it: keep it where nobody else writes. Its folder must be there. Returns at once.
enum pmt_status pmt_context_pipeline_cache(const struct pmt_context *context,
                                           const char *file);

// Tells how far a job is. `size` is `sizeof(pmt_progress)`. For every thread. Returns at once.
enum pmt_status pmt_job_progress(const struct pmt_job *job,
                                 struct pmt_progress *progress,
                                 size_t size);

// Fetches the oldest event that was not fetched yet; PMT_STATUS_PENDING where there is none. 4096 are kept, the oldest lost first. `size` is
// `sizeof(pmt_event)`. For every thread. Returns at once.
enum pmt_status pmt_job_event(const struct pmt_job *job,
                              struct pmt_event *event,
                              size_t size);

// Waits until a job is over, at most so many milliseconds, UINT32_MAX for as long as it takes: gives its status, and PMT_STATUS_PENDING
// where time ran out. The context's budgets are not kept meanwhile. For every thread.
enum pmt_status pmt_job_wait(const struct pmt_job *job,
                             uint32_t milliseconds);

// Pauses a job after the piece of work in progress, or with `paused` 0 goes on. Other jobs of the context go on meanwhile, but for later
// drawings of the same pipeline or trainer. For every thread. Returns at once.
enum pmt_status pmt_job_pause(const struct pmt_job *job,
                              uint32_t paused);

// Ends a job after the piece of work in progress. A training keeps what it has learnt and can be started again. For every thread.
// Returns at once.
enum pmt_status pmt_job_cancel(const struct pmt_job *job);

// Copies the sentence of a job that failed, as `pmt_error_message` does, and gives its length; 0 for any other job. For every thread. Returns at
// once.
size_t pmt_job_message(const struct pmt_job *job,
                       char *buffer,
                       size_t len);

// The size of the images that a drawing gives, or of its preview; PMT_STATUS_PENDING before the first one is there. Returns at once.
enum pmt_status pmt_job_image_size(const struct pmt_job *job,
                                   uint32_t *width,
                                   uint32_t *height);

// Writes the image of an index, from 0, of a drawing into the program's memory; PMT_STATUS_PENDING before it is there. Every image can be
// fetched as often as one likes until the job is freed. For every thread. Milliseconds.
enum pmt_status pmt_job_image(const struct pmt_job *job,
                              uint32_t index,
                              const struct pmt_image *image);

// Writes the last preview of a drawing, as `pmt_job_image` does an image: what the first image under way would be if its last step's
// direction held.
enum pmt_status pmt_job_preview(const struct pmt_job *job,
                                const struct pmt_image *image);

// Frees a job, which is cancelled if it is not over.
void pmt_job_free(struct pmt_job *job);

// Opens a model's files: a diffusers folder of an SD3-family model, or a single file with what it lacks (tokenizers) in folders
// beside it. Reads configurations and maps weights, milliseconds. Leave the files alone until everything that was made with it is freed.
enum pmt_status pmt_model_open(const struct pmt_context *context,
                               const char *path,
                               struct pmt_model **model);

// As `pmt_model_open`, with `count` files of the program's own, from an archive or from memory, named as in a model's folder; `file`
// says which of them is a single file's model, and is NULL for a diffusers folder. Weights that are not in memory are read
// whole into it when they are needed. `read` may be NULL where all are in memory.
enum pmt_status pmt_model_open_files(const struct pmt_context *context,
                                     const struct pmt_file *files,
                                     size_t count,
                                     const char *file,
                                     pmt_read read,
                                     void *user,
                                     struct pmt_model **model);

// Frees a model. What was made with it keeps what it needs.
void pmt_model_free(struct pmt_model *model);

// Makes a model ready to draw, which the first drawing completes. Pipelines and trainings of one model and one context share its weights.
// Of `settings`, which may be NULL, the ones called `base`, `stream` and `text_tokens` count. Milliseconds.
enum pmt_status pmt_pipeline_new(const struct pmt_model *model,
                                 const struct pmt_settings *settings,
                                 struct pmt_pipeline **pipeline);

// Frees a pipeline, with its part of the device's memory. Drawings that are not done are cancelled.
void pmt_pipeline_free(struct pmt_pipeline *pipeline);

// The side, in pixels, of the square images the model was trained on. Returns at once.
enum pmt_status pmt_pipeline_resolution(const struct pmt_pipeline *pipeline, uint32_t *side);

// Attaches the adapter of a LoRA file or folder, from the next drawing on: adapters add up, and their ranks and layers may differ.
// `strength`: 1 is as trained, 0 nothing, a negative one takes away what the adapter learnt. `id` names it for later calls. One that
// does not fit the model in every part is refused. Not while a drawing is under way. Waits for the piece of work in progress; milliseconds.
enum pmt_status pmt_pipeline_attach(struct pmt_pipeline *pipeline,
                                    const char *path,
                                    float strength,
                                    uint32_t *id);

// As `pmt_pipeline_attach`, with the bytes of a safetensors file. Copied.
enum pmt_status pmt_pipeline_attach_bytes(struct pmt_pipeline *pipeline,
                                          const uint8_t *adapter,
                                          size_t len,
                                          float strength,
                                          uint32_t *id);

// Gives an attached adapter another strength, from the next drawing on. Not while one is under way. Waits for the piece of work in progress.
enum pmt_status pmt_pipeline_set_strength(struct pmt_pipeline *pipeline,
                                          uint32_t id,
                                          float strength);

// Takes an adapter away, from the next drawing on. Not while one is under way. Waits for the piece of work in progress.
enum pmt_status pmt_pipeline_detach(struct pmt_pipeline *pipeline,
                                    uint32_t id);

// Frees what the device holds of a pipeline until the next drawing, which brings it back. Waits for the piece of work in progress.
enum pmt_status pmt_pipeline_unload(struct pmt_pipeline *pipeline);

// Fills in a drawing: an image of the model's own size, 28 steps, guidance 4.5. `size` is `sizeof(pmt_drawing)`; one that is larger
// than the library knows, so of a newer header, is PMT_STATUS_BAD_ARGUMENT. Returns at once.
enum pmt_status pmt_drawing_default(struct pmt_drawing *drawing,
                                    size_t size);

// Begins a drawing. Drawings go before trainings. Prompts are encoded once and kept; their encoders leave the device again. Returns at
// once.
enum pmt_status pmt_pipeline_draw(struct pmt_pipeline *pipeline,
                                  const struct pmt_drawing *drawing,
                                  struct pmt_job **job);

// Makes the settings of a recipe: "pathwise", "grpo", "flow-grpo", "nft", "sft", "released"; of a preset, as GPUs have it: "quick", "balanced",
// "thorough", "official"; or NULL for the recommended ones. Returns at once.
enum pmt_status pmt_settings_new(const struct pmt_context *context,
                                 const char *recipe,
                                 struct pmt_settings **settings);

// Frees settings. Trainings made with them keep theirs.
void pmt_settings_free(struct pmt_settings *settings);

// Sets the setting of a name, such as "optim.rate", to what a text says: numbers, "true" and "false", names, sizes such as "6GB", colours
// such as "#ffffff", "none". What cannot be changes nothing. Returns at once.
enum pmt_status pmt_settings_set(struct pmt_settings *settings,
                                 const char *name,
                                 const char *value);

// Copies the text of the setting of a name, which `pmt_settings_set` takes for the same value, as `pmt_error_message` copies its
// sentence; `needed` gets its length with the final 0, and may be NULL. Returns at once.
enum pmt_status pmt_settings_get(const struct pmt_settings *settings,
                                 const char *name,
                                 char *buffer,
                                 size_t len,
                                 size_t *needed);

// Whether these settings can work together; a training asks the same. Returns at once.
enum pmt_status pmt_settings_check(const struct pmt_settings *settings);

// Describes the setting of an index, from 0; PMT_STATUS_MISSING beyond the last one. `size` is `sizeof(pmt_setting)`. Returns at once.
enum pmt_status pmt_settings_describe(uint32_t index,
                                      struct pmt_setting *setting,
                                      size_t size);

// Lets others make rollouts and gradients of a training's iterations, in up to so many pieces; to be called before it is started. Whenever
// PMT_EVENT_WANTED comes, give what `pmt_trainer_write_shared` writes to other trainers of the same model, settings, prompts and references, in
// this process or on other machines; let each make some of the pieces with `pmt_trainer_work`, and bring them to `pmt_trainer_give`. A
// piece that is lost can be made again by any of them. The warm start, the head, optimiser steps and looks stay here. All must take
// equally many images at once: where `memory` would make that differ, set `at_once.train`. 0: everything is made here. Returns at once.
enum pmt_status pmt_trainer_spread(struct pmt_trainer *trainer,
                                   uint32_t pieces);

// Gives what others must know to make the pieces that a training waits for: the adapter, and for gradients the pictures and the head.
// PMT_STATUS_BAD_ARGUMENT while it waits for none.
enum pmt_status pmt_trainer_write_shared(struct pmt_trainer *trainer,
                                         pmt_write write,
                                         void *user);

// Takes in a piece, from 0, that `pmt_trainer_write_made` of another trainer wrote. Copied. `missing` gets how many are still to come, and may
// be NULL; with the last one the training goes on. One that was given already changes nothing. What is not that piece is refused with a
// sentence, and the training waits on. Waits for the piece of work in progress; milliseconds.
enum pmt_status pmt_trainer_give(struct pmt_trainer *trainer,
                                 uint32_t piece,
                                 const uint8_t *made,
                                 size_t len,
                                 uint32_t *missing);

// Begins to make a piece, from 0, for another trainer: `shared` is what its `pmt_trainer_write_shared` gave. Copied. A trainer that works for
// others trains nothing of its own; its first job also reads prompts and references. One job at a time, of any iteration, in any order.
// What does not fit is told by the job. Returns at once.
enum pmt_status pmt_trainer_work(struct pmt_trainer *trainer,
                                 const uint8_t *shared,
                                 size_t len,
                                 uint32_t piece,
                                 struct pmt_job **job);

// Gives the piece that the last job of `pmt_trainer_work` made, once. PMT_STATUS_MISSING where there is none.
enum pmt_status pmt_trainer_write_made(struct pmt_trainer *trainer,
                                       pmt_write write,
                                       void *user);

// Makes a training. `reward` is the folder of a Dinov2Model, or of a CLIPModel such as PickScore's, or NULL for the folder `reward` inside the model's; `settings` NULL for the recommended
// ones. Reads configurations, milliseconds.
enum pmt_status pmt_trainer_new(const struct pmt_model *model,
                                const char *reward,
                                const struct pmt_settings *settings,
                                struct pmt_trainer **trainer);

// Frees a training, with its part of the device's memory. What it has learnt and nobody saved is lost; its job is cancelled.
void pmt_trainer_free(struct pmt_trainer *trainer);

// The training resolution in pixels. References may have any size: they are brought to this one as the setting `fit`
// says. Returns at once.
enum pmt_status pmt_trainer_resolution(const struct pmt_trainer *trainer,
                                       uint32_t *width,
                                       uint32_t *height);

// Adds a reference image, before the training is started. `caption` says what it shows, NULL: nothing. Copied. Milliseconds.
enum pmt_status pmt_trainer_add_reference(struct pmt_trainer *trainer,
                                          const struct pmt_image *image,
                                          const char *caption);

// Adds the PNG, JPEG or WebP image of a file, or those of a folder in the order of their names, before the training is started.
// `caption` says what all of them show; NULL: what is beside them in NAME.txt, NAME.png.txt, NAME.caption, metadata.jsonl or metadata.csv. They are
// turned upright. `count` gets how many they are, and may be NULL. Where one cannot be read none is added. As long as reading them takes.
enum pmt_status pmt_trainer_add_references(struct pmt_trainer *trainer,
                                           const char *path,
                                           const char *caption,
                                           uint32_t *count);

// Adds a prompt to draw from while training, before the training is started. Without any, the captions serve. Returns at once.
enum pmt_status pmt_trainer_add_prompt(struct pmt_trainer *trainer,
                                       const char *prompt);

// Goes on with a training that `pmt_trainer_save_state` wrote: to be called before the start of a training of the same model,
// reward, settings, prompts and references, but for more `iterations`; the setting `seconds` counts those of the saved one, too. The
// file is read now; whether it fits is told by the job, with a sentence that names the difference.
enum pmt_status pmt_trainer_resume(struct pmt_trainer *trainer,
                                   const char *path);

// As `pmt_trainer_resume`, with the bytes of such a file. Copied.
enum pmt_status pmt_trainer_resume_bytes(struct pmt_trainer *trainer,
                                         const uint8_t *state,
                                         size_t len);

// Tells what a training would take, before it is started; with the setting `memory`, within that. `size` is `sizeof(pmt_estimate)`. Opens
// the device, if that has not happened, but puts nothing on it. Waits: seconds with a large model.
enum pmt_status pmt_trainer_estimate(struct pmt_trainer *trainer,
                                     struct pmt_estimate *estimate,
                                     size_t size);

// Starts a training, or goes on with one whose job was cancelled or failed: after a lost device, or where memory ran out, on a device opened anew
// from the last moment between two stages, in the second case with less at once. The job ends when all iterations are complete. Returns at once.
enum pmt_status pmt_trainer_start(struct pmt_trainer *trainer,
                                  struct pmt_job **job);

// Begins a drawing with the adapter that `pmt_trainer_save_adapter` would write; training goes on as if nothing had been
// drawn. One that is paused in the middle lets the training go on, and begins its image anew. No previews. Not before the training was loaded.
enum pmt_status pmt_trainer_draw(struct pmt_trainer *trainer,
                                 const struct pmt_drawing *drawing,
                                 struct pmt_job **job);

// Writes the adapter as it is now, averaged over the iterations, or the best one seen if the last look (see the setting
// `watch.every`) found that one worse, as a safetensors file that diffusers, ComfyUI and
// stable-diffusion.cpp read. Not before the model was loaded. A reader never sees half a file. Waits for the piece of work in
// progress; milliseconds.
enum pmt_status pmt_trainer_save_adapter(struct pmt_trainer *trainer,
                                         const char *path);

// As `pmt_trainer_save_adapter`, with the file's bytes given to the program.
enum pmt_status pmt_trainer_write_adapter(struct pmt_trainer *trainer, pmt_write write, void *user);

// Writes all that the training is, as of the last moment between two of its stages or two steps of the warm start: adapter, averages,
// optimisers, reward head, random streams. `pmt_trainer_resume` goes on from there to the same adapter, bit for bit, on the same device
// and driver. After a failure, a lost device for one, too. PMT_STATUS_MISSING while prompts and references are still being
// prepared: there is nothing to save then. A reader never sees half a file, and the one that is replaced stays whole until then. Waits for
// the piece of work in progress, and as long as writing takes: the file is about six adapters and the images that the head remembers.
enum pmt_status pmt_trainer_save_state(struct pmt_trainer *trainer,
                                       const char *path);

// As `pmt_trainer_save_state`, with the file's bytes given to the program.
enum pmt_status pmt_trainer_write_state(struct pmt_trainer *trainer, pmt_write write, void *user);

// Lists what a program's VkInstance and VkDevice must be made with to be adopted: at most `capacity` needs into `needs`, each of `size` bytes
// (`sizeof(pmt_vulkan_need)`), and in `count` how many there are; so `needs` may be NULL when `capacity` is 0. Without a physical device, and
// on an instance that lacks a need of its own, only the instance's are told. PMT_STATUS_DEVICE where the physical device cannot be used, or
// where the library has no Vulkan. Milliseconds.
enum pmt_status pmt_vulkan_needs(const struct pmt_vulkan *vulkan,
                                 struct pmt_vulkan_need *needs,
                                 size_t size,
                                 uint32_t capacity,
                                 uint32_t *count);

// Makes a context that works on a program's Vulkan device. Checked, and adopted, by the first job or by `pmt_context_open`, which tells what
// is wrong. The instance, the device and what `user` points to must live until everything that was made with the context is freed, and the
// context too; the structure and its strings only during this call. Nothing of the program's is destroyed. What `pmt_vulkan_needs`
// lists must have been enabled: extensions are checked, features cannot be. Where no `lock` is given nobody else may use the queue, and
// nobody call vkDeviceWaitIdle meanwhile. Returns at once.
enum pmt_status pmt_context_adopt_vulkan(const struct pmt_vulkan *vulkan,
                                         struct pmt_context **context);

// The same for an MTLDevice and an MTLCommandQueue. Not supported yet: `pmt_context_open` and jobs are PMT_STATUS_DEVICE and say so. Returns at
// once.
enum pmt_status pmt_context_adopt_metal(void *device,
                                        void *queue,
                                        struct pmt_context **context);

// The same for an ID3D12Device and an ID3D12CommandQueue. Not supported yet: `pmt_context_open` and jobs are PMT_STATUS_DEVICE and say so.
// Returns at once.
enum pmt_status pmt_context_adopt_d3d12(void *device,
                                        void *queue,
                                        struct pmt_context **context);

// Copies the image of an index, from 0, of a drawing into memory of the program whose Vulkan device the context adopted, on that device and on the
// context's queue; PMT_STATUS_PENDING before the image is there. Waits for the piece of work in progress; then, with a semaphore to
// signal, only until the copy is submitted, and else until it is done. The memory and the semaphores must live until then. A semaphore
// to wait for must be signalled by work that is submitted already, unless it is a timeline's.
enum pmt_status pmt_job_copy_image(const struct pmt_job *job,
                                   uint32_t index,
                                   const struct pmt_vulkan_image *image);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PENTIMENTO_H */
