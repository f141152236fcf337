/* The kernels: the systems of systems.h, which lists the parameters of each, over the images of a batch. */

#ifndef DEPLOY_ATTN_KERNELS_H
#define DEPLOY_ATTN_KERNELS_H

/* Maps `batch channels height width` to read and to write. */
typedef struct {
    const float *x;
    float *y;
    long batch, channels, height, width;
} Maps;

extern const int kernel_count;

const char *kernel_name(int kernel);

/* Runs a system on the images of a batch, one after another; 0, or 1: another number of parameters, 2: no memory. */
int fused(int kernel, const Maps *maps, const float *parameters, long count);

/* One image whose parameters were counted, in double; 0, or 2: no memory. */
int wide(int kernel, const Maps *image, const float *parameters, long count);

/* `fused` by name, for `extents` of batch, channels, height and width; 3: no such system. */
int fused_by_name(const char *name, const float *x, float *y, const long *extents, const float *parameters, long count);

#endif
