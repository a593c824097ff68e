#include <cstdint>
#include <cstring>
#include <immintrin.h>

// max(0, x * scale + bias) of the wanted channels, side by side: of `rows` rows of `channels` values, whose beginnings
// lie `stride` values apart, to rows of `kept` values. Bit c % 16 of keep[c / 16] says whether channel c is wanted.
// bfloat16 values are uint16_t here.

namespace {

inline float widen(uint16_t value) {
    const uint32_t bits = uint32_t(value) << 16;
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

inline unsigned bits_at(const uint16_t* keep, int64_t channel) { return keep[channel / 16] >> (channel % 16); }

// A vector of WIDTH channels: `pack` moves the wanted lanes to the front.
#if defined(__AVX512F__)

constexpr int WIDTH = 16;
using Vector = __m512;

inline Vector load(const float* x) { return _mm512_loadu_ps(x); }
inline Vector load(const uint16_t* x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)x)), 16));
}
inline Vector affine_relu(Vector x, const float* scale, const float* bias) {
    return _mm512_max_ps(_mm512_setzero_ps(), _mm512_fmadd_ps(x, load(scale), load(bias)));  // NaN stays NaN
}
inline Vector pack(Vector v, unsigned mask) { return _mm512_maskz_compress_ps(__mmask16(mask), v); }
inline void store(float* out, Vector v) { _mm512_storeu_ps(out, v); }
inline void store(uint16_t* out, Vector v) {
#ifdef __AVX512BF16__
    _mm256_storeu_si256((__m256i*)out, (__m256i)_mm512_cvtneps_pbh(v));
#else
    __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_epi32(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    bits = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    _mm256_storeu_si256((__m256i*)out, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
#endif
}

#elif defined(__AVX2__) && defined(__FMA__)

constexpr int WIDTH = 8;
using Vector = __m256;

struct Order {  // for each set of lanes, those first
    alignas(32) int32_t lane[256][8];
    Order() {
        for (int mask = 0; mask < 256; ++mask) {
            int count = 0;
            for (int bit = 0; bit < 8; ++bit)
                if (mask >> bit & 1) lane[mask][count++] = bit;
            while (count < 8) lane[mask][count++] = 0;
        }
    }
};
const Order ORDER;

inline Vector load(const float* x) { return _mm256_loadu_ps(x); }
inline Vector load(const uint16_t* x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)x)), 16));
}
inline Vector affine_relu(Vector x, const float* scale, const float* bias) {
    return _mm256_max_ps(_mm256_setzero_ps(), _mm256_fmadd_ps(x, load(scale), load(bias)));  // NaN stays NaN
}
inline Vector pack(Vector v, unsigned mask) {
    return _mm256_permutevar8x32_ps(v, _mm256_load_si256((const __m256i*)ORDER.lane[mask]));
}
inline void store(float* out, Vector v) { _mm256_storeu_ps(out, v); }
inline void store(uint16_t* out, Vector v) {
    __m256i bits = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    bits = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd), 16);
    bits = _mm256_permute4x64_epi64(_mm256_packus_epi32(bits, bits), 0x08);
    _mm_storeu_si128((__m128i*)out, _mm256_castsi256_si128(bits));
}

#else
#error "torch's own passes are faster without AVX2"
#endif

template <typename In, typename Out>
void rows_of(const In* x, int64_t stride, int64_t channels, const float* scale, const float* bias,
             const uint16_t* keep, Out* out, int64_t kept, int64_t rows) {
    const Out* end = out + rows * kept;
    for (int64_t row = 0; row < rows; ++row, x += stride) {
        Out* to = out + row * kept;
        int64_t c = 0;
        // A vector may write past its wanted values: into what this row or the next one writes later.
        for (; c + WIDTH <= channels && end - to >= WIDTH; c += WIDTH) {
            const unsigned mask = bits_at(keep, c) & ((1u << WIDTH) - 1);
            store(to, pack(affine_relu(load(x + c), scale + c, bias + c), mask));
            to += __builtin_popcount(mask);
        }
        for (; c < channels; ++c) {
            if (!(bits_at(keep, c) & 1)) continue;
            const float value = widen(x[c]) * scale[c] + bias[c];
            narrow(value < 0 ? 0 : value, to++);
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
