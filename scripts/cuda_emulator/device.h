// The CUDA C++ that kernels use, for the CPU. The threads of a warp are fibers, which the driver
// runs in turn.
#pragma once

#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

using std::isfinite;
using std::isinf;
using std::isnan;
using std::size_t;

// ---- Threads ----

struct Index { unsigned x, y, z; };

// Values that the lanes of a warp exchange.
struct Warp { uint64_t shown[32][2]; };

enum class State { runs, at_warp_barrier, at_block_barrier, done };

struct Fiber {
    void *stack;
    Index thread;
    State state;
    int lane;
    Warp *warp;
};

struct Block {
    Index index, dim, grid_dim;
    char *shared;
};

extern "C" {
extern __attribute__((tls_model("initial-exec"))) __thread Fiber *emulated_fiber;
extern __attribute__((tls_model("initial-exec"))) __thread Block *emulated_block;
void emulated_barrier(State state);
}

#define threadIdx (emulated_fiber->thread)
#define blockIdx (emulated_block->index)
#define blockDim (emulated_block->dim)
#define gridDim (emulated_block->grid_dim)
#define emulated_shared (emulated_block->shared)
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

static inline void __syncthreads() { emulated_barrier(State::at_block_barrier); }
static inline void __syncwarp(unsigned = ~0u) { emulated_barrier(State::at_warp_barrier); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

// ---- Numbers of 16 bits ----

struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> __nv_bfloat16(T number) {
        const float single = (float)number;
        const uint32_t all = std::bit_cast<uint32_t>(single);
        bits = isnan(single) ? 0x7fff : (all + 0x7fff + ((all >> 16) & 1)) >> 16;
    }
    operator float() const { return std::bit_cast<float>((uint32_t)bits << 16); }
};

struct __half {
    _Float16 number;
    __half() = default;
    template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> __half(T number) : number((_Float16)(float)number) {}
    operator float() const { return (float)number; }
};

struct __nv_bfloat162 { __nv_bfloat16 x, y; };
struct __half2 { __half x, y; };

#define OPERATOR(T, R, op) static inline R operator op(T a, T b) { return R((float)a op (float)b); }
#define OPERATORS(T) \
    OPERATOR(T, T, +) OPERATOR(T, T, -) OPERATOR(T, T, *) OPERATOR(T, T, /) \
    OPERATOR(T, bool, <) OPERATOR(T, bool, >) OPERATOR(T, bool, <=) OPERATOR(T, bool, >=) OPERATOR(T, bool, ==) OPERATOR(T, bool, !=) \
    static inline T operator-(T a) { return T(-(float)a); }
OPERATORS(__nv_bfloat16)
OPERATORS(__half)
#undef OPERATORS
#undef OPERATOR

#define UNARY(name, function) \
    static inline __nv_bfloat16 name(__nv_bfloat16 a) { return function((float)a); } \
    static inline __half name(__half a) { return function((float)a); }
UNARY(hexp, expf) UNARY(hlog, logf) UNARY(hsqrt, sqrtf) UNARY(hrsqrt, 1.f / sqrtf) UNARY(hrcp, 1.f /)
UNARY(hfloor, floorf) UNARY(hceil, ceilf) UNARY(hsin, sinf) UNARY(hcos, cosf) UNARY(__habs, fabsf)
#undef UNARY
#define BINARY(name, function) \
    static inline __nv_bfloat16 name(__nv_bfloat16 a, __nv_bfloat16 b) { return function((float)a, (float)b); } \
    static inline __half name(__half a, __half b) { return function((float)a, (float)b); }
BINARY(__hmax, fmaxf) BINARY(__hmin, fminf)
#undef BINARY
static inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) { return fmaf(a, b, c); }
static inline __half __hfma(__half a, __half b, __half c) { return fmaf(a, b, c); }
static inline float __bfloat162float(__nv_bfloat16 a) { return a; }
static inline __nv_bfloat16 __float2bfloat16(float a) { return a; }
static inline float __half2float(__half a) { return a; }
static inline __half __float2half(float a) { return a; }

// ---- Arithmetic ----

template <class A, class B> static inline std::common_type_t<A, B> emulated_min(A a, B b) { return a < b ? a : b; }
template <class A, class B> static inline std::common_type_t<A, B> emulated_max(A a, B b) { return a > b ? a : b; }
#define min emulated_min
#define max emulated_max
#define __expf expf
#define __logf logf
#define __powf powf
#define __tanhf tanhf
#define __sinf sinf
#define __cosf cosf
static inline float rsqrtf(float a) { return 1.f / sqrtf(a); }
static inline float rsqrt(float a) { return 1.f / sqrtf(a); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __frsqrt_rn(float a) { return 1.f / sqrtf(a); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return ((uint64_t)a * b) >> 32; }
static inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return ((unsigned __int128)a * b) >> 64; }
static inline int __mulhi(int a, int b) { return ((int64_t)a * b) >> 32; }
static inline int __clz(int a) { return a ? __builtin_clz(a) : 32; }
static inline int __clzll(long long a) { return a ? __builtin_clzll(a) : 64; }
static inline int __popc(unsigned a) { return __builtin_popcount(a); }
static inline int __ffs(int a) { return __builtin_ffs(a); }
static inline float __int_as_float(int a) { return std::bit_cast<float>(a); }
static inline float __uint_as_float(unsigned a) { return std::bit_cast<float>(a); }
static inline int __float_as_int(float a) { return std::bit_cast<int>(a); }
static inline unsigned __float_as_uint(float a) { return std::bit_cast<unsigned>(a); }
// max.NaN.f32 and min.NaN.f32
static inline float emulated_max_nan(float a, float b) { return isnan(a) || isnan(b) ? NAN : fmaxf(a, b); }
static inline float emulated_min_nan(float a, float b) { return isnan(a) || isnan(b) ? NAN : fminf(a, b); }

template <class T, class V> static inline T atomicAdd(T *to, V value) {
    std::atomic_ref<T> number(*to);
    T old = number.load();
    while (!number.compare_exchange_weak(old, old + (T)value)) {}
    return old;
}

// ---- Warps ----

// Publishes a value to the other lanes and returns another lane's.
template <class T> static inline T emulated_exchange(T value, int from) {
    static_assert(sizeof value <= sizeof Warp::shown[0]);
    Warp *warp = emulated_fiber->warp;
    memcpy(warp->shown[emulated_fiber->lane], &value, sizeof value);
    __syncwarp();
    T other;
    memcpy(&other, warp->shown[from & 31], sizeof other);
    __syncwarp();
    return other;
}

static inline unsigned __activemask() { return ~0u; }
template <class T> static inline T __shfl_sync(unsigned, T value, int lane, int = 32) { return emulated_exchange(value, lane); }
template <class T> static inline T __shfl_xor_sync(unsigned, T value, int mask, int = 32) {
    return emulated_exchange(value, emulated_fiber->lane ^ mask);
}
template <class T> static inline T __shfl_up_sync(unsigned, T value, unsigned by, int = 32) {
    const int lane = emulated_fiber->lane, from = lane - (int)by;
    return emulated_exchange(value, from < 0 ? lane : from);
}
template <class T> static inline T __shfl_down_sync(unsigned, T value, unsigned by, int = 32) {
    const int lane = emulated_fiber->lane, from = lane + (int)by;
    return emulated_exchange(value, from > 31 ? lane : from);
}
static inline unsigned __ballot_sync(unsigned, int predicate) {
    Warp *warp = emulated_fiber->warp;
    warp->shown[emulated_fiber->lane][0] = predicate != 0;
    __syncwarp();
    unsigned votes = 0;
    for (int lane = 0; lane < 32; lane++) votes |= (unsigned)warp->shown[lane][0] << lane;
    __syncwarp();
    return votes;
}
static inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == ~0u; }
static inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

// ---- Matrices in registers: ldmatrix, stmatrix, mma.sync ----

static inline unsigned __cvta_generic_to_shared(const volatile void *address) {
    return (unsigned)((const char *)address - emulated_shared);
}

// Row and column in an 8×8 matrix of half `half` of a lane's register.
struct Place {
    int row, column;
    Place(bool transposed, int lane, int half) : row(lane / 4), column(lane % 4 * 2 + half) {
        if (transposed) std::swap(row, column);
    }
};

template <int COUNT, bool TRANSPOSED, class... R> static inline void emulated_ldmatrix(unsigned address, R &...registers) {
    Warp *warp = emulated_fiber->warp;
    const int lane = emulated_fiber->lane;
    warp->shown[lane][0] = address;
    __syncwarp();
    uint32_t read[COUNT];
    for (int matrix = 0; matrix < COUNT; matrix++) {
        uint16_t halves[2];
        for (int half = 0; half < 2; half++) {
            const Place place(TRANSPOSED, lane, half);
            memcpy(&halves[half], emulated_shared + warp->shown[matrix * 8 + place.row][0] + 2 * place.column, 2);
        }
        read[matrix] = halves[0] | (uint32_t)halves[1] << 16;
    }
    __syncwarp();
    int next = 0;
    (memcpy(&registers, &read[next++], 4), ...);
}

template <int COUNT, bool TRANSPOSED, class... R> static inline void emulated_stmatrix(unsigned address, const R &...registers) {
    Warp *warp = emulated_fiber->warp;
    const int lane = emulated_fiber->lane;
    warp->shown[lane][0] = address;
    __syncwarp();
    uint32_t written[COUNT];
    int next = 0;
    (memcpy(&written[next++], &registers, 4), ...);
    for (int matrix = 0; matrix < COUNT; matrix++) {
        for (int half = 0; half < 2; half++) {
            const Place place(TRANSPOSED, lane, half);
            const uint16_t value = written[matrix] >> (16 * half);
            memcpy(emulated_shared + warp->shown[matrix * 8 + place.row][0] + 2 * place.column, &value, 2);
        }
    }
    __syncwarp();
}

template <class T> static inline uint32_t emulated_register(T value) {
    static_assert(sizeof value == 4);
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static inline float emulated_tf32(uint32_t bits) { return std::bit_cast<float>(bits & 0xffffe000); }

// One element of a packed register.
template <class E> static inline float emulated_element(uint32_t bits, int index) {
    if constexpr (sizeof(E) == 4) return emulated_tf32(bits);
    const uint16_t half = bits >> (16 * index);
    E element;
    memcpy(&element, &half, 2);
    return (float)element;
}

// D [16, 8] = A [16, K] B [K, 8] + C, with K = 8 for 32-bit or 16 for 16-bit elements. Register r of
// lane l contains row l / 4 + 8 (r % 2) of A and column l / 4 of B, starting at index
// (l % 4 + 4 (r / 2)) · elements of K. D has the rows of A and the columns 2 (l % 4) and the next.
template <class E>
static inline void emulated_mma(float &d0, float &d1, float &d2, float &d3, const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4]) {
    const int elements = 4 / sizeof(E), lane = emulated_fiber->lane;
    float sums[4] = {c[0], c[1], c[2], c[3]};
    uint32_t others[6][32];
    for (int index = 0; index < 6; index++) {
        Warp *warp = emulated_fiber->warp;
        warp->shown[lane][0] = index < 4 ? a[index] : b[index - 4];
        __syncwarp();
        for (int other = 0; other < 32; other++) others[index][other] = (uint32_t)warp->shown[other][0];
        __syncwarp();
    }
    for (int index = 0; index < 4; index++) {
        const int row = lane / 4 + index / 2 * 8, column = lane % 4 * 2 + index % 2;
        for (int k = 0; k < 8 * elements; k++) {
            const int part = k / elements % 4, later = k / (4 * elements);
            const float left = emulated_element<E>(others[row / 8 + later * 2][row % 8 * 4 + part], k % elements);
            const float right = emulated_element<E>(others[4 + later][column * 4 + part], k % elements);
            sums[index] += left * right;
        }
    }
    d0 = sums[0], d1 = sums[1], d2 = sums[2], d3 = sums[3];
}

// ---- Matrices of a warp: nvcuda::wmma ----

namespace nvcuda::wmma {
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major { static const bool rows = true; };
struct col_major { static const bool rows = false; };
namespace precision { struct tf32 {}; }
enum layout_t { mem_row_major, mem_col_major };

static inline float __float_to_tf32(float number) { return emulated_tf32(std::bit_cast<uint32_t>(number) + 0x1000); }

template <class Use, int M, int N, int K> constexpr int ROWS = std::is_same_v<Use, matrix_b> ? K : M;
template <class Use, int M, int N, int K> constexpr int COLUMNS = std::is_same_v<Use, matrix_a> ? K : N;

// The first lane stores the whole fragment.
template <class Use, int M, int N, int K, class T, class Layout = row_major> struct fragment {
    static const int rows = ROWS<Use, M, N, K>, columns = COLUMNS<Use, M, N, K>, num_elements = rows * columns;
    float x[num_elements];
};

template <class F, class P> static inline void load(F &to, const P *from, unsigned step, bool rows) {
    __syncwarp();
    if (emulated_fiber->lane != 0) return;
    for (int row = 0; row < F::rows; row++)
        for (int column = 0; column < F::columns; column++)
            to.x[row * F::columns + column] = (float)(rows ? from[row * step + column] : from[column * step + row]);
}
template <class Use, int M, int N, int K, class T, class Layout, class P>
static inline void load_matrix_sync(fragment<Use, M, N, K, T, Layout> &to, const P *from, unsigned step) {
    load(to, from, step, Layout::rows);
}
template <class F, class P> static inline void load_matrix_sync(F &to, const P *from, unsigned step, layout_t layout) {
    load(to, from, step, layout == mem_row_major);
}
template <class F> static inline void fill_fragment(F &fragment, float value) {
    for (float &element : fragment.x) element = value;
}
template <int M, int N, int K, class T, class A, class B, class C>
static inline void mma_sync(fragment<accumulator, M, N, K, float, C> &d, const fragment<matrix_a, M, N, K, T, A> &a,
                            const fragment<matrix_b, M, N, K, T, B> &b, const fragment<accumulator, M, N, K, float, C> &c) {
    if (emulated_fiber->lane != 0) return;
    float sums[M * N];
    memcpy(sums, c.x, sizeof sums);
    for (int row = 0; row < M; row++)
        for (int k = 0; k < K; k++)
            for (int column = 0; column < N; column++) sums[row * N + column] += a.x[row * K + k] * b.x[k * N + column];
    memcpy(d.x, sums, sizeof sums);
}
template <class P, class F> static inline void store_matrix_sync(P *to, const F &from, unsigned step, layout_t layout) {
    __syncwarp();
    if (emulated_fiber->lane == 0)
        for (int row = 0; row < F::rows; row++)
            for (int column = 0; column < F::columns; column++)
                to[layout == mem_row_major ? row * step + column : column * step + row] = (P)from.x[row * F::columns + column];
    __syncwarp();
}
} // namespace nvcuda::wmma

// ---- Entry ----

// Calls a kernel with the arguments of `cuLaunchKernel`.
template <class... A, size_t... I>
static inline void emulated_call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*(std::remove_cv_t<A> *)arguments[I]...);
}
template <class... A> static inline void emulated_call(void (*kernel)(A...), void **arguments) {
    emulated_call(kernel, arguments, std::index_sequence_for<A...>{});
}

// Writes the sizes of a kernel's parameters and returns their number.
template <class... A> static inline size_t emulated_sizes(void (*)(A...), size_t *to) {
    return ((*to++ = sizeof(std::remove_cv_t<A>)), ..., sizeof...(A));
}
