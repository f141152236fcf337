/* The kernels as operators of onnxruntime, in the domain `deploy_attn`: a map and its parameters in, a map out.

   onnxruntime hands a library its functions as a table whose order never changes and a structure of callbacks that only
   grows. The few that are needed are declared here, so that no header of it has to be installed. */

#include "kernels.h"

#include <stddef.h>
#include <stdint.h>

#define API_VERSION 16 /* of onnxruntime 1.16: the first whose kernels return a status */
#define DOMAIN "deploy_attn"
#define LEAST_SERVED 2 /* a variance over n - 1 places */

enum { INVALID_ARGUMENT = 2, FLOAT = 1, REQUIRED = 0 };

typedef struct Status Status;
typedef struct Value Value;
typedef struct Context Context;
typedef struct Options Options;
typedef struct Domain Domain;
typedef struct Shape Shape;
typedef struct Operator Operator;
typedef void (*Function)(void);

typedef struct {
    const Function *(*table)(uint32_t version);
    const char *(*version)(void);
} Base;

/* The structure of callbacks up to those of version 16; what this library does not need is a null pointer. */
struct Operator {
    uint32_t version;
    void *(*create)(const Operator *, const Function *, const void *);
    const char *(*name)(const Operator *);
    const char *(*provider)(const Operator *);
    int (*input_type)(const Operator *, size_t);
    size_t (*inputs)(const Operator *);
    int (*output_type)(const Operator *, size_t);
    size_t (*outputs)(const Operator *);
    void (*compute)(void *, Context *);
    void (*destroy)(void *);
    int (*input_kind)(const Operator *, size_t);
    int (*output_kind)(const Operator *, size_t);
    int (*input_memory)(const Operator *, size_t);
    Function variadic[4];
    Status *(*create_or_fail)(const Operator *, const Function *, const void *, void **);
    Status *(*compute_or_fail)(void *, Context *);
    Function later[8];
    int kernel;
};

/* Places in the table of functions. */
#define CREATE_STATUS(api) ((Status * (*)(int, const char *)) api[0])
#define CREATE_DOMAIN(api) ((Status * (*)(const char *, Domain **)) api[26])
#define ADD_OPERATOR(api) ((Status * (*)(Domain *, const Operator *)) api[27])
#define ADD_DOMAIN(api) ((Status * (*)(Options *, Domain *)) api[28])
#define GET_DATA(api) ((Status * (*)(const Value *, void **)) api[51])
#define GET_RANK(api) ((Status * (*)(const Shape *, size_t *)) api[61])
#define GET_EXTENTS(api) ((Status * (*)(const Shape *, int64_t *, size_t)) api[62])
#define GET_COUNT(api) ((Status * (*)(const Shape *, size_t *)) api[64])
#define GET_SHAPE(api) ((Status * (*)(const Value *, Shape **)) api[65])
#define GET_INPUT(api) ((Status * (*)(const Context *, size_t, const Value **)) api[90])
#define GET_OUTPUT(api) ((Status * (*)(Context *, size_t, const int64_t *, size_t, Value **)) api[91])
#define RELEASE_SHAPE(api) ((void (*)(Shape *))api[99])

static const Function *api; /* set when the library is registered, and the same each time */

static Status *refuse(const char *problem) { return CREATE_STATUS(api)(INVALID_ARGUMENT, problem); }

static Status *create_or_fail(const Operator *operator, const Function *table, const void *info, void **made) {
    *made = (void *)operator;
    return NULL;
}

/* The extents of the map and the number of parameters. */
static Status *measured(const Value *x, const Value *parameters, int64_t extents[4], size_t *count) {
    Shape *shape;
    size_t rank = 0;
    Status *failed = GET_SHAPE(api)(x, &shape);
    if (failed) return failed;
    failed = GET_RANK(api)(shape, &rank);
    if (!failed && rank == 4) failed = GET_EXTENTS(api)(shape, extents, 4);
    RELEASE_SHAPE(api)(shape);
    if (failed) return failed;
    if (rank != 4) return refuse("a fused operator takes a map of batch, channels, height and width");
    if (extents[2] * extents[3] < LEAST_SERVED) return refuse("a fused operator takes a map of more than 1x1");
    if ((failed = GET_SHAPE(api)(parameters, &shape))) return failed;
    failed = GET_COUNT(api)(shape, count);
    RELEASE_SHAPE(api)(shape);
    return failed;
}

static Status *compute_or_fail(void *made, Context *context) {
    const Operator *operator= made;
    const Value *x, *parameters;
    Value *y;
    int64_t extents[4];
    size_t count = 0;
    void *in, *out, *values;
    Status *failed;
    if ((failed = GET_INPUT(api)(context, 0, &x))) return failed;
    if ((failed = GET_INPUT(api)(context, 1, &parameters))) return failed;
    if ((failed = measured(x, parameters, extents, &count))) return failed;
    if ((failed = GET_OUTPUT(api)(context, 0, extents, 4, &y))) return failed;
    if ((failed = GET_DATA(api)(x, &in)) || (failed = GET_DATA(api)(parameters, &values))) return failed;
    if ((failed = GET_DATA(api)(y, &out))) return failed;
    Maps maps = {in, out, extents[0], extents[1], extents[2], extents[3]};
    switch (fused(operator->kernel, &maps, values, (long)count)) {
    case 0:
        return NULL;
    case 1:
        return refuse("the parameters of a fused operator are not those of a map of so many channels");
    default:
        return refuse("no memory for a fused operator");
    }
}

static const char *name(const Operator *operator) { return kernel_name(operator->kernel); }
static const char *provider(const Operator *operator) { return NULL; } /* the CPU's */
static int type(const Operator *operator, size_t index) { return FLOAT; }
static int kind(const Operator *operator, size_t index) { return REQUIRED; }
static size_t inputs(const Operator *operator) { return 2; }
static size_t outputs(const Operator *operator) { return 1; }
static void destroy(void *made) {}

#define OPERATOR(index)                                                                                                \
    {                                                                                                                  \
        .version = API_VERSION,                                                                                        \
        .name = name,                                                                                                  \
        .provider = provider,                                                                                          \
        .input_type = type,                                                                                            \
        .inputs = inputs,                                                                                              \
        .output_type = type,                                                                                           \
        .outputs = outputs,                                                                                            \
        .destroy = destroy,                                                                                            \
        .input_kind = kind,                                                                                            \
        .output_kind = kind,                                                                                           \
        .input_memory = kind,                                                                                          \
        .create_or_fail = create_or_fail,                                                                              \
        .compute_or_fail = compute_or_fail,                                                                            \
        .kernel = index,                                                                                               \
    }

/* Sessions keep pointers to them, and may run while another one is made: never written. */
static const Operator operators[] = {OPERATOR(0), OPERATOR(1), OPERATOR(2), OPERATOR(3), OPERATOR(4), OPERATOR(5)};

/* What onnxruntime looks up by this name when a session registers the library. */
Status *RegisterCustomOps(Options *options, const Base *base) {
    Domain *domain;
    api = base->table(API_VERSION);
    if (!api) return base->table(1) ? ((Status * (*)(int, const char *)) base->table(1)[0])(
                                          INVALID_ARGUMENT, "fused operators need onnxruntime 1.16 or newer")
                                    : NULL;
    Status *failed = CREATE_DOMAIN(api)(DOMAIN, &domain);
    for (size_t i = 0; !failed && i < sizeof operators / sizeof *operators; i++)
        failed = ADD_OPERATOR(api)(domain, &operators[i]);
    return failed ? failed : ADD_DOMAIN(api)(options, domain);
}
