// A CUDA driver and an NVRTC that emulate a GPU on the CPU: the functions of both libraries that
// CubeCL calls.
//
// All work is synchronous, so waiting for streams and events returns at once.
#include "device.h"
#undef min
#undef max

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

// ---- Fibers ----

__thread Fiber *emulated_fiber;
__thread Block *emulated_block;

// Stack of the thread that runs the fibers.
static __thread void *scheduler;

// Saves the callee-saved registers on the stack and restores those of another stack.
extern "C" void switch_stacks(void **own, void *other);
asm(R"(
.text
.globl switch_stacks
.type switch_stacks, @function
switch_stacks:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");

static void leave(State state) {
    Fiber *fiber = emulated_fiber;
    fiber->state = state;
    switch_stacks(&fiber->stack, scheduler);
}

extern "C" void emulated_barrier(State state) { leave(state); }

typedef void (*Kernel)(void **arguments);
static __thread Kernel running;
static __thread void **running_arguments;

static void fiber_main() {
    running(running_arguments);
    for (;;) leave(State::done);
}

static const size_t STACK = 256 << 10, MOST_THREADS = 1024, MOST_PARAMETERS = 1024;

struct Stacks {
    char *memory;
    Stacks() {
        void *all = mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (all == MAP_FAILED) abort();
        memory = (char *)all;
    }
    ~Stacks() { munmap(memory, STACK * MOST_THREADS); }

    // A stack prepared to start `fiber_main`.
    void *fresh(size_t index) {
        void **top = (void **)(memory + (index + 1) * STACK - 64);
        *--top = nullptr;
        *--top = (void *)fiber_main;
        for (int saved = 0; saved < 6; saved++) *--top = nullptr;
        return top;
    }
};

// ---- Kernels ----

struct Function {
    Kernel kernel;
    std::vector<size_t> sizes;
    bool waits;
    std::string name;
};

static void run_block(const Function &function, void **arguments, Block &block) {
    const Index dim = block.dim;
    const unsigned threads = dim.x * dim.y * dim.z;
    emulated_block = &block;
    running = function.kernel;
    running_arguments = arguments;
    auto thread = [&](unsigned number) { return Index{number % dim.x, number / dim.x % dim.y, number / (dim.x * dim.y)}; };
    if (!function.waits) {
        Fiber fiber{};
        emulated_fiber = &fiber;
        for (unsigned number = 0; number < threads; number++) {
            fiber.thread = thread(number);
            fiber.lane = number % 32;
            running(arguments);
        }
        return;
    }
    static thread_local Stacks stacks;
    static thread_local std::vector<Fiber> fibers(MOST_THREADS);
    static thread_local std::vector<Warp> warps(MOST_THREADS / 32);
    for (unsigned number = 0; number < threads; number++)
        fibers[number] = {stacks.fresh(number), thread(number), State::runs, (int)number % 32, &warps[number / 32]};
    auto count = [&](unsigned from, unsigned to, State state) {
        return std::count_if(&fibers[from], &fibers[to - 1] + 1, [&](const Fiber &fiber) { return fiber.state == state; });
    };
    auto release = [&](unsigned from, unsigned to, State waiting) {
        for (unsigned number = from; number < to; number++)
            if (fibers[number].state == waiting) fibers[number].state = State::runs;
    };
    while (count(0, threads, State::done) < threads) {
        for (unsigned from = 0; from < threads; from += 32) {
            const unsigned to = std::min(threads, from + 32);
            do {
                release(from, to, State::at_warp_barrier);
                for (unsigned number = from; number < to; number++) {
                    if (fibers[number].state != State::runs) continue;
                    emulated_fiber = &fibers[number];
                    switch_stacks(&scheduler, fibers[number].stack);
                }
                if (count(from, to, State::at_warp_barrier) && count(from, to, State::at_block_barrier)) {
                    fprintf(stderr, "cuda emulator: lanes of a warp wait at different barriers in %s\n", function.name.c_str());
                    abort();
                }
            } while (count(from, to, State::at_warp_barrier));
        }
        release(0, threads, State::at_block_barrier);
    }
}

// Initial byte of shared and allocated memory, so that reading it uninitialized shows.
static const int GARBAGE = 0xcd;

static int launch(const Function *function, Index grid, Index dim, unsigned shared, void **arguments) {
    const size_t blocks = (size_t)grid.x * grid.y * grid.z, at_once = std::max<size_t>(1, blocks / 64);
    std::atomic<size_t> next{0};
    auto work = [&] {
        std::vector<char> memory(shared + 128);
        char *aligned = (char *)(((uintptr_t)memory.data() + 127) & ~(uintptr_t)127);
        for (size_t from; (from = next.fetch_add(at_once)) < blocks;)
            for (size_t number = from; number < std::min(blocks, from + at_once); number++) {
                memset(aligned, GARBAGE, shared);
                const Index index = {(unsigned)(number % grid.x), (unsigned)(number / grid.x % grid.y), (unsigned)(number / grid.x / grid.y)};
                Block block = {index, dim, grid, aligned};
                run_block(*function, arguments, block);
            }
    };
    // More threads pay off from some thousand fibers on.
    const size_t helpers = blocks * dim.x * dim.y * dim.z > 4096 ? std::thread::hardware_concurrency() - 1 : 0;
    std::vector<std::thread> threads;
    for (size_t helper = 0; helper < std::min(helpers, blocks - 1); helper++) threads.emplace_back(work);
    work();
    for (std::thread &thread : threads) thread.join();
    return 0;
}

// ---- Graphs ----

typedef std::vector<std::function<void()>> Graph;

// The graph being recorded, and whether a call invalidated it.
static Graph *recorded;
static bool spoilt;

static const int NOT_WHILE_RECORDING = 900, SPOILT = 901, NOT_RECORDING = 400;

template <class Work> static int done_or_recorded(Work work) {
    if (recorded) return recorded->push_back(work), 0;
    return work(), 0;
}

// Rejects calls that are forbidden while a stream records.
static int refused(const char *what) {
    if (!recorded) return 0;
    fprintf(stderr, "cuda emulator: %s while a stream records\n", what);
    spoilt = true;
    return NOT_WHILE_RECORDING;
}
#define UNLESS_RECORDING() \
    if (int error = refused(__func__)) return error

// Copies the current values of the arguments.
static int launched_or_recorded(const Function *function, Index grid, Index dim, unsigned shared, void **arguments) {
    if (!recorded) return launch(function, grid, dim, shared, arguments);
    std::vector<std::vector<char>> values;
    for (size_t size : function->sizes) {
        const char *value = (const char *)arguments[values.size()];
        values.emplace_back(value, value + size);
    }
    return done_or_recorded([=]() mutable {
        std::vector<void *> arguments;
        for (std::vector<char> &value : values) arguments.push_back(value.data());
        launch(function, grid, dim, shared, arguments.data());
    });
}

// ---- Settings ----

static int setting(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static double milliseconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * now.tv_sec + 1e-6 * now.tv_nsec;
}

static const size_t MEMORY = (size_t)8 << 30;

static int allocate(uint64_t *to, size_t bytes) {
    void *memory;
    if (posix_memalign(&memory, 256, bytes + 256)) return 2; // out of memory
    memset(memory, GARBAGE, bytes + 256);
    *to = (uint64_t)memory;
    return 0;
}

extern "C" {

// ---- The driver: devices, contexts, streams, events ----

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuDeviceGet(int *device, int number) { return *device = number, 0; }
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGetName(char *name, int length, int) { return snprintf(name, length, "CUDA on the processor"), 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = MEMORY, 0; }
int cuDeviceGetPCIBusId(char *id, int length, int) { return snprintf(id, length, "0000:01:00.0"), 0; }
int cuDeviceGetUuid_v2(char *id, int) { return memset(id, 1, 16), 0; }
int cuDeviceGetUuid(char *id, int) { return memset(id, 1, 16), 0; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
    case 1: case 2: case 3: return *value = 1024, 0;                        // threads of a block, its width, its height
    case 4: return *value = 64, 0;                                          // its depth
    case 5: return *value = 2147483647, 0;                                  // width of a grid
    case 6: case 7: return *value = 65535, 0;                               // its height, its depth
    case 8: return *value = 49152, 0;                                       // shared memory of a block
    case 10: return *value = 32, 0;                                         // lanes of a warp
    case 16: return *value = 132, 0;                                        // processors
    case 75: return *value = setting("CUDA_EMULATOR_ARCH", 8), 0;           // compute capability
    case 76: return *value = 0, 0;
    case 97: return *value = 232448, 0;                                     // shared memory of a block that asks for it
    default: return *value = 1, 0;
    }
}
int cuDevicePrimaryCtxRetain(void **context, int) { return *context = (void *)16, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxSetCurrent(void *) { return 0; }
int cuCtxGetCurrent(void **context) { return *context = (void *)16, 0; }
int cuCtxSynchronize() { UNLESS_RECORDING(); return 0; }
int cuCtxGetStreamPriorityRange(int *least, int *greatest) { return *least = 0, *greatest = -5, 0; }
int cuStreamCreate(void **stream, unsigned) { return *stream = (void *)32, 0; }
int cuStreamCreateWithPriority(void **stream, unsigned, int) { return *stream = (void *)32, 0; }
int cuStreamSynchronize(void *) { UNLESS_RECORDING(); return 0; }
int cuStreamQuery(void *) { UNLESS_RECORDING(); return 0; }
int cuStreamWaitEvent(void *, void *, unsigned) { return 0; }
int cuStreamDestroy_v2(void *) { return 0; }
int cuStreamIsCapturing(void *, int *status) { return *status = recorded ? 1 : 0, 0; }
int cuThreadExchangeStreamCaptureMode(int *) { return 0; }
int cuEventCreate(void **event, unsigned) { return *event = new double(0), 0; }
int cuEventDestroy_v2(void *event) { return delete (double *)event, 0; }
int cuEventRecord(void *event, void *) { return *(double *)event = milliseconds(), 0; }
int cuEventSynchronize(void *) { UNLESS_RECORDING(); return 0; }
int cuEventQuery(void *) { UNLESS_RECORDING(); return 0; }
int cuEventElapsedTime(float *elapsed, void *start, void *end) {
    static const bool drawn = getenv("CUDA_EMULATOR_TUNING") && (srand(setting("CUDA_EMULATOR_TUNING", 0)), true);
    // At least 10 ms, or the tuner would repeat its measurements.
    return *elapsed = drawn ? 10 + rand() % 100 : 10 + *(double *)end - *(double *)start, 0;
}
int cuEventElapsedTime_v2(float *elapsed, void *start, void *end) { return cuEventElapsedTime(elapsed, start, end); }
int cuGetErrorString(int, const char **text) { return *text = "cuda emulator: see standard error", 0; }
int cuGetErrorName(int, const char **text) { return *text = "CUDA_EMULATOR", 0; }

// ---- The driver: memory ----

int cuMemGetInfo_v2(size_t *free, size_t *all) { return *free = *all = MEMORY, 0; }
int cuMemAlloc_v2(uint64_t *to, size_t bytes) { UNLESS_RECORDING(); return allocate(to, bytes); }
int cuMemAllocAsync(uint64_t *to, size_t bytes, void *) { UNLESS_RECORDING(); return allocate(to, bytes); }
int cuMemFree_v2(uint64_t memory) { UNLESS_RECORDING(); return free((void *)memory), 0; }
int cuMemFreeAsync(uint64_t memory, void *) { UNLESS_RECORDING(); return free((void *)memory), 0; }
int cuMemAllocHost_v2(void **to, size_t bytes) { UNLESS_RECORDING(); return *to = malloc(bytes), *to ? 0 : 2; }
int cuMemFreeHost(void *memory) { UNLESS_RECORDING(); return free(memory), 0; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *) { return done_or_recorded([=] { memcpy((void *)to, from, bytes); }); }
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *) { return done_or_recorded([=] { memcpy(to, (void *)from, bytes); }); }
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *) { return done_or_recorded([=] { memmove((void *)to, (void *)from, bytes); }); }
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void *) { return done_or_recorded([=] { memset((void *)to, value, bytes); }); }

struct Side {
    size_t x, y;
    int type; // 1: the host's
    void *host;
    uint64_t device;
    void *array;
    size_t pitch;
    char *row(size_t number) const { return (type == 1 ? (char *)host : (char *)device) + (y + number) * pitch + x; }
};
struct Copy {
    Side from, to;
    size_t bytes, rows;
};
int cuMemcpy2DAsync_v2(const Copy *given, void *) {
    const Copy copy = *given;
    return done_or_recorded([=] {
        for (size_t row = 0; row < copy.rows; row++) memcpy(copy.to.row(row), copy.from.row(row), copy.bytes);
    });
}

// ---- The driver: graphs ----

int cuStreamBeginCapture_v2(void *, int) {
    UNLESS_RECORDING();
    return recorded = new Graph, spoilt = false, 0;
}
int cuStreamEndCapture(void *, Graph **graph) {
    if (!recorded) return NOT_RECORDING;
    *graph = spoilt ? (delete recorded, nullptr) : recorded;
    return recorded = nullptr, spoilt ? SPOILT : 0;
}
int cuGraphGetNodes(Graph *graph, void **, size_t *count) { return *count = 0, graph ? 0 : NOT_RECORDING; }
int cuGraphNodeGetType(void *, int *type) { return *type = 0, 0; }
int cuGraphInstantiateWithFlags(Graph **executable, const Graph *graph, unsigned long long) { return *executable = new Graph(*graph), 0; }
int cuGraphDestroy(Graph *graph) { return delete graph, 0; }
int cuGraphExecDestroy(Graph *graph) { return delete graph, 0; }
int cuGraphUpload(Graph *, void *) { return 0; }
int cuGraphLaunch(const Graph *graph, void *) {
    UNLESS_RECORDING();
    for (const auto &work : *graph) work();
    return 0;
}

// ---- The driver: kernels ----

int cuModuleLoadData(void **module, const void *path) {
    UNLESS_RECORDING();
    *module = dlopen((const char *)path, RTLD_NOW | RTLD_LOCAL);
    if (!*module) fprintf(stderr, "cuda emulator: %s\n", dlerror());
    return *module ? 0 : 200; // an invalid image
}
int cuModuleUnload(void *) { return 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    auto call = (Kernel)dlsym(module, (std::string(name) + "__call").c_str());
    auto sizes = (size_t (*)(size_t *))dlsym(module, (std::string(name) + "__sizes").c_str());
    auto waits = (const int *)dlsym(module, (std::string(name) + "__waits").c_str());
    if (!call || !sizes || !waits) return 500; // not found
    std::vector<size_t> all(MOST_PARAMETERS);
    all.resize(sizes(all.data()));
    *function = new Function{call, all, *waits != 0, name};
    return 0;
}
int cuFuncSetAttribute(void *, int, int) { return 0; }
int cuFuncGetAttribute(int *value, int, void *) { return *value = 0, 0; }
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned x, unsigned y, unsigned z, unsigned shared, void *,
                   void **arguments, void **) {
    return launched_or_recorded((const Function *)function, {gx, gy, gz}, {x, y, z}, shared, arguments);
}
struct Launch {
    Index grid, dim;
    unsigned shared;
};
int cuLaunchKernelEx(const Launch *config, void *function, void **arguments, void **) {
    return launched_or_recorded((const Function *)function, config->grid, config->dim, config->shared, arguments);
}
int cuTensorMapEncodeTiled() { return 801; } // not supported
int cuTensorMapEncodeIm2col() { return 801; }
int cuTensorMapEncodeIm2colWide() { return 801; }

// ---- NVRTC: a program's "PTX" is the path of a library ----

struct Program {
    std::string source, path, log;
};
int nvrtcVersion(int *major, int *minor) { return *major = 13, *minor = 0, 0; }
const char *nvrtcGetErrorString(int) { return "cuda emulator"; }
int nvrtcCreateProgram(Program **program, const char *source, const char *, int, const char *const *, const char *const *) {
    return *program = new Program{source, "", ""}, 0;
}
int nvrtcDestroyProgram(Program **program) { return delete *program, *program = nullptr, 0; }
int nvrtcCompileProgram(Program *program, int, const char *const *) {
    const std::string folder = getenv("CUDA_EMULATOR_CACHE");
    std::string file = folder + "/source.XXXXXX";
    FILE *source = fdopen(mkstemp(file.data()), "w");
    fputs(program->source.c_str(), source);
    fclose(source);
    // The compiler must not load the emulated CUDA libraries.
    const std::string command = std::string("LD_LIBRARY_PATH= python3 '") + getenv("CUDA_EMULATOR_COMPILER") + "' '" + file + "' '" + folder + "' 2>&1";
    FILE *output = popen(command.c_str(), "r");
    char part[4096];
    for (size_t read; (read = fread(part, 1, sizeof part, output)) > 0;) program->log.append(part, read);
    const bool failed = pclose(output) != 0;
    unlink(file.c_str());
    if (failed) return 6; // does not compile
    program->log.pop_back();
    program->path = program->log.substr(program->log.rfind('\n') + 1);
    return 0;
}
int nvrtcGetProgramLogSize(Program *program, size_t *size) { return *size = program->log.size() + 1, 0; }
int nvrtcGetProgramLog(Program *program, char *log) { return strcpy(log, program->log.c_str()), 0; }
int nvrtcGetPTXSize(Program *program, size_t *size) { return *size = program->path.size() + 1, 0; }
int nvrtcGetPTX(Program *program, char *ptx) { return strcpy(ptx, program->path.c_str()), 0; }

} // extern "C"
