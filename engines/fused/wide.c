/* The systems in double: no sum over finite floats, nor one of their squares, is too large for it. */

#define WIDE
#include "kernels.h"
#include "systems.h"

int wide(int kernel, const Maps *image, const float *parameters, long count) {
    const System *system = &systems[kernel];
    Map map = {NULL, NULL, image->channels, image->height, image->width, NULL};
    long size = map.channels * area(&map);
    double *x = malloc((2 * size + count + system->scratch(&map)) * sizeof *x);
    if (!x) return 2;
    double *y = x + size, *values = y + size;
    for (long i = 0; i < size; i++) x[i] = image->x[i];
    for (long i = 0; i < count; i++) values[i] = parameters[i];
    map.x = x;
    map.y = y;
    map.scratch = values + count;
    system->run(&map, values);
    for (long i = 0; i < size; i++) image->y[i] = (float)y[i];
    free(x);
    return 0;
}
