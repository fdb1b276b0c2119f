// The same game on a Vulkan device of its own, which it lends to the library: boxes bounce, and what the training has learnt so far comes straight
// into images of the game's, between its own semaphores.
//
//   cargo build --release -p pentimento-ffi
//   c++ -std=c++17 -O2 examples/game/vulkan.cpp -Iinclude -Ltarget/release -lpentimento $(sdl2-config --cflags --libs) -lvulkan -o game-vulkan
//   LD_LIBRARY_PATH=target/release ./game-vulkan examples/models/icons FOLDER [budget=4000] [frames=0] [shot=FILE.bmp] [prompt=TEXT] [SETTING=VALUE ...]
//
// FOLDER, keys and `frames` are those of main.cpp. SDL_VIDEODRIVER=dummy draws without a window (VK_EXT_headless_surface).
#include "game.hpp"

#include <SDL.h>
#include <SDL_vulkan.h>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <vulkan/vulkan.h>

namespace {

using namespace game;

[[noreturn]] void fail(const char *what, int code) {
    std::fprintf(stderr, "game: %s: %d\n", what, code);
    std::exit(1);
}
void vk(VkResult result, const char *what) {
    if (result < 0) fail(what, result);
}

template <typename T> T structure(VkStructureType type) {
    T made{};
    made.sType = type;
    return made;
}

// What the library needs of the game's device, by kind.
std::vector<pmt_vulkan_need> needs_of(const pmt_vulkan &vulkan) {
    std::uint32_t count = 0;
    if (pmt_vulkan_needs(&vulkan, nullptr, sizeof(pmt_vulkan_need), 0, &count) != PMT_STATUS_OK) fail("this device cannot be lent", 0);
    std::vector<pmt_vulkan_need> all(count);
    pmt_vulkan_needs(&vulkan, all.data(), sizeof(pmt_vulkan_need), count, &count);
    return all;
}

struct Picture {
    VkImage image;
    VkDeviceMemory memory;
    VkSemaphore there; // to be waited for once
    std::uint32_t width, height;
    bool waited;
};

// Device, window and queue, which the game and the library submit to in turn.
class Screen {
public:
    Screen(SDL_Window *window, bool headless) {
        make_instance(window, headless);
        make_device();
        make_swapchain();
    }
    const pmt_vulkan &lent() const { return lent_; }

    // Takes a picture from the job that drew it. The library writes it on the same queue; nobody waits for that here.
    bool take(const pentimento::Job &job, std::uint32_t width, std::uint32_t height) {
        Picture p{};
        p.width = width, p.height = height;
        auto info = structure<VkImageCreateInfo>(VK_STRUCTURE_TYPE_IMAGE_CREATE_INFO);
        info.imageType = VK_IMAGE_TYPE_2D, info.extent = {width, height, 1};
        info.format = encodes_ ? VK_FORMAT_R8G8B8A8_SRGB : VK_FORMAT_R8G8B8A8_UNORM; // so that blits leave numbers as they are
        info.mipLevels = info.arrayLayers = 1, info.samples = VK_SAMPLE_COUNT_1_BIT;
        info.usage = VK_IMAGE_USAGE_TRANSFER_DST_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT;
        vk(vkCreateImage(device_, &info, nullptr, &p.image), "an image");
        VkMemoryRequirements needed;
        vkGetImageMemoryRequirements(device_, p.image, &needed);
        p.memory = memory(needed, 0);
        vk(vkBindImageMemory(device_, p.image, p.memory, 0), "memory of an image");
        p.there = semaphore();
        pmt_vulkan_image into{};
        into.size = sizeof into, into.image = std::uint64_t(p.image), into.format = PMT_FORMAT_RGBA8;
        into.new_layout = VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, into.family = PMT_ANY_FAMILY;
        into.signal_semaphore = std::uint64_t(p.there);
        if (auto s = job.copy(0, into); !s) return std::fprintf(stderr, "game: %s\n", s.message().c_str()), false;
        pictures_.push_back(p);
        return true;
    }
    std::size_t pictures() const { return pictures_.size(); }

    // A frame: the background, boxes, the last four pictures.
    void draw(const std::vector<VkClearRect> &boxes, const std::vector<VkClearAttachment> &colours, const std::string &shot) {
        std::uint32_t index = 0;
        vk(vkWaitForFences(device_, 1, &drawn_, VK_TRUE, UINT64_MAX), "the frame before");
        vk(vkAcquireNextImageKHR(device_, swapchain_, UINT64_MAX, acquired_, VK_NULL_HANDLE, &index), "a frame");
        vk(vkResetFences(device_, 1, &drawn_), "a fence");
        auto begin = structure<VkCommandBufferBeginInfo>(VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO);
        vk(vkBeginCommandBuffer(commands_, &begin), "commands");
        barrier(index, VK_IMAGE_LAYOUT_UNDEFINED, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL);
        auto attachment = structure<VkRenderingAttachmentInfo>(VK_STRUCTURE_TYPE_RENDERING_ATTACHMENT_INFO);
        attachment.imageView = views_[index], attachment.imageLayout = VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL;
        attachment.loadOp = VK_ATTACHMENT_LOAD_OP_CLEAR, attachment.storeOp = VK_ATTACHMENT_STORE_OP_STORE;
        attachment.clearValue.color = {{0.09F, 0.1F, 0.13F, 1}};
        auto rendering = structure<VkRenderingInfo>(VK_STRUCTURE_TYPE_RENDERING_INFO);
        rendering.renderArea.extent = size_, rendering.layerCount = rendering.colorAttachmentCount = 1;
        rendering.pColorAttachments = &attachment;
        vkCmdBeginRendering(commands_, &rendering);
        for (std::size_t i = 0; i < boxes.size(); i++) vkCmdClearAttachments(commands_, 1, &colours[i], 1, &boxes[i]);
        vkCmdEndRendering(commands_);
        barrier(index, VK_IMAGE_LAYOUT_COLOR_ATTACHMENT_OPTIMAL, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL);
        std::vector<VkSemaphore> waits{acquired_};
        show(index, waits);
        if (!shot.empty()) {
            barrier(index, VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL);
            copy_out(index);
        }
        barrier(index, shot.empty() ? VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL : VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, VK_IMAGE_LAYOUT_PRESENT_SRC_KHR);
        vk(vkEndCommandBuffer(commands_), "commands");
        submit(waits, index);
        if (!shot.empty()) save(shot);
    }
    void wait() const {
        std::lock_guard<std::mutex> turn(queue_turn_);
        vkDeviceWaitIdle(device_);
    }

private:
    void make_instance(SDL_Window *window, bool headless) {
        lent_.size = sizeof lent_;
        lent_.get_instance_proc_addr = reinterpret_cast<const void *>(vkGetInstanceProcAddr);
        for (const auto &need : needs_of(lent_)) {
            if (need.kind == PMT_VULKAN_NEED_KIND_INSTANCE_EXTENSION) keep(instance_names_, need.name);
        }
        unsigned count = 0;
        if (headless) {
            keep(instance_names_, VK_KHR_SURFACE_EXTENSION_NAME);
            keep(instance_names_, VK_EXT_HEADLESS_SURFACE_EXTENSION_NAME);
        } else {
            SDL_Vulkan_GetInstanceExtensions(window, &count, nullptr);
            std::vector<const char *> names(count);
            SDL_Vulkan_GetInstanceExtensions(window, &count, names.data());
            for (const char *name : names) keep(instance_names_, name);
        }
        instance_list_ = list(instance_names_);
        auto application = structure<VkApplicationInfo>(VK_STRUCTURE_TYPE_APPLICATION_INFO);
        application.apiVersion = VK_API_VERSION_1_3;
        auto info = structure<VkInstanceCreateInfo>(VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO);
        info.pApplicationInfo = &application;
        info.enabledExtensionCount = std::uint32_t(instance_list_.size()), info.ppEnabledExtensionNames = instance_list_.data();
        vk(vkCreateInstance(&info, nullptr, &instance_), "an instance");
        lent_.instance = instance_, lent_.api_version = VK_API_VERSION_1_3;
        lent_.instance_extensions = instance_list_.data(), lent_.instance_extension_count = info.enabledExtensionCount;
        if (!headless) {
            if (!SDL_Vulkan_CreateSurface(window, instance_, &surface_)) fail(SDL_GetError(), 0);
            return;
        }
        auto make = reinterpret_cast<PFN_vkCreateHeadlessSurfaceEXT>(vkGetInstanceProcAddr(instance_, "vkCreateHeadlessSurfaceEXT"));
        auto none = structure<VkHeadlessSurfaceCreateInfoEXT>(VK_STRUCTURE_TYPE_HEADLESS_SURFACE_CREATE_INFO_EXT);
        vk(make ? make(instance_, &none, nullptr, &surface_) : VK_ERROR_EXTENSION_NOT_PRESENT, "a surface");
    }

    // A device with what the library needs and what the game does.
    void make_device() {
        std::uint32_t one = 1;
        vk(vkEnumeratePhysicalDevices(instance_, &one, &physical_), "a device");
        lent_.physical_device = physical_;
        keep(device_names_, VK_KHR_SWAPCHAIN_EXTENSION_NAME);
        struct Features {
            VkBaseOutStructure head;
            VkBool32 on[64];
        };
        std::map<std::uint32_t, Features> features;
        for (const auto &need : needs_of(lent_)) {
            lent_.options |= need.option;
            if (need.kind == PMT_VULKAN_NEED_KIND_DEVICE_EXTENSION) keep(device_names_, need.name);
            if (need.kind != PMT_VULKAN_NEED_KIND_FEATURE) continue;
            const VkBool32 on = VK_TRUE;
            std::memcpy(reinterpret_cast<char *>(&features[need.structure]) + need.offset, &on, sizeof on);
        }
        auto own = structure<VkPhysicalDeviceDynamicRenderingFeatures>(VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DYNAMIC_RENDERING_FEATURES);
        own.dynamicRendering = VK_TRUE;
        void *chain = &own;
        for (auto &[type, structure] : features) {
            structure.head.sType = VkStructureType(type);
            structure.head.pNext = static_cast<VkBaseOutStructure *>(chain);
            chain = &structure;
        }
        device_list_ = list(device_names_);
        const float priority = 1;
        auto queue = structure<VkDeviceQueueCreateInfo>(VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO);
        queue.queueCount = 1, queue.pQueuePriorities = &priority;
        auto info = structure<VkDeviceCreateInfo>(VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO);
        info.pNext = chain, info.queueCreateInfoCount = 1, info.pQueueCreateInfos = &queue;
        info.enabledExtensionCount = std::uint32_t(device_list_.size()), info.ppEnabledExtensionNames = device_list_.data();
        vk(vkCreateDevice(physical_, &info, nullptr, &device_), "a device");
        vkGetDeviceQueue(device_, 0, 0, &queue_);
        lent_.device = device_, lent_.device_extensions = device_list_.data();
        lent_.device_extension_count = info.enabledExtensionCount;
        lent_.lock = [](void *turn) { static_cast<std::mutex *>(turn)->lock(); };
        lent_.unlock = [](void *turn) { static_cast<std::mutex *>(turn)->unlock(); };
        lent_.user = &queue_turn_;
        acquired_ = semaphore();
        auto fence = structure<VkFenceCreateInfo>(VK_STRUCTURE_TYPE_FENCE_CREATE_INFO);
        fence.flags = VK_FENCE_CREATE_SIGNALED_BIT;
        vk(vkCreateFence(device_, &fence, nullptr, &drawn_), "a fence");
        auto pool = structure<VkCommandPoolCreateInfo>(VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO);
        pool.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT;
        vk(vkCreateCommandPool(device_, &pool, nullptr, &pool_), "a pool");
        auto allocate = structure<VkCommandBufferAllocateInfo>(VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO);
        allocate.commandPool = pool_, allocate.commandBufferCount = 1;
        vk(vkAllocateCommandBuffers(device_, &allocate, &commands_), "commands");
    }

    void make_swapchain() {
        VkBool32 shows = VK_FALSE;
        vk(vkGetPhysicalDeviceSurfaceSupportKHR(physical_, 0, surface_, &shows), "a surface");
        if (!shows) fail("the first family of queues cannot show anything", 0);
        VkSurfaceCapabilitiesKHR can;
        vk(vkGetPhysicalDeviceSurfaceCapabilitiesKHR(physical_, surface_, &can), "a surface");
        std::uint32_t one = 1;
        VkSurfaceFormatKHR format;
        vk(vkGetPhysicalDeviceSurfaceFormatsKHR(physical_, surface_, &one, &format), "a format");
        encodes_ = format.format == VK_FORMAT_B8G8R8A8_SRGB || format.format == VK_FORMAT_R8G8B8A8_SRGB;
        swaps_ = format.format == VK_FORMAT_B8G8R8A8_UNORM || format.format == VK_FORMAT_B8G8R8A8_SRGB;
        size_ = can.currentExtent.width == UINT32_MAX ? VkExtent2D{WIDTH, HEIGHT} : can.currentExtent;
        auto info = structure<VkSwapchainCreateInfoKHR>(VK_STRUCTURE_TYPE_SWAPCHAIN_CREATE_INFO_KHR);
        info.surface = surface_, info.minImageCount = std::max(can.minImageCount, 3U);
        if (can.maxImageCount) info.minImageCount = std::min(info.minImageCount, can.maxImageCount);
        info.imageFormat = format.format, info.imageColorSpace = format.colorSpace, info.imageExtent = size_;
        info.imageArrayLayers = 1, info.preTransform = can.currentTransform, info.compositeAlpha = VK_COMPOSITE_ALPHA_OPAQUE_BIT_KHR;
        info.imageUsage = VK_IMAGE_USAGE_COLOR_ATTACHMENT_BIT | VK_IMAGE_USAGE_TRANSFER_DST_BIT | VK_IMAGE_USAGE_TRANSFER_SRC_BIT;
        info.presentMode = VK_PRESENT_MODE_FIFO_KHR, info.clipped = VK_TRUE;
        vk(vkCreateSwapchainKHR(device_, &info, nullptr, &swapchain_), "a swapchain");
        std::uint32_t count = 0;
        vkGetSwapchainImagesKHR(device_, swapchain_, &count, nullptr);
        images_.resize(count);
        vkGetSwapchainImagesKHR(device_, swapchain_, &count, images_.data());
        for (VkImage image : images_) {
            auto view = structure<VkImageViewCreateInfo>(VK_STRUCTURE_TYPE_IMAGE_VIEW_CREATE_INFO);
            view.image = image, view.viewType = VK_IMAGE_VIEW_TYPE_2D, view.format = format.format;
            view.subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1};
            views_.emplace_back();
            vk(vkCreateImageView(device_, &view, nullptr, &views_.back()), "a view");
            shown_.push_back(semaphore());
        }
    }

    // Pictures in a strip at the bottom; those that the library may still be writing are waited for on the queue.
    void show(std::uint32_t index, std::vector<VkSemaphore> &waits) {
        const std::size_t first = pictures_.size() > 4 ? pictures_.size() - 4 : 0;
        for (std::size_t i = first; i < pictures_.size(); i++) {
            Picture &p = pictures_[i];
            if (!p.waited) waits.push_back(p.there), p.waited = true;
            const int x = 24 + int(i - first) * (PICTURE + 24), y = int(size_.height) - PICTURE - 24;
            if (x + PICTURE > int(size_.width) || y < 0) continue;
            VkImageBlit blit{};
            blit.srcSubresource = blit.dstSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1};
            blit.srcOffsets[1] = {int(p.width), int(p.height), 1};
            blit.dstOffsets[0] = {x, y, 0}, blit.dstOffsets[1] = {x + PICTURE, y + PICTURE, 1};
            vkCmdBlitImage(commands_, p.image, VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, images_[index], VK_IMAGE_LAYOUT_TRANSFER_DST_OPTIMAL, 1, &blit, VK_FILTER_LINEAR);
        }
    }
    void submit(const std::vector<VkSemaphore> &waits, std::uint32_t index) {
        const std::vector<VkPipelineStageFlags> stages(waits.size(), VK_PIPELINE_STAGE_ALL_COMMANDS_BIT);
        auto info = structure<VkSubmitInfo>(VK_STRUCTURE_TYPE_SUBMIT_INFO);
        info.waitSemaphoreCount = std::uint32_t(waits.size()), info.pWaitSemaphores = waits.data(), info.pWaitDstStageMask = stages.data();
        info.commandBufferCount = info.signalSemaphoreCount = 1;
        info.pCommandBuffers = &commands_, info.pSignalSemaphores = &shown_[index];
        auto present = structure<VkPresentInfoKHR>(VK_STRUCTURE_TYPE_PRESENT_INFO_KHR);
        present.waitSemaphoreCount = present.swapchainCount = 1;
        present.pWaitSemaphores = &shown_[index], present.pSwapchains = &swapchain_, present.pImageIndices = &index;
        std::lock_guard<std::mutex> turn(queue_turn_);
        vk(vkQueueSubmit(queue_, 1, &info, drawn_), "a submit");
        vk(vkQueuePresentKHR(queue_, &present), "a frame");
    }
    void barrier(std::uint32_t index, VkImageLayout from, VkImageLayout to) {
        auto change = structure<VkImageMemoryBarrier>(VK_STRUCTURE_TYPE_IMAGE_MEMORY_BARRIER);
        change.srcAccessMask = VK_ACCESS_MEMORY_WRITE_BIT, change.dstAccessMask = VK_ACCESS_MEMORY_READ_BIT | VK_ACCESS_MEMORY_WRITE_BIT;
        change.oldLayout = from, change.newLayout = to, change.image = images_[index];
        change.srcQueueFamilyIndex = change.dstQueueFamilyIndex = VK_QUEUE_FAMILY_IGNORED;
        change.subresourceRange = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 1, 0, 1};
        const VkPipelineStageFlags all = VK_PIPELINE_STAGE_ALL_COMMANDS_BIT;
        vkCmdPipelineBarrier(commands_, all, all, 0, 0, nullptr, 0, nullptr, 1, &change);
    }
    void copy_out(std::uint32_t index) {
        auto info = structure<VkBufferCreateInfo>(VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO);
        info.size = VkDeviceSize{4} * size_.width * size_.height, info.usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT;
        vk(vkCreateBuffer(device_, &info, nullptr, &out_), "a buffer");
        VkMemoryRequirements needed;
        vkGetBufferMemoryRequirements(device_, out_, &needed);
        out_memory_ = memory(needed, VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT);
        vk(vkBindBufferMemory(device_, out_, out_memory_, 0), "memory of a buffer");
        VkBufferImageCopy all{};
        all.imageSubresource = {VK_IMAGE_ASPECT_COLOR_BIT, 0, 0, 1}, all.imageExtent = {size_.width, size_.height, 1};
        vkCmdCopyImageToBuffer(commands_, images_[index], VK_IMAGE_LAYOUT_TRANSFER_SRC_OPTIMAL, out_, 1, &all);
    }
    void save(const std::string &file) {
        void *pixels = nullptr;
        vk(vkWaitForFences(device_, 1, &drawn_, VK_TRUE, UINT64_MAX), "the last frame");
        vk(vkMapMemory(device_, out_memory_, 0, VK_WHOLE_SIZE, 0, &pixels), "memory");
        SDL_Surface *shot = SDL_CreateRGBSurfaceWithFormatFrom(pixels, int(size_.width), int(size_.height), 32, int(size_.width) * 4,
                                                               swaps_ ? SDL_PIXELFORMAT_ARGB8888 : SDL_PIXELFORMAT_ABGR8888);
        if (shot) SDL_SaveBMP(shot, file.c_str());
        SDL_FreeSurface(shot);
    }
    VkSemaphore semaphore() const {
        auto info = structure<VkSemaphoreCreateInfo>(VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO);
        VkSemaphore made;
        vk(vkCreateSemaphore(device_, &info, nullptr, &made), "a semaphore");
        return made;
    }
    VkDeviceMemory memory(const VkMemoryRequirements &needed, VkMemoryPropertyFlags wanted) const {
        VkPhysicalDeviceMemoryProperties all;
        vkGetPhysicalDeviceMemoryProperties(physical_, &all);
        std::uint32_t type = 0;
        while (type + 1 < all.memoryTypeCount && !((needed.memoryTypeBits >> type & 1) && (all.memoryTypes[type].propertyFlags & wanted) == wanted)) type++;
        auto info = structure<VkMemoryAllocateInfo>(VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO);
        info.allocationSize = needed.size, info.memoryTypeIndex = type;
        VkDeviceMemory made;
        vk(vkAllocateMemory(device_, &info, nullptr, &made), "memory");
        return made;
    }
    static void keep(std::vector<std::string> &names, const char *name) {
        if (std::find(names.begin(), names.end(), name) == names.end()) names.emplace_back(name);
    }
    static std::vector<const char *> list(const std::vector<std::string> &names) {
        std::vector<const char *> all;
        for (const auto &name : names) all.push_back(name.c_str());
        return all;
    }

    pmt_vulkan lent_{};
    std::vector<std::string> instance_names_, device_names_;
    std::vector<const char *> instance_list_, device_list_;
    VkInstance instance_{};
    VkSurfaceKHR surface_{};
    VkPhysicalDevice physical_{};
    VkDevice device_{};
    VkQueue queue_{};
    mutable std::mutex queue_turn_;
    VkSwapchainKHR swapchain_{};
    VkExtent2D size_{};
    bool swaps_ = false; // whether blue comes first
    bool encodes_ = false; // whether what is written is taken for linear
    std::vector<VkImage> images_;
    std::vector<VkImageView> views_;
    std::vector<VkSemaphore> shown_;
    VkSemaphore acquired_{};
    VkFence drawn_{};
    VkCommandPool pool_{};
    VkCommandBuffer commands_{};
    VkBuffer out_{};
    VkDeviceMemory out_memory_{};
    std::deque<Picture> pictures_;
};

struct Box {
    float x, y, dx, dy;
    std::uint32_t side;
};

// Boxes as rectangles to be filled, moved on by a frame.
class Boxes {
public:
    Boxes() {
        std::uint32_t seed = 1;
        auto next = [&] { return float((seed = seed * 1664525U + 1013904223U) >> 8) / float(1U << 24); };
        for (int i = 0; i < 24; i++) {
            all_.push_back({next() * (WIDTH - 48), next() * (HEIGHT - 48), next() * 6 - 3, next() * 6 - 3, std::uint32_t(20 + 28 * next())});
            VkClearAttachment colour{};
            colour.aspectMask = VK_IMAGE_ASPECT_COLOR_BIT;
            colour.clearValue.color = {{0.3F + 0.6F * next(), 0.3F + 0.6F * next(), 0.3F + 0.6F * next(), 1}};
            colours.push_back(colour);
        }
        rects.resize(all_.size());
    }
    void move() {
        for (std::size_t i = 0; i < all_.size(); i++) {
            Box &b = all_[i];
            const float right = float(WIDTH) - float(b.side) - 1, bottom = float(HEIGHT) - float(b.side) - 1;
            if ((b.x += b.dx) < 0 || b.x > right) b.dx = -b.dx;
            if ((b.y += b.dy) < 0 || b.y > bottom) b.dy = -b.dy;
            b.x = std::clamp(b.x, 0.0F, right), b.y = std::clamp(b.y, 0.0F, bottom);
            rects[i] = {{{std::int32_t(b.x), std::int32_t(b.y)}, {b.side, b.side}}, 0, 1};
        }
    }
    std::vector<VkClearRect> rects;
    std::vector<VkClearAttachment> colours;

private:
    std::vector<Box> all_;
};

int play(const Options &o, SDL_Window *window, Screen &screen) {
    Artist artist; // goes before the device that it works on
    if (auto s = artist.open(o, &screen.lent()); !s) return std::fprintf(stderr, "game: %s\n", s.message().c_str()), 1;
    Boxes boxes;
    auto take = [&](const pentimento::Job &job, std::uint32_t width, std::uint32_t height) { return screen.take(job, width, height); };
    game::play(o, artist, take, [&](const std::string &shot) {
        boxes.move();
        if (window) SDL_SetWindowTitle(window, ("pentimento: " + artist.words()).c_str());
        screen.draw(boxes.rects, boxes.colours, shot);
    });
    std::printf("%zu pictures\n", screen.pictures());
    screen.wait();
    return 0;
}

} // namespace

int main(int argc, char **argv) {
    Options o;
    if (!read_options(argc, argv, o)) {
        return std::fprintf(stderr, "usage: game-vulkan MODEL FOLDER [budget=US] [frames=N] [shot=FILE.bmp] [prompt=TEXT] [SETTING=VALUE ...]\n"), 2;
    }
    if (SDL_Init(SDL_INIT_VIDEO) != 0) return std::fprintf(stderr, "game: %s\n", SDL_GetError()), 1;
    const bool headless = std::strcmp(SDL_GetCurrentVideoDriver(), "dummy") == 0;
    const auto centre = SDL_WINDOWPOS_CENTERED;
    SDL_Window *window = headless ? nullptr : SDL_CreateWindow("pentimento", centre, centre, WIDTH, HEIGHT, SDL_WINDOW_VULKAN);
    if (!headless && !window) return std::fprintf(stderr, "game: %s\n", SDL_GetError()), 1;
    Screen screen(window, headless);
    int code = play(o, window, screen);
    SDL_Quit();
    return code;
}
