// A program with a Vulkan device of its own, which the library works on. Run by tests/tests/adopt.rs.
//
//   adopt MODEL    draws on the program's device, once on a queue of the library's own where there are two, once on the program's
//                  queue under a lock, and copies the image into the program's buffer and image
//
// With Vulkan's validation layer, where it is installed: what it objects to is a failure.
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <vulkan/vulkan.h>

#define VK(call)                                                                 \
    do {                                                                         \
        VkResult got = (call);                                                   \
        if (got != VK_SUCCESS) {                                                 \
            printf("adopt.c:%d: %s gave %d\n", __LINE__, #call, got);            \
            exit(1);                                                             \
        }                                                                        \
    } while (0)

enum { MOST = 128 };
static pmt_vulkan_need needs[MOST];
static uint32_t need_count;
static VkInstance instance;
static VkDebugUtilsMessengerEXT messenger;
static VkPhysicalDevice physical;
static VkDevice device;
static VkQueue own_queue;
static uint32_t queues;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static atomic_int taken, given_back;

static void take(void *user) {
    CHECK(user == &mutex);
    pthread_mutex_lock(&mutex);
    taken++;
}
static void give(void *user) {
    CHECK(user == &mutex);
    given_back++;
    pthread_mutex_unlock(&mutex);
}

static VkBool32 objects(VkDebugUtilsMessageSeverityFlagBitsEXT severity, VkDebugUtilsMessageTypeFlagsEXT kind,
                        const VkDebugUtilsMessengerCallbackDataEXT *data, void *user) {
    (void)severity, (void)kind, (void)user;
    printf("validation: %s\n", data->pMessage);
    failures++;
    return VK_FALSE;
}

// What the library wants of this device; names of one kind, mandatory ones and those of the options that are there.
static void ask(pmt_vulkan *vulkan) {
    OK(pmt_vulkan_needs(vulkan, needs, sizeof *needs, MOST, &need_count));
    CHECK(need_count > 0 && need_count <= MOST);
}
static uint32_t names_of(uint32_t kind, const char *names[MOST]) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < need_count; i++)
        if (needs[i].kind == kind) names[count++] = needs[i].name;
    return count;
}

static void make_instance(pmt_vulkan *vulkan) {
    static char own[MOST][128];
    static const char *names[MOST + 1];
    ask(vulkan);
    uint32_t count = names_of(PMT_VULKAN_NEED_KIND_INSTANCE_EXTENSION, names);
    for (uint32_t i = 0; i < count; i++) names[i] = strcpy(own[i], names[i]);
    vulkan->instance_extensions = names;
    vulkan->instance_extension_count = count;
    VkLayerProperties layers[64];
    uint32_t layer_count = 64, validates = 0;
    vkEnumerateInstanceLayerProperties(&layer_count, layers);
    const char *layer = "VK_LAYER_KHRONOS_validation";
    for (uint32_t i = 0; i < layer_count; i++) validates |= !strcmp(layers[i].layerName, layer);
    printf(validates ? "with the validation layer\n" : "SKIPPED: no validation layer; Debian: vulkan-validationlayers\n");
    names[count] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    VkApplicationInfo application = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_3};
    VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pApplicationInfo = &application,
        .enabledLayerCount = validates,
        .ppEnabledLayerNames = &layer,
        .enabledExtensionCount = count + validates,
        .ppEnabledExtensionNames = names,
    };
    VK(vkCreateInstance(&info, NULL, &instance));
    vulkan->instance = instance;
    vulkan->api_version = VK_API_VERSION_1_3;
    PFN_vkCreateDebugUtilsMessengerEXT create =
        (PFN_vkCreateDebugUtilsMessengerEXT)vkGetInstanceProcAddr(instance, "vkCreateDebugUtilsMessengerEXT");
    VkDebugUtilsMessengerCreateInfoEXT watch = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT,
        .pfnUserCallback = objects,
    };
    if (validates && create) VK(create(instance, &watch, NULL, &messenger));
}

// Any structure of features: a type, a successor, and room for as many features as the largest has.
struct features {
    VkBaseOutStructure head;
    VkBool32 on[64];
};

static void make_device(pmt_vulkan *vulkan) {
    static const char *names[MOST];
    static struct features chain[MOST];
    uint32_t links = 0, one = 1;
    VK(vkEnumeratePhysicalDevices(instance, &one, &physical) < 0 ? VK_ERROR_UNKNOWN : VK_SUCCESS);
    vulkan->physical_device = physical;
    ask(vulkan);
    vulkan->device_extension_count = names_of(PMT_VULKAN_NEED_KIND_DEVICE_EXTENSION, names);
    vulkan->device_extensions = names;
    for (uint32_t i = 0; i < need_count; i++) {
        if (needs[i].option) vulkan->options |= needs[i].option;
        if (needs[i].kind != PMT_VULKAN_NEED_KIND_FEATURE) continue;
        uint32_t at = 0;
        while (at < links && chain[at].head.sType != (VkStructureType)needs[i].structure) at++;
        if (at == links) {
            chain[at].head.sType = (VkStructureType)needs[i].structure;
            if (at) chain[at - 1].head.pNext = &chain[at].head;
            links++;
        }
        memcpy((char *)&chain[at] + needs[i].offset, &(VkBool32){VK_TRUE}, sizeof(VkBool32));
    }
    VkQueueFamilyProperties family;
    one = 1;
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &one, &family);
    queues = family.queueCount > 1 ? 2 : 1;
    const float priorities[2] = {1, 0.5};
    VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueCount = queues, .pQueuePriorities = priorities};
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = links ? &chain[0] : NULL,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = vulkan->device_extension_count,
        .ppEnabledExtensionNames = names,
    };
    VK(vkCreateDevice(physical, &info, NULL, &device));
    vkGetDeviceQueue(device, 0, 0, &own_queue);
    vulkan->device = device;
    printf("%u needs, %u structures of features, %u queue(s)\n", need_count, links, queues);
}

// The program's own use of its queue: commands that wait, copy and are waited for.
static void submit(VkCommandBuffer commands, VkSemaphore wait) {
    VkPipelineStageFlags stage = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
    VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .waitSemaphoreCount = wait != VK_NULL_HANDLE,
        .pWaitSemaphores = &wait,
        .pWaitDstStageMask = &stage,
        .commandBufferCount = commands != NULL,
        .pCommandBuffers = &commands,
    };
    VkFenceCreateInfo new_fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    VkFence fence;
    VK(vkCreateFence(device, &new_fence, NULL, &fence));
    pthread_mutex_lock(&mutex);
    VK(vkQueueSubmit(own_queue, 1, &info, fence));
    pthread_mutex_unlock(&mutex);
    VK(vkWaitForFences(device, 1, &fence, VK_TRUE, 60000000000));
    vkDestroyFence(device, fence, NULL);
}

static atomic_int busy;
static void *frames(void *unused) {
    while (busy) submit(NULL, VK_NULL_HANDLE);
    return unused;
}

// Memory that the program can read.
static uint32_t memory_type(uint32_t bits) {
    VkPhysicalDeviceMemoryProperties all;
    vkGetPhysicalDeviceMemoryProperties(physical, &all);
    VkMemoryPropertyFlags wanted = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    for (uint32_t i = 0; i < all.memoryTypeCount; i++)
        if (bits >> i & 1 && (all.memoryTypes[i].propertyFlags & wanted) == wanted) return i;
    for (uint32_t i = 0; i < all.memoryTypeCount; i++)
        if (bits >> i & 1) return i;
    return 0;
}
static VkDeviceMemory memory_for(VkMemoryRequirements needed) {
    VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                 .allocationSize = needed.size,
                                 .memoryTypeIndex = memory_type(needed.memoryTypeBits)};
    VkDeviceMemory memory;
    VK(vkAllocateMemory(device, &info, NULL, &memory));
    return memory;
}
static VkBuffer buffer_of(size_t bytes, VkDeviceMemory *memory, void **mapped) {
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = bytes,
                               .usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    VkBuffer buffer;
    VkMemoryRequirements needed;
    VK(vkCreateBuffer(device, &info, NULL, &buffer));
    vkGetBufferMemoryRequirements(device, buffer, &needed);
    *memory = memory_for(needed);
    VK(vkBindBufferMemory(device, buffer, *memory, 0));
    VK(vkMapMemory(device, *memory, 0, bytes, 0, mapped));
    memset(*mapped, 0xab, bytes);
    return buffer;
}
static VkImage vk_image_of(uint32_t width, uint32_t height, VkDeviceMemory *memory) {
    VkImageCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO, .imageType = VK_IMAGE_TYPE_2D,
        .format = VK_FORMAT_R8G8B8A8_UNORM, .extent = {width, height, 1}, .mipLevels = 1, .arrayLayers = 1,
        .samples = VK_SAMPLE_COUNT_1_BIT, .tiling = VK_IMAGE_TILING_OPTIMAL,
        .usage = VK_IMAGE_USAGE_TRANSFER_DST_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT};
    VkImage image;
    VkMemoryRequirements needed;
    VK(vkCreateImage(device, &info, NULL, &image));
    vkGetImageMemoryRequirements(device, image, &needed);
    *memory = memory_for(needed);
    VK(vkBindImageMemory(device, image, *memory, 0));
    return image;
}
static VkSemaphore semaphore_of(VkSemaphoreType type) {
    VkSemaphoreTypeCreateInfo kind = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO, .semaphoreType = type};
    VkSemaphoreCreateInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &kind};
    VkSemaphore semaphore;
    VK(vkCreateSemaphore(device, &info, NULL, &semaphore));
    return semaphore;
}

// Brings the image back, once `after` says that it is there.
static void image_into(VkImage image, uint32_t width, uint32_t height, VkBuffer buffer, VkSemaphore after) {
    VkCommandPoolCreateInfo new_pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
    VkCommandPool pool;
    VK(vkCreateCommandPool(device, &new_pool, NULL, &pool));
    VkCommandBufferAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = pool, .commandBufferCount = 1};
    VkCommandBuffer commands;
    VK(vkAllocateCommandBuffers(device, &info, &commands));
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    VK(vkBeginCommandBuffer(commands, &begin));
    VkBufferImageCopy copy = {.imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1}, .imageExtent = {width, height, 1}};
    vkCmdCopyImageToBuffer(commands, image, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, buffer, 1, &copy);
    VK(vkEndCommandBuffer(commands));
    submit(commands, after);
    vkDestroyCommandPool(device, pool, NULL);
}

// An image that the library has drawn, into a buffer and an image of the program's; both must be what pmt_job_image gives.
static void copied(pmt_job *job) {
    uint32_t width, height;
    OK(pmt_job_image_size(job, &width, &height));
    size_t bytes = 4 * (size_t)width * height;
    uint8_t *want = malloc(bytes);
    pmt_image whole = {.pixels = want, .bytes = bytes, .width = width, .height = height, .format = PMT_FORMAT_RGBA8};
    OK(pmt_job_image(job, 0, &whole));
    VkDeviceMemory memories[3];
    void *first, *second;
    VkBuffer one = buffer_of(bytes + 12, &memories[0], &first), two = buffer_of(bytes, &memories[1], &second);
    VkImage image = vk_image_of(width, height, &memories[2]);
    VkSemaphore ready = semaphore_of(VK_SEMAPHORE_TYPE_TIMELINE), there = semaphore_of(VK_SEMAPHORE_TYPE_BINARY);
    pmt_vulkan_image target = {.size = sizeof target, .buffer = (uint64_t)one, .offset = 12,
                               .format = PMT_FORMAT_RGBA8, .family = PMT_ANY_FAMILY};
    OK(pmt_job_copy_image(job, 0, &target));
    CHECK(!memcmp((char *)first + 12, want, bytes) && *(uint32_t *)first == 0xabababab);
    target = (pmt_vulkan_image){.size = sizeof target, .image = (uint64_t)image, .format = PMT_FORMAT_RGBA8,
                                .new_layout = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, .family = PMT_ANY_FAMILY,
                                .wait_semaphore = (uint64_t)ready, .wait_value = 3, .signal_semaphore = (uint64_t)there};
    VkSemaphoreSignalInfo go = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_SIGNAL_INFO, .semaphore = ready, .value = 3};
    VK(vkSignalSemaphore(device, &go));
    OK(pmt_job_copy_image(job, 0, &target));
    image_into(image, width, height, two, there);
    CHECK(!memcmp(second, want, bytes));
    target.buffer = (uint64_t)one;
    CHECK(pmt_job_copy_image(job, 0, &target) == PMT_STATUS_BAD_ARGUMENT && strstr(message(), "both"));
    target.size = 7;
    CHECK(pmt_job_copy_image(job, 0, &target) == PMT_STATUS_BAD_ARGUMENT);
    CHECK(pmt_job_copy_image(job, 9, NULL) == PMT_STATUS_BAD_ARGUMENT);
    vkDestroySemaphore(device, ready, NULL), vkDestroySemaphore(device, there, NULL);
    vkDestroyBuffer(device, one, NULL), vkDestroyBuffer(device, two, NULL), vkDestroyImage(device, image, NULL);
    for (int i = 0; i < 3; i++) vkFreeMemory(device, memories[i], NULL);
    free(want);
}

static void draws(const pmt_vulkan *vulkan, const char *path) {
    pmt_model *model;
    pmt_pipeline *pipeline;
    pmt_drawing drawing;
    pmt_job *job;
    const char *prompt = "icon of a red apple";
    OK(pmt_context_adopt_vulkan(vulkan, &context));
    OK(pmt_context_open(context));
    OK(pmt_model_open(context, path, &model));
    OK(pmt_pipeline_new(model, NULL, &pipeline));
    OK(pmt_drawing_default(&drawing, sizeof drawing));
    drawing.prompts = &prompt;
    drawing.count = 1;
    drawing.steps = 2;
    OK(pmt_pipeline_draw(pipeline, &drawing, &job));
    OK(pmt_job_wait(job, UINT32_MAX));
    copied(job);
    pmt_job_free(job);
    pmt_pipeline_free(pipeline);
    pmt_model_free(model);
    pmt_context_free(context);
    context = NULL;
}

// What must be refused, with a sentence.
static void refused(pmt_vulkan vulkan) {
    pmt_vulkan bad = vulkan;
    CHECK(pmt_context_adopt_vulkan(NULL, &context) == PMT_STATUS_BAD_ARGUMENT);
    bad.unlock = bad.lock ? NULL : give;
    CHECK(pmt_context_adopt_vulkan(&bad, &context) == PMT_STATUS_BAD_ARGUMENT && !context);
    const struct {
        pmt_vulkan vulkan;
        const char *part;
    } all[] = {
        {vulkan, "queue_family"}, {vulkan, "queue_index"}, {vulkan, "VkDevice"}, {vulkan, "VkPhysicalDevice"},
        {vulkan, "vulkan.instance_extensions"}, {vulkan, "vulkan.device_extensions"}, {vulkan, "vulkan.api_version"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        bad = vulkan;
        if (i == 0) bad.queue_family = 99;
        if (i == 1) bad.queue_index = 99;
        if (i == 2) bad.device = NULL;
        if (i == 3) bad.physical_device = NULL;
        if (i == 4) bad.instance_extension_count = 0;
        if (i == 5) bad.device_extension_count = 0;
        if (i == 6) bad.api_version = VK_API_VERSION_1_0;
        if (i == 5 && !vulkan.device_extension_count) continue;
        OK(pmt_context_adopt_vulkan(&bad, &context));
        CHECK(pmt_context_open(context) == PMT_STATUS_BAD_ARGUMENT && strstr(message(), all[i].part));
        pmt_context_free(context);
    }
    OK(pmt_context_adopt_metal(&bad, &bad, &context));
    CHECK(pmt_context_open(context) == PMT_STATUS_DEVICE && strstr(message(), "only Vulkan"));
    pmt_context_free(context);
    OK(pmt_context_adopt_d3d12(&bad, &bad, &context));
    CHECK(pmt_context_open(context) == PMT_STATUS_DEVICE && strstr(message(), "Direct3D 12"));
    pmt_context_free(context);
    context = NULL;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    pmt_vulkan vulkan = {.size = sizeof vulkan, .get_instance_proc_addr = (void *)vkGetInstanceProcAddr};
    make_instance(&vulkan);
    make_device(&vulkan);
    refused(vulkan);
    if (queues > 1) {
        vulkan.queue_index = 1;
        draws(&vulkan, argv[1]);
        printf("a queue of the library's own: done\n");
        vulkan.queue_index = 0;
    } else {
        printf("SKIPPED: a queue of the library's own (this device has one queue)\n");
    }
    vulkan.lock = take, vulkan.unlock = give, vulkan.user = &mutex;
    pthread_t thread;
    busy = 1;
    pthread_create(&thread, NULL, frames, NULL);
    draws(&vulkan, argv[1]);
    busy = 0;
    pthread_join(thread, NULL);
    CHECK(taken > 10 && taken == given_back);
    printf("the program's queue under a lock: done, taken %d times\n", taken);
    // All of it is the program's still.
    submit(NULL, VK_NULL_HANDLE);
    VK(vkDeviceWaitIdle(device));
    vkDestroyDevice(device, NULL);
    PFN_vkDestroyDebugUtilsMessengerEXT destroy =
        (PFN_vkDestroyDebugUtilsMessengerEXT)vkGetInstanceProcAddr(instance, "vkDestroyDebugUtilsMessengerEXT");
    if (messenger && destroy) destroy(instance, messenger, NULL);
    vkDestroyInstance(instance, NULL);
    return ended();
}
