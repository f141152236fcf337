/* A libcudart for tests: CUDA's names and signatures over malloc and memcpy.
 *
 * Arguments are declared as in cuda_runtime_api.h, so that a caller which passes a wrong width or order is seen in
 * the log. Stricter than a GPU where that finds mistakes: memory is filled with a pattern, copies are held against
 * the bounds of what was allocated, and a copy to the host happens only when its stream is synchronised.
 *
 *   STUB_CUDART_LOG                 file to which each call is appended, a line each: NAME ARGUMENT ...
 *   STUB_CUDART_FAIL                "cudaMalloc=2 cudaFree=700": what these calls answer; "cudaMalloc=2@3" from the
 *                                   third call on
 *   STUB_CUDART_COMPUTE_CAPABILITY  as "8.7"; "8.6" without it
 *
 * -DCUDA_10_2 leaves out what came later and gives cudaGraphInstantiate its old arguments.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DIRECTION = 21, INVALID_HANDLE = 400 };
enum { HOST_TO_DEVICE = 1, DEVICE_TO_HOST = 2, MOST = 4096 };
enum kind { FREED, MEMORY, STREAM, EVENT, GRAPH, GRAPH_EXEC };

static const size_t LARGEST = (size_t)1 << 30;

static struct held { void *address; size_t size; enum kind kind; } held[MOST];
static struct copy { void *to; const void *from; size_t size; void *stream; } pending[MOST];
static int pending_count, last_error;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

/* Logs a call, and gives what STUB_CUDART_FAIL wants it to answer. */
static int called(const char *name, const char *format, ...) {
    static struct { char name[64]; int calls; } counts[64];
    const char *file = setting("STUB_CUDART_LOG"), *fail = setting("STUB_CUDART_FAIL");
    int place = 0;
    if (file) {
        FILE *log = fopen(file, "a");
        va_list arguments;
        if (!log) abort();
        fprintf(log, "%s ", name);
        va_start(arguments, format);
        vfprintf(log, format, arguments);
        va_end(arguments);
        fputc('\n', log);
        fclose(log);
    }
    while (counts[place].name[0] && strcmp(counts[place].name, name)) place++;
    snprintf(counts[place].name, sizeof counts[place].name, "%s", name);
    counts[place].calls++;
    for (size_t length = strlen(name); fail; fail = strchr(fail, ' ') ? strchr(fail, ' ') + 1 : NULL)
        if (!strncmp(fail, name, length) && fail[length] == '=') {
            int code = 0, from = 1;
            sscanf(fail + length + 1, "%d@%d", &code, &from);
            if (counts[place].calls >= from) return last_error = code;
        }
    return SUCCESS;
}

static struct held *find(const void *address, enum kind kind) {
    for (int i = 0; i < MOST; i++)
        if (held[i].kind == kind && held[i].address == address) return &held[i];
    return NULL;
}

static int hold(void **out, size_t size, enum kind kind) {
    struct held *free_one = find(NULL, FREED);
    if (!free_one || !(free_one->address = malloc(size))) return last_error = OUT_OF_MEMORY;
    memset(free_one->address, 0xAB, size);
    free_one->size = size;
    free_one->kind = kind;
    *out = free_one->address;
    return SUCCESS;
}

static int give_back(void *address, enum kind kind, int otherwise) {
    struct held *found = find(address, kind);
    if (!found) return last_error = otherwise;
    free(found->address);
    memset(found, 0, sizeof *found);
    return SUCCESS;
}

/* For tests: how many handles of a kind are alive, and whether bytes lie in device memory. */
int stub_live(int kind) {
    int count = 0;
    for (int i = 0; i < MOST; i++) count += held[i].kind == (enum kind)kind;
    return count;
}

int stub_holds(const void *address, size_t size) {
    for (int i = 0; i < MOST; i++)
        if (held[i].kind == MEMORY && (const char *)address >= (char *)held[i].address
            && (const char *)address + size <= (char *)held[i].address + held[i].size) return 1;
    return 0;
}

int cudaMalloc(void **out, size_t size) {
    int code = called("cudaMalloc", "%zu", size);
    if (code) return code;
    *out = NULL;
    if (!size) return SUCCESS;
    return size > LARGEST ? (last_error = OUT_OF_MEMORY) : hold(out, size, MEMORY);
}

int cudaFree(void *address) {
    int code = called("cudaFree", "%p", address);
    return code ? code : give_back(address, MEMORY, INVALID_VALUE);
}

int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    int code = called("cudaMemcpyAsync", "%p %p %zu %d %p", to, from, size, kind, stream);
    if (code) return code;
    if (!find(stream, STREAM)) return last_error = INVALID_HANDLE;
    if (kind != HOST_TO_DEVICE && kind != DEVICE_TO_HOST) return last_error = INVALID_DIRECTION;
    if (!stub_holds(kind == HOST_TO_DEVICE ? to : from, size)) return last_error = INVALID_VALUE;
    if (kind == HOST_TO_DEVICE) memcpy(to, from, size);
    else pending[pending_count++ % MOST] = (struct copy){to, from, size, stream};
    return SUCCESS;
}

int cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    int code = called("cudaMemGetInfo", "");
    if (code) return code;
    *free_bytes = ((size_t)5 << 30) + 1;
    *total = (size_t)139 << 30;
    return SUCCESS;
}

int cudaStreamCreate(void **out) {
    int code = called("cudaStreamCreate", "");
    return code ? code : hold(out, 1, STREAM);
}

int cudaStreamSynchronize(void *stream) {
    int code = called("cudaStreamSynchronize", "%p", stream), kept = 0;
    if (code) return code;
    if (!find(stream, STREAM)) return last_error = INVALID_HANDLE;
    for (int i = 0; i < pending_count; i++)
        if (pending[i].stream == stream) memcpy(pending[i].to, pending[i].from, pending[i].size);
        else pending[kept++] = pending[i];
    pending_count = kept;
    return SUCCESS;
}

int cudaStreamDestroy(void *stream) {
    int code = called("cudaStreamDestroy", "%p", stream);
    return code ? code : give_back(stream, STREAM, INVALID_HANDLE);
}

int cudaEventCreate(void **out) {
    int code = called("cudaEventCreate", "");
    return code ? code : hold(out, 1, EVENT);
}

int cudaEventRecord(void *event, void *stream) {
    int code = called("cudaEventRecord", "%p %p", event, stream);
    return code ? code : find(event, EVENT) && find(stream, STREAM) ? SUCCESS : (last_error = INVALID_HANDLE);
}

int cudaEventSynchronize(void *event) {
    int code = called("cudaEventSynchronize", "%p", event);
    return code ? code : find(event, EVENT) ? SUCCESS : (last_error = INVALID_HANDLE);
}

int cudaEventElapsedTime(float *milliseconds, void *start, void *end) {
    int code = called("cudaEventElapsedTime", "%p %p", start, end);
    if (code) return code;
    *milliseconds = 1.5f;
    return find(start, EVENT) && find(end, EVENT) ? SUCCESS : (last_error = INVALID_HANDLE);
}

int cudaEventDestroy(void *event) {
    int code = called("cudaEventDestroy", "%p", event);
    return code ? code : give_back(event, EVENT, INVALID_HANDLE);
}

int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    int code = called("cudaDeviceGetAttribute", "%d %d", attribute, device), major = 8, minor = 6;
    const char *capability = setting("STUB_CUDART_COMPUTE_CAPABILITY");
    if (code) return code;
    if (capability) sscanf(capability, "%d.%d", &major, &minor);
    *value = attribute == 75 ? major : attribute == 76 ? minor : 1000 + attribute;
    return SUCCESS;
}

/* As long as the struct of CUDA 13, whose first member is `char name[256]`. */
int cudaGetDeviceProperties(void *properties, int device) {
    int code = called("cudaGetDeviceProperties", "%d", device);
    if (code) return code;
    memset(properties, 0x7F, 1032);
    snprintf(properties, 256, "Stub GPU");
    return SUCCESS;
}

int cudaRuntimeGetVersion(int *version) {
    *version = 12060;
    return called("cudaRuntimeGetVersion", "");
}

int cudaDriverGetVersion(int *version) {
    *version = 12040;
    return called("cudaDriverGetVersion", "");
}

int cudaGetLastError(void) {
    int code = last_error;
    last_error = SUCCESS;
    return code;
}

const char *cudaGetErrorString(int code) {
    switch (code) {
    case SUCCESS: return "no error";
    case INVALID_VALUE: return "invalid argument";
    case OUT_OF_MEMORY: return "out of memory";
    case INVALID_DIRECTION: return "invalid copy direction for memcpy";
    case 35: return "CUDA driver version is insufficient for CUDA runtime version";
    case 100: return "no CUDA-capable device is detected";
    case INVALID_HANDLE: return "invalid resource handle";
    case 700: return "an illegal memory access was encountered";
    default: return "unrecognized error code";
    }
}

int cudaStreamBeginCapture(void *stream, int mode) {
    int code = called("cudaStreamBeginCapture", "%p %d", stream, mode);
    return code ? code : find(stream, STREAM) ? SUCCESS : (last_error = INVALID_HANDLE);
}

int cudaStreamEndCapture(void *stream, void **graph) {
    int code = called("cudaStreamEndCapture", "%p", stream);
    *graph = NULL;
    return code ? code : find(stream, STREAM) ? hold(graph, 1, GRAPH) : (last_error = INVALID_HANDLE);
}

#ifdef CUDA_10_2
int cudaGraphInstantiate(void **exec, void *graph, void **error_node, char *text, size_t text_size) {
    int code = called("cudaGraphInstantiate", "%p %p %p %zu", graph, (void *)error_node, (void *)text, text_size);
    return code ? code : find(graph, GRAPH) ? hold(exec, 1, GRAPH_EXEC) : (last_error = INVALID_VALUE);
}
#else
int cudaGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags) {
    int code = called("cudaGraphInstantiateWithFlags", "%p %llu", graph, flags);
    return code ? code : find(graph, GRAPH) ? hold(exec, 1, GRAPH_EXEC) : (last_error = INVALID_VALUE);
}

/* The name that CUDA 11 and 12 give different arguments; nobody should call it where the other one exists. */
int cudaGraphInstantiate(void) {
    called("cudaGraphInstantiate", "");
    return last_error = INVALID_VALUE;
}
#endif

int cudaGraphLaunch(void *exec, void *stream) {
    int code = called("cudaGraphLaunch", "%p %p", exec, stream);
    return code ? code : find(exec, GRAPH_EXEC) && find(stream, STREAM) ? SUCCESS : (last_error = INVALID_HANDLE);
}

int cudaGraphExecDestroy(void *exec) {
    int code = called("cudaGraphExecDestroy", "%p", exec);
    return code ? code : give_back(exec, GRAPH_EXEC, INVALID_HANDLE);
}

int cudaGraphDestroy(void *graph) {
    int code = called("cudaGraphDestroy", "%p", graph);
    return code ? code : give_back(graph, GRAPH, INVALID_HANDLE);
}
