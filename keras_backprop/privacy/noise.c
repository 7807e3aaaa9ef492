/* A TensorFlow operation: normal noise, drawn and added in one pass.

     KerasBackpropNoise(x: float, key: uint64[1], counter: uint64[2], stddev: float) -> y: float, x + stddev·z

   z is what `noise.py` makes of TensorFlow's operations, but for rounding: the same random bits (Philox 4×32, 10 rounds; Salmon
   et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011) and the same formula of Box and Muller. With n numbers in x and
   m = 4·⌈n/8⌉, words 0 … m − 1 make the radii and words m … 2m − 1 the angles; cosines are the first m numbers of z, sines the
   others.

   It is written against TensorFlow's C interface, which stays as it is from version to version (`native_library.py` compiles it). */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* `ops.h` names these types as C++ does. */
typedef struct TF_OpDefinitionBuilder TF_OpDefinitionBuilder;
typedef struct TF_ShapeInferenceContext TF_ShapeInferenceContext;
typedef struct TF_ShapeHandle TF_ShapeHandle;
typedef struct TF_DimensionHandle TF_DimensionHandle;

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"

#define NAME "KerasBackpropNoise"

/* BLOCKS blocks of four words are made side by side, which makes vector instructions of the loops over them. */
enum { BLOCKS = 64, WORDS = 4 * BLOCKS };

/* Blocks first … first + BLOCKS − 1 of the stream; the j-th word of the b-th block is words[j][b]. */
static inline void philox(uint64_t key, const uint64_t counter[2], uint64_t first, uint32_t words[WORDS]) {
  uint32_t c0[BLOCKS], c1[BLOCKS], c2[BLOCKS], c3[BLOCKS];
  for (int b = 0; b < BLOCKS; b++) {
    uint64_t low = counter[0] + first + b, high = counter[1] + (low < counter[0]);
    c0[b] = low, c1[b] = low >> 32, c2[b] = high, c3[b] = high >> 32;
  }
  uint32_t k0 = key, k1 = key >> 32;
  for (int round = 0; round < 10; round++, k0 += 0x9E3779B9, k1 += 0xBB67AE85)
    for (int b = 0; b < BLOCKS; b++) {
      uint64_t p = (uint64_t)0xD2511F53 * c0[b], q = (uint64_t)0xCD9E8D57 * c2[b];
      c0[b] = (uint32_t)(q >> 32) ^ c1[b] ^ k0;
      c1[b] = q;
      c2[b] = (uint32_t)(p >> 32) ^ c3[b] ^ k1;
      c3[b] = p;
    }
  for (int b = 0; b < BLOCKS; b++) {
    words[4 * b] = c0[b];
    words[4 * b + 1] = c1[b];
    words[4 * b + 2] = c2[b];
    words[4 * b + 3] = c3[b];
  }
}

/* √(−2·ln u) with u = |w + f|/2³¹, w being the word as a signed number and f a fraction of the last bits of another: 0 to 7.81. */
static inline float radius(uint32_t word, uint32_t another) {
  float fraction = ((float)(int32_t)(another & 0xFFF) + 0.5f) * 0x1p-12f;
  float u = fabsf((float)(int32_t)word + fraction) * 0x1p-31f;
  int32_t bits;
  memcpy(&bits, &u, sizeof bits);
  int32_t e = (bits - 0x3F3504F3) >> 23; /* u = 2ᵉ·(1 + f) with 1 + f from √½ to √2 */
  bits -= e * (1 << 23);
  memcpy(&u, &bits, sizeof u);
  /* ln(1 + f) = 2·artanh s with s = f/(2 + f), put so that f itself is added last */
  float f = u - 1, s = f / (2 + f), t = s * s;
  float series = t * (0.66666667f + t * (0.4f + t * (0.28571429f + t * (0.22222222f + t * 0.18181818f))));
  float half = 0.5f * f * f, of_1_f = half - s * (half + series);
  float logarithm = e * 0.69313812f - (of_1_f - e * 9.0580006e-6f - f); /* ln 2 in two parts, the first without rounding */
  return sqrtf(-2 * logarithm);
}

/* cos and sin of π·w/2³¹, w being the word as a signed number. */
static inline void direction(uint32_t word, float* cosine, float* sine) {
  uint32_t quadrant = (word + 0x20000000u) >> 30; /* w = 2³⁰·quadrant + rest, |rest| ≤ 2²⁹ */
  float a = (float)(int32_t)(word - (quadrant << 30)) * 1.4629181e-9f, t = a * a;
  float s = a + a * t * (-0.16666667f + t * (8.333331e-3f + t * (-1.984087e-4f + t * 2.75256e-6f)));
  float c = 1 + t * (-0.5f + t * (0.041666642f + t * (-1.3888397e-3f + t * 2.47605e-5f)));
  float x = quadrant & 1 ? s : c, y = quadrant & 1 ? c : s;
  *cosine = (quadrant + 1) & 2 ? -x : x;
  *sine = quadrant & 2 ? -y : y;
}

/* y = x + stddev·z, n numbers. */
static void add_noise(const float* x, float* y, int64_t n, uint64_t key, const uint64_t counter[2], float stddev) {
  if (stddev == 0 && n) memcpy(y, x, n * sizeof *x);
  int64_t half = stddev == 0 ? 0 : 4 * ((n + 7) / 8);
  for (int64_t i = 0; i < half; i += WORDS) {
    uint32_t radii[WORDS], angles[WORDS];
    float cosines[WORDS], sines[WORDS];
    philox(key, counter, i / 4, radii);
    philox(key, counter, (half + i) / 4, angles);
    for (int k = 0; k < WORDS; k++) {
      float cosine, sine, r = stddev * radius(radii[k], angles[k]);
      direction(angles[k], &cosine, &sine);
      cosines[k] = r * cosine;
      sines[k] = r * sine;
    }
    int64_t count = half - i < WORDS ? half - i : WORDS;
    int64_t first = n - i < count ? n - i : count, second = n - half - i < count ? n - half - i : count;
    for (int64_t k = 0; k < first; k++) y[i + k] = x[i + k] + cosines[k];
    for (int64_t k = 0; k < second; k++) y[half + i + k] = x[half + i + k] + sines[k];
  }
}

/* The i-th input; NULL if it cannot be had, which `status` says, or if that is known already. */
static TF_Tensor* input(TF_OpKernelContext* context, int i, TF_Status* status) {
  TF_Tensor* x = NULL;
  if (TF_GetCode(status) == TF_OK) TF_GetInput(context, i, &x, status);
  return x;
}

static void compute(void* kernel, TF_OpKernelContext* context) {
  TF_Status* status = TF_NewStatus();
  TF_Tensor* inputs[4];
  for (int i = 0; i < 4; i++) inputs[i] = input(context, i, status);
  static const int64_t least[] = {0, 1, 2, 1};
  for (int i = 0; i < 4 && TF_GetCode(status) == TF_OK; i++)
    if (TF_TensorElementCount(inputs[i]) < least[i])
      TF_SetStatus(status, TF_INVALID_ARGUMENT, NAME ": the key must have 1 number, the counter 2, stddev 1");
  if (TF_GetCode(status) == TF_OK) {
    const TF_Tensor* x = inputs[0];
    int rank = TF_NumDims(x);
    int64_t shape[rank + 1];
    for (int i = 0; i < rank; i++) shape[i] = TF_Dim(x, i);
    TF_Tensor* y = TF_AllocateOutput(context, 0, TF_FLOAT, shape, rank, TF_TensorByteSize(x), status);
    if (TF_GetCode(status) == TF_OK) {
      const uint64_t *key = TF_TensorData(inputs[1]), *counter = TF_TensorData(inputs[2]);
      const float* stddev = TF_TensorData(inputs[3]);
      add_noise(TF_TensorData(x), TF_TensorData(y), TF_TensorElementCount(x), *key, counter, *stddev);
    }
    if (y) TF_DeleteTensor(y);
  }
  if (TF_GetCode(status) != TF_OK) TF_OpKernelContext_Failure(context, status);
  for (int i = 0; i < 4; i++)
    if (inputs[i]) TF_DeleteTensor(inputs[i]);
  TF_DeleteStatus(status);
}

static void shape_of_x(TF_ShapeInferenceContext* context, TF_Status* status) {
  TF_ShapeHandle* shape = TF_NewShapeHandle();
  TF_ShapeInferenceContextGetInput(context, 0, shape, status);
  if (TF_GetCode(status) == TF_OK) TF_ShapeInferenceContextSetOutput(context, 0, shape, status);
  TF_DeleteShapeHandle(shape);
}

__attribute__((constructor)) static void register_operation(void) {
  TF_Status* status = TF_NewStatus();
  TF_OpDefinitionBuilder* operation = TF_NewOpDefinitionBuilder(NAME);
  TF_OpDefinitionBuilderAddInput(operation, "x: float");
  TF_OpDefinitionBuilderAddInput(operation, "key: uint64");
  TF_OpDefinitionBuilderAddInput(operation, "counter: uint64");
  TF_OpDefinitionBuilderAddInput(operation, "stddev: float");
  TF_OpDefinitionBuilderAddOutput(operation, "y: float");
  TF_OpDefinitionBuilderSetShapeInferenceFunction(operation, shape_of_x);
  TF_RegisterKernelBuilder(NAME, TF_NewKernelBuilder(NAME, "CPU", NULL, compute, NULL), status);
  if (TF_GetCode(status) == TF_OK) TF_RegisterOpDefinition(operation, status); /* `native_library.py` looks whether there is one */
  TF_DeleteStatus(status);
}
