/* TensorFlow operations that measure tensors, each read once, while it is in the cache.

     KerasBackpropRow(; width: int) -> row: float                                               memory for figures, a vector
     KerasBackpropMeasure(row: float, x: N * float; place: int, wanted: list(int), lower, upper: list(float))
                                                                                               writes into it, puts nothing out
     KerasBackpropRowOf(row: float) -> y: float                                                 the vector that has been written

   `wanted` says by bits which figures of each tensor are written from `place` on, in the order of `enum Figure`, tensor after
   tensor. SQUARES, SPREAD and CHANGE are halves, as of `tf.nn.l2_loss`. CHANGE is of the difference to the next tensor; OUTSIDE
   counts what is not between the tensor's `lower` and `upper`.

   All that write into a row run before the KerasBackpropRowOf that reads it (control inputs see to that), each to a place of its
   own. They have no output, for to allocate one takes as long as to measure a small tensor.

   It is written against TensorFlow's C interface, which stays as it is from version to version, and is compiled in a fraction of a
   second (`native_library.py`). */

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* `ops.h` names these types as C++ does. */
typedef struct TF_OpDefinitionBuilder TF_OpDefinitionBuilder;
typedef struct TF_ShapeInferenceContext TF_ShapeInferenceContext;
typedef struct TF_ShapeHandle TF_ShapeHandle;
typedef struct TF_DimensionHandle TF_DimensionHandle;

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"

enum Figure { SQUARES = 1, MEAN = 2, SPREAD = 4, MAX = 8, MIN = 16, ZEROS = 32, FINITE = 64, OUTSIDE = 128, CHANGE = 256 };

/* Numbers are taken in LANES side by side, which makes vector instructions of the loops over them. Each lane adds up
   BLOCK / LANES of them in single precision; these sums are added up in double precision, TOTALS side by side, for one addition
   after the other would take longer than all the rest. */
enum { LANES = 32, BLOCK = 16 * LANES, TOTALS = 8 };

static inline void fold(double totals[TOTALS], const float lanes[LANES]) {
  for (int l = 0; l < LANES; l += TOTALS)
    for (int t = 0; t < TOTALS; t++) totals[t] += lanes[l + t];
}

static inline double sum_of(const double totals[TOTALS]) {
  double sum = 0;
  for (int t = 0; t < TOTALS; t++) sum += totals[t];
  return sum;
}

typedef struct {
  double sum, squares;
  float max, min;
  int64_t zeros, outside;
} Sums;

static inline void add(Sums* s, float x, float lower, float upper) {
  s->sum += x;
  s->squares += (double)x * x;
  s->max = x > s->max ? x : s->max;
  s->min = x < s->min ? x : s->min;
  s->zeros += x == 0;
  s->outside += (x <= lower) | (x >= upper);
}

/* One pass over n numbers. Without `limited`, which is known when this is compiled, nothing is `outside`. */
static inline __attribute__((always_inline)) Sums sums_of(const float* x, int64_t n, int limited, float lower, float upper) {
  Sums s = {0, 0, -INFINITY, INFINITY, 0, 0};
  float max[LANES], min[LANES];
  double sums[TOTALS] = {0}, of_squares[TOTALS] = {0};
  for (int l = 0; l < LANES; l++) max[l] = -INFINITY, min[l] = INFINITY;
  int64_t i = 0;
  while (i + LANES <= n) {
    float sum[LANES] = {0}, squares[LANES] = {0};
    int32_t zeros[LANES] = {0}, outside[LANES] = {0};
    for (int64_t end = i + BLOCK; i < end && i + LANES <= n; i += LANES)
      for (int l = 0; l < LANES; l++) {
        float v = x[i + l];
        sum[l] += v;
        squares[l] += v * v;
        max[l] = v > max[l] ? v : max[l];
        min[l] = v < min[l] ? v : min[l];
        zeros[l] += v == 0;
        if (limited) outside[l] += (v <= lower) | (v >= upper);
      }
    fold(sums, sum);
    fold(of_squares, squares);
    for (int l = 0; l < LANES; l++) {
      s.zeros += zeros[l];
      s.outside += outside[l];
    }
  }
  s.sum = sum_of(sums);
  s.squares = sum_of(of_squares);
  for (int l = 0; l < LANES; l++) {
    s.max = max[l] > s.max ? max[l] : s.max;
    s.min = min[l] < s.min ? min[l] : s.min;
  }
  for (; i < n; i++) add(&s, x[i], lower, upper);
  return s;
}

/* Σ(x − other)² of two arrays, or, without another, Σ(x − mean)². */
static inline __attribute__((always_inline)) double squares_of(const float* x, const float* other, float mean, int64_t n) {
  double totals[TOTALS] = {0};
  int64_t i = 0;
  while (i + LANES <= n) {
    float squares[LANES] = {0};
    for (int64_t end = i + BLOCK; i < end && i + LANES <= n; i += LANES)
      for (int l = 0; l < LANES; l++) {
        float difference = x[i + l] - (other ? other[i + l] : mean);
        squares[l] += difference * difference;
      }
    fold(totals, squares);
  }
  double total = sum_of(totals);
  for (; i < n; i++) {
    double difference = (double)x[i] - (other ? other[i] : mean);
    total += difference * difference;
  }
  return total;
}

/* Σx² and Σ(x − other)² in one pass. */
static inline void squares_and_change(const float* x, const float* other, int64_t n, double* of_x, double* of_change) {
  double all_squares[TOTALS] = {0}, all_change[TOTALS] = {0};
  int64_t i = 0;
  while (i + LANES <= n) {
    float squares[LANES] = {0}, change[LANES] = {0};
    for (int64_t end = i + BLOCK; i < end && i + LANES <= n; i += LANES)
      for (int l = 0; l < LANES; l++) {
        float v = x[i + l], difference = v - other[i + l];
        squares[l] += v * v;
        change[l] += difference * difference;
      }
    fold(all_squares, squares);
    fold(all_change, change);
  }
  *of_x = sum_of(all_squares);
  *of_change = sum_of(all_change);
  for (; i < n; i++) {
    double v = x[i], difference = v - other[i];
    *of_x += v * v;
    *of_change += difference * difference;
  }
}

/* Writes the figures of x that are wanted, and returns the place after them. `next` is the next tensor, for CHANGE. */
static float* measure(const float* x, int64_t n, const float* next, int wanted, float lower, float upper, float* out) {
  if (wanted == (SQUARES | CHANGE)) {
    double squares, change;
    squares_and_change(x, next, n, &squares, &change);
    *out++ = squares / 2;
    *out++ = change / 2;
    return out;
  }
  if (wanted & ~(SQUARES | CHANGE)) {
    Sums s = wanted & OUTSIDE ? sums_of(x, n, 1, lower, upper) : sums_of(x, n, 0, -INFINITY, INFINITY);
    double mean = s.sum / n;
    int64_t finite = n;
    if (!isfinite(s.sum)) { /* so is an element, or the sum overflows */
      finite = 0;
      for (int64_t i = 0; i < n; i++) {
        finite += isfinite(x[i]) != 0;
        if (isnan(x[i])) s.max = s.min = NAN;
      }
    }
    if (wanted & SQUARES) *out++ = s.squares / 2;
    if (wanted & MEAN) *out++ = mean;
    if (wanted & SPREAD) { /* the sums lose no digit unless the mean is most of the squares, or they overflow */
      double of_mean = n * mean * mean;
      int by_sums = isfinite(s.squares) && 2 * of_mean <= s.squares;
      *out++ = (by_sums ? s.squares - of_mean : squares_of(x, NULL, mean, n)) / 2;
    }
    if (wanted & MAX) *out++ = s.max;
    if (wanted & MIN) *out++ = s.min;
    if (wanted & ZEROS) *out++ = s.zeros;
    if (wanted & FINITE) *out++ = finite;
    if (wanted & OUTSIDE) *out++ = s.outside;
  } else if (wanted & SQUARES) {
    *out++ = squares_of(x, NULL, 0, n) / 2;
  }
  if (wanted & CHANGE) *out++ = squares_of(x, next, 0, n) / 2;
  return out;
}

/* An attribute that is a number; 0 if it cannot be had, which `status` says. */
static int32_t int_of(TF_OpKernelConstruction* construction, const char* name, TF_Status* status) {
  int32_t value = 0;
  if (TF_GetCode(status) == TF_OK) TF_OpKernelConstruction_GetAttrInt32(construction, name, &value, status);
  return value;
}

static void no_memory(TF_Status* status) { TF_SetStatus(status, TF_RESOURCE_EXHAUSTED, "no memory for a kernel"); }

/* A kernel that cannot be made is NULL, and TensorFlow, which is told so, does not compute with it. */
static void* made(TF_OpKernelConstruction* construction, void* kernel, void (*destroy)(void*), TF_Status* status) {
  if (TF_GetCode(status) != TF_OK) {
    TF_OpKernelConstruction_Failure(construction, status);
    destroy(kernel);
    kernel = NULL;
  }
  TF_DeleteStatus(status);
  return kernel;
}

/* The end of a computation. */
static void done(TF_OpKernelContext* context, TF_Tensor* tensor, TF_Status* status) {
  if (TF_GetCode(status) != TF_OK) TF_OpKernelContext_Failure(context, status);
  if (tensor) TF_DeleteTensor(tensor);
  TF_DeleteStatus(status);
}

static void* create_row(TF_OpKernelConstruction* construction) {
  TF_Status* status = TF_NewStatus();
  int64_t* width = malloc(sizeof *width);
  if (width)
    *width = int_of(construction, "width", status);
  else
    no_memory(status);
  return made(construction, width, free, status);
}

static void compute_row(void* width, TF_OpKernelContext* context) {
  TF_Status* status = TF_NewStatus();
  done(context, TF_AllocateOutput(context, 0, TF_FLOAT, width, 1, *(int64_t*)width * sizeof(float), status), status);
}

typedef struct {
  int32_t count, place;
  int32_t* wanted;
  float *lower, *upper;
} Attributes;

static void destroy_measure(void* kernel) {
  Attributes* a = kernel;
  if (a == NULL) return;
  free(a->wanted);
  free(a->lower);
  free(a->upper);
  free(a);
}

static void* create_measure(TF_OpKernelConstruction* construction) {
  TF_Status* status = TF_NewStatus();
  Attributes* a = calloc(1, sizeof *a);
  if (a) {
    a->place = int_of(construction, "place", status);
    a->count = int_of(construction, "N", status);
    a->wanted = calloc(a->count, sizeof *a->wanted);
    a->lower = calloc(a->count, sizeof *a->lower);
    a->upper = calloc(a->count, sizeof *a->upper);
  }
  if (a == NULL || a->wanted == NULL || a->lower == NULL || a->upper == NULL) no_memory(status);
  if (TF_GetCode(status) == TF_OK)
    TF_OpKernelConstruction_GetAttrInt32List(construction, "wanted", a->wanted, a->count, status);
  if (TF_GetCode(status) == TF_OK)
    TF_OpKernelConstruction_GetAttrFloatList(construction, "lower", a->lower, a->count, status);
  if (TF_GetCode(status) == TF_OK)
    TF_OpKernelConstruction_GetAttrFloatList(construction, "upper", a->upper, a->count, status);
  return made(construction, a, destroy_measure, status);
}

/* Looks whether the figures have room in a row. */
static void check_row(const Attributes* a, const TF_Tensor* row, TF_Status* status) {
  if (TF_GetCode(status) != TF_OK) return;
  int64_t end = a->place;
  for (int i = 0; i < a->count; i++) end += __builtin_popcount(a->wanted[i]);
  if (a->place < 0 || end > TF_TensorElementCount(row))
    TF_SetStatus(status, TF_INVALID_ARGUMENT, "the figures do not fit into the row");
}

/* Looks whether there is a tensor of the same size after x, if its change is wanted. */
static void check_next(int wanted, const TF_Tensor* x, const TF_Tensor* next, TF_Status* status) {
  if (TF_GetCode(status) != TF_OK || !(wanted & CHANGE)) return;
  if (next == NULL || TF_TensorElementCount(next) != TF_TensorElementCount(x))
    TF_SetStatus(status, TF_INVALID_ARGUMENT, "the change of a tensor needs another of as many numbers after it");
}

/* The i-th tensor to be measured, or NULL: there is none, or it cannot be had, which `status` says. */
static TF_Tensor* tensor_at(TF_OpKernelContext* context, int i, int count, TF_Status* status) {
  TF_Tensor* x = NULL;
  if (i < count && TF_GetCode(status) == TF_OK) TF_GetInput(context, i + 1, &x, status);
  return x;
}

static void compute_measure(void* kernel, TF_OpKernelContext* context) {
  const Attributes* a = kernel;
  TF_Status* status = TF_NewStatus();
  TF_Tensor *row = NULL, *next = NULL;
  TF_GetInput(context, 0, &row, status);
  check_row(a, row, status);
  float* out = TF_GetCode(status) == TF_OK ? (float*)TF_TensorData(row) + a->place : NULL;
  TF_Tensor* x = tensor_at(context, 0, a->count, status);
  for (int i = 0; x && TF_GetCode(status) == TF_OK; i++, x = next) {
    next = tensor_at(context, i + 1, a->count, status);
    check_next(a->wanted[i], x, next, status);
    if (TF_GetCode(status) == TF_OK)
      out = measure(
          TF_TensorData(x), TF_TensorElementCount(x), next ? TF_TensorData(next) : NULL, a->wanted[i], a->lower[i], a->upper[i],
          out);
    TF_DeleteTensor(x);
  }
  if (x) TF_DeleteTensor(x);
  done(context, row, status);
}

static void* create_row_of(TF_OpKernelConstruction* construction) { return NULL; }

static void compute_row_of(void* kernel, TF_OpKernelContext* context) {
  TF_Status* status = TF_NewStatus();
  TF_Tensor* row = NULL;
  TF_GetInput(context, 0, &row, status);
  if (TF_GetCode(status) == TF_OK) TF_SetOutput(context, 0, row, status);
  done(context, row, status);
}

static void unknown_shape(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeInferenceContextSetUnknownShape(context, status);
}

static void no_shape(TF_ShapeInferenceContext* context, TF_Status* status) {}

/* Makes a kernel known, and, if that went well, its operation. `native_library.py` looks whether there is one. */
static void register_one(
    const char* name, TF_OpDefinitionBuilder* operation, void* (*create)(TF_OpKernelConstruction*),
    void (*compute)(void*, TF_OpKernelContext*), void (*destroy)(void*)) {
  TF_Status* status = TF_NewStatus();
  TF_RegisterKernelBuilder(name, TF_NewKernelBuilder(name, "CPU", create, compute, destroy), status);
  if (TF_GetCode(status) == TF_OK) TF_RegisterOpDefinition(operation, status);
  TF_DeleteStatus(status);
}

__attribute__((constructor)) static void register_all(void) {
  TF_OpDefinitionBuilder* row = TF_NewOpDefinitionBuilder("KerasBackpropRow");
  TF_OpDefinitionBuilderAddAttr(row, "width: int >= 1");
  TF_OpDefinitionBuilderAddOutput(row, "row: float");
  TF_OpDefinitionBuilderSetIsStateful(row, true); /* each is memory of its own, and none a constant */
  TF_OpDefinitionBuilderSetShapeInferenceFunction(row, unknown_shape);
  register_one("KerasBackpropRow", row, create_row, compute_row, free);

  TF_OpDefinitionBuilder* measurement = TF_NewOpDefinitionBuilder("KerasBackpropMeasure");
  TF_OpDefinitionBuilderAddAttr(measurement, "N: int >= 1");
  TF_OpDefinitionBuilderAddAttr(measurement, "place: int");
  TF_OpDefinitionBuilderAddAttr(measurement, "wanted: list(int)");
  TF_OpDefinitionBuilderAddAttr(measurement, "lower: list(float)");
  TF_OpDefinitionBuilderAddAttr(measurement, "upper: list(float)");
  TF_OpDefinitionBuilderAddInput(measurement, "row: float");
  TF_OpDefinitionBuilderAddInput(measurement, "x: N * float");
  TF_OpDefinitionBuilderSetShapeInferenceFunction(measurement, no_shape);
  register_one("KerasBackpropMeasure", measurement, create_measure, compute_measure, destroy_measure);

  TF_OpDefinitionBuilder* row_of = TF_NewOpDefinitionBuilder("KerasBackpropRowOf");
  TF_OpDefinitionBuilderAddInput(row_of, "row: float");
  TF_OpDefinitionBuilderAddOutput(row_of, "y: float");
  TF_OpDefinitionBuilderSetShapeInferenceFunction(row_of, unknown_shape);
  register_one("KerasBackpropRowOf", row_of, create_row_of, compute_row_of, free);
}
