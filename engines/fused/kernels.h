/* The kernels of kernels.c: one image each, and the parameters that each one's comment lists. */

#ifndef DEPLOY_ATTN_KERNELS_H
#define DEPLOY_ATTN_KERNELS_H

/* Maps `channels height width` to read and to write, and memory for intermediate results. */
typedef struct {
    const float *x;
    float *y;
    long channels, height, width;
    float *scratch;
} Map;

/* A system: how many parameters it takes for a map, of which the first is known, and how many floats of scratch. */
typedef struct {
    const char *name;
    void (*run)(const Map *map, const float *parameters);
    long (*parameters)(const Map *map, float first);
    long (*scratch)(const Map *map);
} Kernel;

extern const Kernel kernels[];
extern const int kernel_count;

/* Runs a system on `batch` images, one after another; 0, or 1: another number of parameters, 2: no memory. */
int fused(const Kernel *kernel, long batch, Map map, const float *parameters, long count);

/* The same by name, for `extents` of batch, channels, height and width; 3: no such system. */
int fused_by_name(const char *name, const float *x, float *y, const long *extents, const float *parameters, long count);

#endif
