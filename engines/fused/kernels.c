/* The systems in float, image by image; one that float cannot hold is computed again in double. */

#include "kernels.h"
#include "systems.h"

const int kernel_count = sizeof systems / sizeof *systems;

const char *kernel_name(int kernel) { return systems[kernel].name; }

int fused(int kernel, const Maps *maps, const float *parameters, long count) {
    const System *system = &systems[kernel];
    Map map = {maps->x, maps->y, maps->channels, maps->height, maps->width, NULL};
    if (count < 1 || system->parameters(&map, parameters[0]) != count) return 1;
    long size = map.channels * area(&map), scratch = system->scratch(&map);
    int failed = 0;
    map.scratch = scratch ? malloc(scratch * sizeof(float)) : NULL;
    if (scratch && !map.scratch) return 2;
    for (long image = 0; size && !failed && image < maps->batch; image++, map.x += size, map.y += size) {
        Maps one = {map.x, map.y, 1, map.channels, map.height, map.width};
        if (system->run(&map, parameters)) failed = wide(kernel, &one, parameters, count);
    }
    free(map.scratch);
    return failed;
}

int fused_by_name(const char *name, const float *x, float *y, const long *extents, const float *parameters, long count) {
    Maps maps = {x, y, extents[0], extents[1], extents[2], extents[3]};
    for (int kernel = 0; kernel < kernel_count; kernel++)
        if (!strcmp(systems[kernel].name, name)) return fused(kernel, &maps, parameters, count);
    return 3;
}
