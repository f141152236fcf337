/* Six attention systems as one function each: what a module costs a CPU core if nothing but its memory traffic and its
   arithmetic is paid for. What fits the first-level cache between two passes, a channel, is read from memory once.

   Loops are written so that a compiler makes vectors of them; sums are in any order, and exp is a polynomial. Compilers are
   told that numbers are finite, or largest and smallest would be no vectors. So sums are looked at bit by bit: where one
   is not finite, what depends on it becomes NaN, of srm, simam and shuffle the channel, of the others the image. */

#include "kernels.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define RADIUS 3
#define TAPS 7
#define KERNEL (2 * TAPS * TAPS)

/* 2^k times a polynomial on [-ln 2 / 2, ln 2 / 2], off by a few 1e-8; constant below -87 and above 88. */
static inline float exponential(float x) {
    x = fminf(fmaxf(x, -87.0f), 88.0f);
    float k = floorf(x * 1.44269504f + 0.5f);
    float r = (x - k * 0.693359375f) + k * 2.12194440e-4f; /* ln 2 in two parts */
    float p = 1.98756915e-4f;
    p = p * r + 1.39819995e-3f;
    p = p * r + 8.33345190e-3f;
    p = p * r + 4.16657962e-2f;
    p = p * r + 1.66666655e-1f;
    p = p * r + 5.00000012e-1f;
    p = p * r * r + r + 1.0f;
    union {
        int32_t i;
        float f;
    } power;
    power.i = ((int32_t)k + 127) << 23;
    return p * power.f;
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

static float sum_of(const float *x, long n) {
    float sum = 0.0f;
    for (long i = 0; i < n; i++) sum += x[i];
    return sum;
}

static float squares_around(const float *x, long n, float centre) {
    float sum = 0.0f;
    for (long i = 0; i < n; i++) sum += (x[i] - centre) * (x[i] - centre);
    return sum;
}

static void scaled(const float *restrict x, float *restrict y, long n, float gate) {
    for (long i = 0; i < n; i++) y[i] = x[i] * gate;
}

static void scaled_onto(const float *restrict x, float factor, float *restrict y, long n) {
    for (long i = 0; i < n; i++) y[i] += x[i] * factor;
}

/* Into the largest of several channels, each times its gate, and into their sum. */
static void gather(const float *restrict x, float gate, float *restrict largest, float *restrict sum, long n) {
    for (long i = 0; i < n; i++) {
        float gated = x[i] * gate;
        sum[i] += gated;
        largest[i] = fmaxf(largest[i], gated);
    }
}

static int is_finite(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits & 0x7f800000u) != 0x7f800000u;
}

static void spoil(float *y, long n) {
    const uint32_t nan = 0x7fc00000u;
    for (long i = 0; i < n; i++) memcpy(y + i, &nan, sizeof nan);
}

static long area(const Map *map) { return map->height * map->width; }

static long none(const Map *map) { return 0; }

/* of_mean, of_deviation, shift (each `channels`), eps. */
static void srm(const Map *map, const float *p) {
    long n = area(map), channels = map->channels;
    float eps = p[3 * channels];
    for (long c = 0; c < channels; c++) {
        const float *in = map->x + c * n;
        float mean = sum_of(in, n) / n, squares = squares_around(in, n, mean);
        float deviation = sqrtf(squares / (n - 1) + eps);
        if (is_finite(squares))
            scaled(in, map->y + c * n, n, sigmoid(p[c] * mean + p[channels + c] * deviation + p[2 * channels + c]));
        else
            spoil(map->y + c * n, n);
    }
}

/* lambda. */
static void simam(const Map *map, const float *p) {
    long n = area(map);
    for (long c = 0; c < map->channels; c++) {
        const float *restrict in = map->x + c * n;
        float *restrict out = map->y + c * n;
        float mean = sum_of(in, n) / n, squares = squares_around(in, n, mean);
        float slope = 1.0f / (4.0f * (squares / (n - 1) + p[0]));
        if (!is_finite(squares)) {
            spoil(out, n);
            continue;
        }
        for (long i = 0; i < n; i++) out[i] = in[i] * sigmoid((in[i] - mean) * (in[i] - mean) * slope + 0.5f);
    }
}

/* alpha, gamma, beta (each `channels`), epsilon. */
static void gct(const Map *map, const float *p) {
    long n = area(map), channels = map->channels;
    float epsilon = p[3 * channels], total = 0.0f, *embedded = map->scratch;
    for (long c = 0; c < channels; c++) {
        embedded[c] = sqrtf(squares_around(map->x + c * n, n, 0.0f) + epsilon) * p[c];
        total += embedded[c] * embedded[c];
    }
    if (!is_finite(total)) {
        spoil(map->y, channels * n);
        return;
    }
    float norm = 1.0f / sqrtf(total / channels + epsilon);
    for (long c = 0; c < channels; c++) {
        float gate = 2.0f * sigmoid(2.0f * (embedded[c] * norm * p[channels + c] + p[2 * channels + c]));
        scaled(map->x + c * n, map->y + c * n, n, gate);
    }
}

static long gct_scratch(const Map *map) { return map->channels; }

/* Each `channels`, in the order of the output: where it comes from, whether it is gated by its places, slope and shift;
   then eps. */
static void shuffle(const Map *map, const float *p) {
    long n = area(map), channels = map->channels;
    const float *from = p, *by_place = p + channels, *slope = p + 2 * channels, *shift = p + 3 * channels;
    float eps = p[4 * channels];
    for (long c = 0; c < channels; c++) {
        long place = (long)from[c], source = place < 0 ? 0 : place < channels ? place : channels - 1;
        const float *restrict in = map->x + source * n;
        float *restrict out = map->y + c * n;
        float mean = sum_of(in, n) / n, squares = by_place[c] == 0.0f ? mean : squares_around(in, n, mean);
        if (!is_finite(squares)) {
            spoil(out, n);
            continue;
        }
        if (by_place[c] == 0.0f) {
            scaled(in, out, n, sigmoid(slope[c] * mean + shift[c]));
            continue;
        }
        float steep = slope[c] / sqrtf(squares / n + eps);
        for (long i = 0; i < n; i++) out[i] = in[i] * sigmoid((in[i] - mean) * steep + shift[c]);
    }
}

/* Columns that are convolved at once, as GCC and Clang spell a vector; a processor with shorter ones takes several. */
#define TILE 16
typedef float Vector __attribute__((vector_size(TILE * sizeof(float))));

static long padded(long columns) { return (columns + TILE - 1) / TILE * TILE + 2 * RADIUS; }

/* Two planes inside a frame of zeros, whose width is a multiple of TILE but for the frame's. */
static long frame_of(long rows, long columns) { return 2 * (rows + 2 * RADIUS) * padded(columns); }

/* One 7x7 convolution of two planes, and a sigmoid of it times `share`. */
static void plane_gate(const float *planes[2], float *gate, long rows, long columns, const float *kernel, float bias,
                       float share, float *frame) {
    long stride = padded(columns), size = (rows + 2 * RADIUS) * stride;
    memset(frame, 0, 2 * size * sizeof(float));
    for (int plane = 0; plane < 2; plane++)
        for (long r = 0; r < rows; r++)
            memcpy(frame + plane * size + (r + RADIUS) * stride + RADIUS, planes[plane] + r * columns,
                   columns * sizeof(float));
    for (long r = 0; r < rows; r++)
        for (long start = 0; start < columns; start += TILE) {
            Vector sum = {0.0f};
            for (int plane = 0; plane < 2; plane++)
                for (int v = 0; v < TAPS; v++) {
                    const float *row = frame + plane * size + (r + v) * stride + start;
                    const float *taps = kernel + (plane * TAPS + v) * TAPS;
                    for (int u = 0; u < TAPS; u++) {
                        Vector shifted;
                        memcpy(&shifted, row + u, sizeof shifted);
                        sum += taps[u] * shifted;
                    }
                }
            float sums[TILE];
            memcpy(sums, &sum, sizeof sums);
            for (int i = 0; i < TILE; i++) sums[i] = share * sigmoid(sums[i] + bias);
            long left = columns - start < TILE ? columns - start : TILE;
            memcpy(gate + r * columns + start, sums, left * sizeof(float));
        }
}

/* hidden, W1 (hidden channels), W2 transposed (hidden channels), kernel (2 7 7, mean first). */
static void cbam(const Map *map, const float *p) {
    long n = area(map), channels = map->channels, hidden = (long)p[0];
    const float *reduce = p + 1, *expand = reduce + hidden * channels, *kernel = expand + hidden * channels;
    float *mean = map->scratch, *largest = mean + channels, *gate = largest + channels, *means = gate + channels;
    float *maxima = means + n, *places = maxima + n;
    for (long c = 0; c < channels; c++) {
        const float *in = map->x + c * n;
        float sum = 0.0f, most = in[0];
        for (long i = 0; i < n; i++) {
            sum += in[i];
            most = fmaxf(most, in[i]);
        }
        mean[c] = sum / n;
        largest[c] = most;
        gate[c] = 0.0f;
    }
    for (long unit = 0; unit < hidden; unit++) {
        float of_mean = 0.0f, of_largest = 0.0f;
        for (long c = 0; c < channels; c++) {
            of_mean += reduce[unit * channels + c] * mean[c];
            of_largest += reduce[unit * channels + c] * largest[c];
        }
        float active = fmaxf(of_mean, 0.0f) + fmaxf(of_largest, 0.0f);
        scaled_onto(expand + unit * channels, active, gate, channels);
    }
    for (long c = 0; c < channels; c++) gate[c] = sigmoid(gate[c]);
    for (long i = 0; i < n; i++) {
        means[i] = 0.0f;
        maxima[i] = -FLT_MAX;
    }
    for (long c = 0; c < channels; c++) gather(map->x + c * n, gate[c], maxima, means, n);
    if (!is_finite(sum_of(means, n))) {
        spoil(map->y, channels * n);
        return;
    }
    for (long i = 0; i < n; i++) means[i] /= channels;
    plane_gate((const float *[]){means, maxima}, places, map->height, map->width, kernel, 0.0f, 1.0f, places + n);
    for (long c = 0; c < channels; c++) {
        const float *restrict in = map->x + c * n, *restrict over = places;
        float *restrict out = map->y + c * n, own = gate[c];
        for (long i = 0; i < n; i++) out[i] = in[i] * own * over[i];
    }
}

static long cbam_scratch(const Map *map) {
    return 3 * map->channels + 3 * area(map) + frame_of(map->height, map->width);
}

/* Largest and mean of one channel over each of its axes, into planes `2 ...`, and of all channels so far into `over`. */
static void pool(const float *in, long height, long width, float *columns[2], float *rows[2], float *over[2]) {
    for (long j = 0; j < width; j++) {
        columns[0][j] = -FLT_MAX;
        columns[1][j] = 0.0f;
    }
    for (long h = 0; h < height; h++) {
        const float *row = in + h * width;
        float sum = 0.0f, high = row[0];
        for (long j = 0; j < width; j++) {
            sum += row[j];
            high = fmaxf(high, row[j]);
        }
        rows[0][h] = high;
        rows[1][h] = sum / width;
        gather(row, 1.0f, columns[0], columns[1], width);
    }
    for (long j = 0; j < width; j++) columns[1][j] /= height;
    gather(in, 1.0f, over[0], over[1], height * width);
}

/* The kernel (2 7 7, largest first) and the bias of cw, of hc (its plane is `channels height`) and of hw. */
static void triplet(const Map *map, const float *p) {
    long channels = map->channels, height = map->height, width = map->width, n = area(map);
    long of_columns = channels * width, of_rows = channels * height;
    float *columns = map->scratch, *rows = columns + 2 * of_columns, *over = rows + 2 * of_rows;
    float *cw = over + 2 * n, *hc = cw + of_columns, *hw = hc + of_rows, *frame = hw + n;
    for (long i = 0; i < n; i++) {
        over[i] = -FLT_MAX;
        over[n + i] = 0.0f;
    }
    for (long c = 0; c < channels; c++)
        pool(map->x + c * n, height, width, (float *[]){columns + c * width, columns + of_columns + c * width},
             (float *[]){rows + c * height, rows + of_rows + c * height}, (float *[]){over, over + n});
    if (!is_finite(sum_of(over + n, n))) {
        spoil(map->y, channels * n);
        return;
    }
    for (long i = 0; i < n; i++) over[n + i] /= channels;
    const float *kernel = p;
    plane_gate((const float *[]){columns, columns + of_columns}, cw, channels, width, kernel, kernel[KERNEL], 1.0f / 3,
               frame);
    kernel += KERNEL + 1;
    plane_gate((const float *[]){rows, rows + of_rows}, hc, channels, height, kernel, kernel[KERNEL], 1.0f / 3, frame);
    kernel += KERNEL + 1;
    plane_gate((const float *[]){over, over + n}, hw, height, width, kernel, kernel[KERNEL], 1.0f / 3, frame);
    for (long c = 0; c < channels; c++)
        for (long h = 0; h < height; h++) {
            const float *restrict row = map->x + c * n + h * width, *restrict across = cw + c * width;
            const float *restrict places = hw + h * width;
            float *restrict out = map->y + c * n + h * width, own = hc[c * height + h];
            for (long j = 0; j < width; j++) out[j] = row[j] * (across[j] + own + places[j]);
        }
}

static long triplet_scratch(const Map *map) {
    long planes = map->channels * (map->height + map->width) + area(map);
    long tall = map->channels > map->height ? map->channels : map->height;
    long wide = map->width > map->height ? map->width : map->height;
    return 3 * planes + frame_of(tall, wide);
}

static long three_and_one(const Map *map, float first) { return 3 * map->channels + 1; }
static long four_and_one(const Map *map, float first) { return 4 * map->channels + 1; }
static long one(const Map *map, float first) { return 1; }
static long three_kernels(const Map *map, float first) { return 3 * (KERNEL + 1); }
static long two_layers(const Map *map, float first) {
    return first >= 1.0f && first <= map->channels ? 1 + 2 * (long)first * map->channels + KERNEL : -1;
}

const Kernel kernels[] = {
    {"cbam", cbam, two_layers, cbam_scratch},         {"gct", gct, three_and_one, gct_scratch},
    {"shuffle", shuffle, four_and_one, none},         {"simam", simam, one, none},
    {"srm", srm, three_and_one, none},                {"triplet", triplet, three_kernels, triplet_scratch},
};
const int kernel_count = sizeof kernels / sizeof *kernels;

int fused(const Kernel *kernel, long batch, Map map, const float *parameters, long count) {
    if (count < 1 || kernel->parameters(&map, parameters[0]) != count) return 1;
    long size = map.channels * area(&map), scratch = kernel->scratch(&map);
    map.scratch = scratch ? malloc(scratch * sizeof(float)) : NULL;
    if (scratch && !map.scratch) return 2;
    for (long image = 0; size && image < batch; image++, map.x += size, map.y += size) kernel->run(&map, parameters);
    free(map.scratch);
    return 0;
}

int fused_by_name(const char *name, const float *x, float *y, const long *extents, const float *parameters, long count) {
    for (int i = 0; i < kernel_count; i++)
        if (!strcmp(kernels[i].name, name)) {
            Map map = {x, y, extents[1], extents[2], extents[3], NULL};
            return fused(&kernels[i], extents[0], map, parameters, count);
        }
    return 3;
}
