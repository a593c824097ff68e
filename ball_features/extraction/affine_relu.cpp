#include <cstdint>
#include <cstring>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

// max(0, x * scale + bias) of the wanted channels, side by side: of `rows` rows of `channels` values, whose beginnings
// lie `stride` values apart, to rows of `kept` values. Bit c % 16 of keep[c / 16] says whether channel c is wanted.

namespace {

inline float widen(uint16_t value) {
    uint32_t bits = uint32_t(value) << 16;
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
}
inline float widen(float value) { return value; }

inline void narrow(float value, uint16_t* out) {  // to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    *out = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline void narrow(float value, float* out) { *out = value; }

#ifdef __AVX512F__
inline __m512 load(const uint16_t* x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)x)), 16));
}
inline __m512 load(const float* x) { return _mm512_loadu_ps(x); }
inline void store(float* out, __m512 v) { _mm512_storeu_ps(out, v); }
inline void store(uint16_t* out, __m512 v) {
#ifdef __AVX512BF16__
    _mm256_storeu_si256((__m256i*)out, (__m256i)_mm512_cvtneps_pbh(v));
#else
    __m512i bits = _mm512_castps_si512(v);
    __m512i odd = _mm512_and_epi32(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    bits = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    _mm256_storeu_si256((__m256i*)out, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
#endif
}
#endif

template <typename In, typename Out>
void rows_of(const In* x, int64_t stride, int64_t channels, const float* scale, const float* bias,
             const uint16_t* keep, Out* out, int64_t kept, int64_t rows) {
#ifdef __AVX512F__
    const Out* end = out + rows * kept;
#endif
    for (int64_t row = 0; row < rows; ++row, x += stride) {
        Out* to = out + row * kept;
        int64_t c = 0;
#ifdef __AVX512F__
        // A vector may write past its kept values: into what this row or the next one overwrites.
        for (; c + 16 <= channels && to + 16 <= end; c += 16) {
            const __mmask16 mask = keep[c / 16];
            __m512 v = _mm512_fmadd_ps(load(x + c), _mm512_loadu_ps(scale + c), _mm512_loadu_ps(bias + c));
            v = _mm512_maskz_compress_ps(mask, _mm512_max_ps(v, _mm512_setzero_ps()));
            store(to, v);
            to += __builtin_popcount(mask);
        }
#endif
        for (; c < channels; ++c) {
            if (!(keep[c / 16] >> (c % 16) & 1)) continue;
            const float value = widen(x[c]) * scale[c] + bias[c];
            narrow(value > 0 ? value : 0, to++);
        }
    }
}

template <typename In, typename Out>
void all_rows(const In* x, int64_t stride, int64_t channels, const float* scale, const float* bias,
              const uint16_t* keep, Out* out, int64_t kept, int64_t rows, int64_t threads) {
    const int64_t piece = (rows + threads - 1) / threads;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t start = 0; start < rows; start += piece) {
        const int64_t count = rows - start < piece ? rows - start : piece;
        rows_of(x + start * stride, stride, channels, scale, bias, keep, out + start * kept, kept, count);
    }
}

}  // namespace

#define AFFINE_RELU(NAME, IN, OUT)                                                                                    \
    extern "C" void NAME(const IN* x, int64_t stride, int64_t channels, const float* scale, const float* bias,        \
                         const uint16_t* keep, OUT* out, int64_t kept, int64_t rows, int64_t threads) {               \
        all_rows(x, stride, channels, scale, bias, keep, out, kept, rows, threads);                                   \
    }

AFFINE_RELU(bf16_to_bf16, uint16_t, uint16_t)
AFFINE_RELU(bf16_to_fp32, uint16_t, float)
AFFINE_RELU(fp32_to_fp32, float, float)
