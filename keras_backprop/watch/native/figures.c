/* A TensorFlow operation: figures of several tensors, each read once.

     KerasBackpropFigures(x: N * float; wanted: list(int), lower, upper: list(float)) -> y: float, a vector

   `wanted` says by bits which figures of each tensor are put out, in the order of `enum Figure`, tensor after tensor. SQUARES,
   SPREAD and CHANGE are halves, as of `tf.nn.l2_loss`. CHANGE is of the difference to the next tensor; OUTSIDE counts what is not
   between the tensor's `lower` and `upper`.

   It is written against TensorFlow's C interface, which stays as it is from version to version, and is compiled in a fraction of a
   second (`native_library.py`). */

#include <math.h>
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

#define NAME "KerasBackpropFigures"

enum Figure { SQUARES = 1, MEAN = 2, SPREAD = 4, MAX = 8, MIN = 16, ZEROS = 32, FINITE = 64, OUTSIDE = 128, CHANGE = 256 };

/* Numbers are taken in LANES side by side, which makes vector instructions of the loops over them. Each lane adds up
   BLOCK / LANES of them in single precision; these sums are added up in double precision. */
enum { LANES = 32, BLOCK = 16 * LANES };

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
    for (int l = 0; l < LANES; l++) {
      s.sum += sum[l];
      s.squares += squares[l];
      s.zeros += zeros[l];
      s.outside += outside[l];
    }
  }
  for (int l = 0; l < LANES; l++) {
    s.max = max[l] > s.max ? max[l] : s.max;
    s.min = min[l] < s.min ? min[l] : s.min;
  }
  for (; i < n; i++) add(&s, x[i], lower, upper);
  return s;
}

/* Σ(x − other)² of two arrays, or, without another, Σ(x − mean)². */
static inline __attribute__((always_inline)) double squares_of(const float* x, const float* other, float mean, int64_t n) {
  double total = 0;
  int64_t i = 0;
  while (i + LANES <= n) {
    float squares[LANES] = {0};
    for (int64_t end = i + BLOCK; i < end && i + LANES <= n; i += LANES)
      for (int l = 0; l < LANES; l++) {
        float difference = x[i + l] - (other ? other[i + l] : mean);
        squares[l] += difference * difference;
      }
    for (int l = 0; l < LANES; l++) total += squares[l];
  }
  for (; i < n; i++) {
    double difference = (double)x[i] - (other ? other[i] : mean);
    total += difference * difference;
  }
  return total;
}

/* Writes the figures of x that are wanted, and returns the place after them. `next` is the next tensor, for CHANGE. */
static float* measure(const float* x, int64_t n, const float* next, int wanted, float lower, float upper, float* out) {
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

typedef struct {
  int count, width;
  int32_t* wanted;
  float *lower, *upper;
} Attributes;

static void destroy(void* kernel) {
  Attributes* a = kernel;
  if (a == NULL) return;
  free(a->wanted);
  free(a->lower);
  free(a->upper);
  free(a);
}

/* Returns NULL if there is no memory. */
static Attributes* attributes_for(int32_t count) {
  Attributes* a = calloc(1, sizeof *a);
  if (a == NULL) return NULL;
  a->count = count;
  a->wanted = calloc(count, sizeof *a->wanted);
  a->lower = calloc(count, sizeof *a->lower);
  a->upper = calloc(count, sizeof *a->upper);
  if (a->wanted && a->lower && a->upper) return a;
  destroy(a);
  return NULL;
}

/* A kernel that cannot be made is NULL, and TensorFlow, which is told so, does not compute with it. */
static void* create(TF_OpKernelConstruction* construction) {
  TF_Status* status = TF_NewStatus();
  Attributes* a = NULL;
  int32_t count = 0;
  TF_OpKernelConstruction_GetAttrInt32(construction, "N", &count, status);
  if (TF_GetCode(status) == TF_OK && (a = attributes_for(count)) == NULL)
    TF_SetStatus(status, TF_RESOURCE_EXHAUSTED, "no memory for the attributes of " NAME);
  if (TF_GetCode(status) == TF_OK)
    TF_OpKernelConstruction_GetAttrInt32List(construction, "wanted", a->wanted, count, status);
  if (TF_GetCode(status) == TF_OK)
    TF_OpKernelConstruction_GetAttrFloatList(construction, "lower", a->lower, count, status);
  if (TF_GetCode(status) == TF_OK)
    TF_OpKernelConstruction_GetAttrFloatList(construction, "upper", a->upper, count, status);
  if (TF_GetCode(status) == TF_OK) {
    for (int i = 0; i < count; i++) a->width += __builtin_popcount(a->wanted[i]);
  } else {
    TF_OpKernelConstruction_Failure(construction, status);
    destroy(a);
    a = NULL;
  }
  TF_DeleteStatus(status);
  return a;
}

/* The i-th input, or NULL: there is none, or it cannot be had, which `status` says. */
static TF_Tensor* input(TF_OpKernelContext* context, int i, int count, TF_Status* status) {
  TF_Tensor* x = NULL;
  if (i < count) TF_GetInput(context, i, &x, status);
  return x;
}

static void compute(void* kernel, TF_OpKernelContext* context) {
  const Attributes* a = kernel;
  TF_Status* status = TF_NewStatus();
  int64_t width = a->width;
  TF_Tensor* y = TF_AllocateOutput(context, 0, TF_FLOAT, &width, 1, width * sizeof(float), status);
  float* out = y ? TF_TensorData(y) : NULL;
  TF_Tensor *x = NULL, *next = NULL;
  if (TF_GetCode(status) == TF_OK) x = input(context, 0, a->count, status);
  for (int i = 0; i < a->count && TF_GetCode(status) == TF_OK; i++, x = next, next = NULL) {
    next = input(context, i + 1, a->count, status);
    if (TF_GetCode(status) == TF_OK)
      out = measure(
          TF_TensorData(x), TF_TensorElementCount(x), next ? TF_TensorData(next) : NULL, a->wanted[i], a->lower[i], a->upper[i],
          out);
    TF_DeleteTensor(x);
  }
  if (TF_GetCode(status) != TF_OK) TF_OpKernelContext_Failure(context, status);
  if (y) TF_DeleteTensor(y);
  TF_DeleteStatus(status);
}

static void shape_of_vector(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeInferenceContextSetUnknownShape(context, status);
}

__attribute__((constructor)) static void register_operation(void) {
  TF_Status* status = TF_NewStatus();
  TF_OpDefinitionBuilder* operation = TF_NewOpDefinitionBuilder(NAME);
  TF_OpDefinitionBuilderAddAttr(operation, "N: int >= 1");
  TF_OpDefinitionBuilderAddAttr(operation, "wanted: list(int)");
  TF_OpDefinitionBuilderAddAttr(operation, "lower: list(float)");
  TF_OpDefinitionBuilderAddAttr(operation, "upper: list(float)");
  TF_OpDefinitionBuilderAddInput(operation, "x: N * float");
  TF_OpDefinitionBuilderAddOutput(operation, "y: float");
  TF_OpDefinitionBuilderSetShapeInferenceFunction(operation, shape_of_vector);
  TF_RegisterKernelBuilder(NAME, TF_NewKernelBuilder(NAME, "CPU", create, compute, destroy), status);
  if (TF_GetCode(status) == TF_OK) TF_RegisterOpDefinition(operation, status); /* `native_library.py` looks whether there is one */
  TF_DeleteStatus(status);
}
