/* Six attention systems as one function each: what a module costs a CPU core if nothing but its memory traffic and its
   arithmetic is paid for. What fits the first-level cache between two passes, a channel, is read from memory once.

   Included by kernels.c, where Real is float, and by wide.c, where it is double.

   Loops are written so that a compiler makes vectors of them; sums are in any order, and exp is a polynomial. Compilers are
   told that numbers are finite, or largest and smallest would be no vectors. So sums are looked at bit by bit: where one
   is not finite, what depends on it becomes NaN, of srm, simam and shuffle the channel, of the others the image, and the
   function returns 1. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h>

#ifdef WIDE
typedef double Real;
typedef uint64_t Bits;
#define EXPONENT 0x7ff0000000000000u
#define QUIET 0x7ff8000000000000u
#else
typedef float Real;
typedef uint32_t Bits;
#define EXPONENT 0x7f800000u
#define QUIET 0x7fc00000u
#endif

/* An image `channels height width` to read and to write, and memory for intermediate results. */
typedef struct {
    const Real *x;
    Real *y;
    long channels, height, width;
    Real *scratch;
} Map;

/* A system: what computes an image, how many parameters it takes, of which the first is known, and how much scratch. */
typedef struct {
    const char *name;
    int (*run)(const Map *map, const Real *parameters);
    long (*parameters)(const Map *map, Real first);
    long (*scratch)(const Map *map);
} System;

#define RADIUS 3
#define TAPS 7
#define KERNEL (2 * TAPS * TAPS)

/* 2^k times a polynomial on [-ln 2 / 2, ln 2 / 2], off by a few 1e-8; constant below -87 and above 88. */
static inline float exponential(Real of) {
    float x = fmin(fmax(of, -87.0f), 88.0f);
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

static inline float sigmoid(Real x) { return 1.0f / (1.0f + exponential(-x)); }

static Real sum_of(const Real *x, long n) {
    Real sum = 0.0f;
    for (long i = 0; i < n; i++) sum += x[i];
    return sum;
}

static Real squares_around(const Real *x, long n, Real centre) {
    Real sum = 0.0f;
    for (long i = 0; i < n; i++) sum += (x[i] - centre) * (x[i] - centre);
    return sum;
}

static void scaled(const Real *restrict x, Real *restrict y, long n, Real gate) {
    for (long i = 0; i < n; i++) y[i] = x[i] * gate;
}

static void scaled_onto(const Real *restrict x, Real factor, Real *restrict y, long n) {
    for (long i = 0; i < n; i++) y[i] += x[i] * factor;
}

/* Into the largest of several channels, each times its gate, and into their sum. */
static void gather(const Real *restrict x, Real gate, Real *restrict largest, Real *restrict sum, long n) {
    for (long i = 0; i < n; i++) {
        Real gated = x[i] * gate;
        sum[i] += gated;
        largest[i] = fmax(largest[i], gated);
    }
}

static int is_finite(Real x) {
    Bits bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits & EXPONENT) != EXPONENT;
}

/* 1: so many values became NaN. */
static int spoil(Real *y, long n) {
    const Bits nan = QUIET;
    for (long i = 0; i < n; i++) memcpy(y + i, &nan, sizeof nan);
    return 1;
}

static long area(const Map *map) { return map->height * map->width; }

static long none(const Map *map) { return 0; }

/* of_mean, of_deviation, shift (each `channels`), eps. */
static int srm(const Map *map, const Real *p) {
    long n = area(map), channels = map->channels;
    Real eps = p[3 * channels];
    int spoiled = 0;
    for (long c = 0; c < channels; c++) {
        const Real *in = map->x + c * n;
        Real mean = sum_of(in, n) / n, squares = squares_around(in, n, mean);
        Real deviation = sqrt(squares / (n - 1) + eps);
        if (is_finite(squares))
            scaled(in, map->y + c * n, n, sigmoid(p[c] * mean + p[channels + c] * deviation + p[2 * channels + c]));
        else
            spoiled |= spoil(map->y + c * n, n);
    }
    return spoiled;
}

/* lambda. */
static int simam(const Map *map, const Real *p) {
    long n = area(map);
    int spoiled = 0;
    for (long c = 0; c < map->channels; c++) {
        const Real *restrict in = map->x + c * n;
        Real *restrict out = map->y + c * n;
        Real mean = sum_of(in, n) / n, squares = squares_around(in, n, mean);
        Real slope = 1.0f / (4.0f * (squares / (n - 1) + p[0]));
        if (!is_finite(squares)) {
            spoiled |= spoil(out, n);
            continue;
        }
        for (long i = 0; i < n; i++) out[i] = in[i] * sigmoid((in[i] - mean) * (in[i] - mean) * slope + 0.5f);
    }
    return spoiled;
}

/* alpha, gamma, beta (each `channels`), epsilon. */
static int gct(const Map *map, const Real *p) {
    long n = area(map), channels = map->channels;
    Real epsilon = p[3 * channels], total = 0.0f, *embedded = map->scratch;
    for (long c = 0; c < channels; c++) {
        embedded[c] = sqrt(squares_around(map->x + c * n, n, 0.0f) + epsilon) * p[c];
        total += embedded[c] * embedded[c];
    }
    if (!is_finite(total)) return spoil(map->y, channels * n);
    Real norm = 1.0f / sqrt(total / channels + epsilon);
    for (long c = 0; c < channels; c++) {
        Real gate = 2.0f * sigmoid(2.0f * (embedded[c] * norm * p[channels + c] + p[2 * channels + c]));
        scaled(map->x + c * n, map->y + c * n, n, gate);
    }
    return 0;
}

static long gct_scratch(const Map *map) { return map->channels; }

/* Each `channels`, in the order of the output: where it comes from, whether it is gated by its places, slope and shift;
   then eps. */
static int shuffle(const Map *map, const Real *p) {
    long n = area(map), channels = map->channels;
    const Real *from = p, *by_place = p + channels, *slope = p + 2 * channels, *shift = p + 3 * channels;
    Real eps = p[4 * channels];
    int spoiled = 0;
    for (long c = 0; c < channels; c++) {
        long place = (long)from[c], source = place < 0 ? 0 : place < channels ? place : channels - 1;
        const Real *restrict in = map->x + source * n;
        Real *restrict out = map->y + c * n;
        Real mean = sum_of(in, n) / n, squares = by_place[c] == 0.0f ? mean : squares_around(in, n, mean);
        if (!is_finite(squares)) {
            spoiled |= spoil(out, n);
            continue;
        }
        if (by_place[c] == 0.0f) {
            scaled(in, out, n, sigmoid(slope[c] * mean + shift[c]));
            continue;
        }
        Real steep = slope[c] / sqrt(squares / n + eps);
        for (long i = 0; i < n; i++) out[i] = in[i] * sigmoid((in[i] - mean) * steep + shift[c]);
    }
    return spoiled;
}

/* Columns that are convolved at once, as GCC and Clang spell a vector; a processor with shorter ones takes several. */
#define TILE 16
typedef Real Vector __attribute__((vector_size(TILE * sizeof(Real))));

static long padded(long columns) { return (columns + TILE - 1) / TILE * TILE + 2 * RADIUS; }

/* Two planes inside a frame of zeros, whose width is a multiple of TILE but for the frame's. */
static long frame_of(long rows, long columns) { return 2 * (rows + 2 * RADIUS) * padded(columns); }

/* One 7x7 convolution of two planes, and a sigmoid of it times `share`. Whether every sum is finite, which none is over a
   value that is not: each is in a sum, times a tap, and not even zero makes it finite. */
static int plane_gate(const Real *planes[2], Real *gate, long rows, long columns, const Real *kernel, Real bias,
                      Real share, Real *frame) {
    Vector seen = {0.0f};
    long stride = padded(columns), size = (rows + 2 * RADIUS) * stride;
    memset(frame, 0, 2 * size * sizeof(Real));
    for (int plane = 0; plane < 2; plane++)
        for (long r = 0; r < rows; r++)
            memcpy(frame + plane * size + (r + RADIUS) * stride + RADIUS, planes[plane] + r * columns,
                   columns * sizeof(Real));
    for (long r = 0; r < rows; r++)
        for (long start = 0; start < columns; start += TILE) {
            Vector sum = {0.0f};
            for (int plane = 0; plane < 2; plane++)
                for (int v = 0; v < TAPS; v++) {
                    const Real *row = frame + plane * size + (r + v) * stride + start;
                    const Real *taps = kernel + (plane * TAPS + v) * TAPS;
                    for (int u = 0; u < TAPS; u++) {
                        Vector shifted;
                        memcpy(&shifted, row + u, sizeof shifted);
                        sum += taps[u] * shifted;
                    }
                }
            Real sums[TILE];
            seen += sum;
            memcpy(sums, &sum, sizeof sums);
            for (int i = 0; i < TILE; i++) sums[i] = share * sigmoid(sums[i] + bias);
            long left = columns - start < TILE ? columns - start : TILE;
            memcpy(gate + r * columns + start, sums, left * sizeof(Real));
        }
    Real lanes[TILE];
    memcpy(lanes, &seen, sizeof lanes);
    return is_finite(sum_of(lanes, TILE));
}

/* hidden, W1 (hidden channels), W2 transposed (hidden channels), kernel (2 7 7, mean first). */
static int cbam(const Map *map, const Real *p) {
    long n = area(map), channels = map->channels, hidden = (long)p[0];
    const Real *reduce = p + 1, *expand = reduce + hidden * channels, *kernel = expand + hidden * channels;
    Real *mean = map->scratch, *largest = mean + channels, *gate = largest + channels, *means = gate + channels;
    Real *maxima = means + n, *places = maxima + n, seen = 0.0f;
    for (long c = 0; c < channels; c++) {
        const Real *in = map->x + c * n;
        Real sum = 0.0f, most = in[0];
        for (long i = 0; i < n; i++) {
            sum += in[i];
            most = fmax(most, in[i]);
        }
        mean[c] = sum / n;
        largest[c] = most;
        gate[c] = 0.0f;
    }
    for (long unit = 0; unit < hidden; unit++) {
        Real of_mean = 0.0f, of_largest = 0.0f;
        for (long c = 0; c < channels; c++) {
            of_mean += reduce[unit * channels + c] * mean[c];
            of_largest += reduce[unit * channels + c] * largest[c];
        }
        seen += of_mean + of_largest; /* which fmax may hide */
        Real active = fmax(of_mean, 0.0f) + fmax(of_largest, 0.0f);
        scaled_onto(expand + unit * channels, active, gate, channels);
    }
    seen += sum_of(gate, channels);
    for (long c = 0; c < channels; c++) gate[c] = sigmoid(gate[c]);
    for (long i = 0; i < n; i++) {
        means[i] = 0.0f;
        maxima[i] = -FLT_MAX;
    }
    for (long c = 0; c < channels; c++) gather(map->x + c * n, gate[c], maxima, means, n);
    for (long i = 0; i < n; i++) means[i] /= channels;
    const Real *planes[2] = {means, maxima};
    int finite = plane_gate(planes, places, map->height, map->width, kernel, 0.0f, 1.0f, places + n);
    if (!finite || !is_finite(seen)) return spoil(map->y, channels * n);
    for (long c = 0; c < channels; c++) {
        const Real *restrict in = map->x + c * n, *restrict over = places;
        Real *restrict out = map->y + c * n, own = gate[c];
        for (long i = 0; i < n; i++) out[i] = in[i] * own * over[i];
    }
    return 0;
}

static long cbam_scratch(const Map *map) {
    return 3 * map->channels + 3 * area(map) + frame_of(map->height, map->width);
}

/* Largest and mean of one channel over each of its axes, into planes `2 ...`, and of all channels so far into `over`. */
static void pool(const Real *in, long height, long width, Real *columns[2], Real *rows[2], Real *over[2]) {
    for (long j = 0; j < width; j++) {
        columns[0][j] = -FLT_MAX;
        columns[1][j] = 0.0f;
    }
    for (long h = 0; h < height; h++) {
        const Real *row = in + h * width;
        Real sum = 0.0f, high = row[0];
        for (long j = 0; j < width; j++) {
            sum += row[j];
            high = fmax(high, row[j]);
        }
        rows[0][h] = high;
        rows[1][h] = sum / width;
        gather(row, 1.0f, columns[0], columns[1], width);
    }
    for (long j = 0; j < width; j++) columns[1][j] /= height;
    gather(in, 1.0f, over[0], over[1], height * width);
}

/* The kernel (2 7 7, largest first) and the bias of cw, of hc (its plane is `channels height`) and of hw. */
static int triplet(const Map *map, const Real *p) {
    long channels = map->channels, height = map->height, width = map->width, n = area(map);
    long of_columns = channels * width, of_rows = channels * height;
    Real *columns = map->scratch, *rows = columns + 2 * of_columns, *over = rows + 2 * of_rows;
    Real *cw = over + 2 * n, *hc = cw + of_columns, *hw = hc + of_rows, *frame = hw + n;
    for (long i = 0; i < n; i++) {
        over[i] = -FLT_MAX;
        over[n + i] = 0.0f;
    }
    for (long c = 0; c < channels; c++)
        pool(map->x + c * n, height, width, (Real *[]){columns + c * width, columns + of_columns + c * width},
             (Real *[]){rows + c * height, rows + of_rows + c * height}, (Real *[]){over, over + n});
    for (long i = 0; i < n; i++) over[n + i] /= channels;
    const Real *of_cw = p, *of_hc = of_cw + KERNEL + 1, *of_hw = of_hc + KERNEL + 1;
    Real third = 1.0f / 3;
    const Real *crossing[2] = {columns, columns + of_columns}, *lying[2] = {rows, rows + of_rows};
    const Real *flat[2] = {over, over + n};
    int finite = plane_gate(crossing, cw, channels, width, of_cw, of_cw[KERNEL], third, frame);
    finite &= plane_gate(lying, hc, channels, height, of_hc, of_hc[KERNEL], third, frame);
    finite &= plane_gate(flat, hw, height, width, of_hw, of_hw[KERNEL], third, frame);
    if (!finite) return spoil(map->y, channels * n);
    for (long c = 0; c < channels; c++)
        for (long h = 0; h < height; h++) {
            const Real *restrict row = map->x + c * n + h * width, *restrict across = cw + c * width;
            const Real *restrict places = hw + h * width;
            Real *restrict out = map->y + c * n + h * width, own = hc[c * height + h];
            for (long j = 0; j < width; j++) out[j] = row[j] * (across[j] + own + places[j]);
        }
    return 0;
}

static long triplet_scratch(const Map *map) {
    long planes = map->channels * (map->height + map->width) + area(map);
    long tall = map->channels > map->height ? map->channels : map->height;
    long wide = map->width > map->height ? map->width : map->height;
    return 3 * planes + frame_of(tall, wide);
}

static long three_and_one(const Map *map, Real first) { return 3 * map->channels + 1; }
static long four_and_one(const Map *map, Real first) { return 4 * map->channels + 1; }
static long one(const Map *map, Real first) { return 1; }
static long three_kernels(const Map *map, Real first) { return 3 * (KERNEL + 1); }
static long two_layers(const Map *map, Real first) {
    return first >= 1.0f && first <= map->channels ? 1 + 2 * (long)first * map->channels + KERNEL : -1;
}

static const System systems[] = {
    {"cbam", cbam, two_layers, cbam_scratch},         {"gct", gct, three_and_one, gct_scratch},
    {"shuffle", shuffle, four_and_one, none},         {"simam", simam, one, none},
    {"srm", srm, three_and_one, none},                {"triplet", triplet, three_kernels, triplet_scratch},
};
