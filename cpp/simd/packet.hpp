// Vec<T>: one SIMD register of T, as wide as the instruction set that this file is compiled for.
//
// A thin value type over Eigen's packets (Packet4f on SSE2 and NEON, Packet8f on AVX2, Packet16f on AVX-512, and their
// double counterparts), with intrinsics for operations that Eigen lacks. A kernel is written once and reads like its
// equations. No other file uses Eigen. Its packets are an internal namespace, so pyproject.toml pins Eigen's version.
//
// Every operation works on each lane separately, and no expression is contracted or reassociated (-ffp-contract=off).
// A lane's result therefore never depends on its position or on other lanes.
#pragma once

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fastgru {

using Index = std::ptrdiff_t;
static_assert(sizeof(Index) == 8, "sizes are multiplied as 64-bit integers");

#define FASTGRU_INLINE inline __attribute__((always_inline))

// Architectural vector registers, which bound the size of a register tile in gemm.hpp.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int kVectorRegisters = 32;
#else
inline constexpr int kVectorRegisters = 16;
#endif

#if defined(__AVX512F__)
FASTGRU_INLINE void stream_packet(float* to, __m512 packet) { _mm512_stream_ps(to, packet); }
FASTGRU_INLINE void stream_packet(double* to, __m512d packet) { _mm512_stream_pd(to, packet); }
#elif defined(__AVX__)
FASTGRU_INLINE void stream_packet(float* to, __m256 packet) { _mm256_stream_ps(to, packet); }
FASTGRU_INLINE void stream_packet(double* to, __m256d packet) { _mm256_stream_pd(to, packet); }
#elif defined(__SSE2__)
FASTGRU_INLINE void stream_packet(float* to, __m128 packet) { _mm_stream_ps(to, packet); }
FASTGRU_INLINE void stream_packet(double* to, __m128d packet) { _mm_stream_pd(to, packet); }
#else
template <class T, class Raw>
FASTGRU_INLINE void stream_packet(T* to, Raw packet) {
  Eigen::internal::pstoreu(to, packet);
}
#endif

FASTGRU_INLINE void fence_streams() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

#if defined(__AVX512F__)
FASTGRU_INLINE __m512 load_masked(const float* from, unsigned mask) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from);
}
FASTGRU_INLINE __m512d load_masked(const double* from, unsigned mask) {
  return _mm512_maskz_loadu_pd(static_cast<__mmask8>(mask), from);
}
FASTGRU_INLINE void store_masked(float* to, unsigned mask, __m512 packet) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>(mask), packet);
}
FASTGRU_INLINE void store_masked(double* to, unsigned mask, __m512d packet) {
  _mm512_mask_storeu_pd(to, static_cast<__mmask8>(mask), packet);
}
#endif

template <class T>
struct Vec {
  using Raw = typename Eigen::internal::packet_traits<T>::type;
  static constexpr int lanes = Eigen::internal::unpacket_traits<Raw>::size;

  Raw raw;

  Vec() = default;
  FASTGRU_INLINE Vec(Raw value) : raw(value) {}
  FASTGRU_INLINE Vec(T value) : raw(Eigen::internal::pset1<Raw>(value)) {}

  // Pointers need no alignment: on aligned data an unaligned load is as fast.
  static FASTGRU_INLINE Vec load(const T* from) { return Eigen::internal::ploadu<Raw>(from); }
  FASTGRU_INLINE void store(T* to) const { Eigen::internal::pstoreu(to, raw); }

  // Non-temporal store, for data that is not read again soon. `to` must be aligned to the register. Call
  // fence_streams() before another thread reads the data.
  FASTGRU_INLINE void stream(T* to) const { stream_packet(to, raw); }

  // Load and store of the first `count` lanes (0 <= count <= lanes). Loads set the others to zero; stores leave the
  // others in memory unchanged. AVX-512 uses a mask, other sets the stack: AVX2's masked stores cost 42 micro-ops
  // on Zen 4.
  static FASTGRU_INLINE Vec load_first(const T* from, Index count) {
    if (count >= lanes) return load(from);
#if defined(__AVX512F__)
    return load_masked(from, (1U << count) - 1U);
#else
    T buffer[lanes] = {};
    std::memcpy(buffer, from, static_cast<std::size_t>(count) * sizeof(T));
    return load(buffer);
#endif
  }
  FASTGRU_INLINE void store_first(T* to, Index count) const {
    if (count >= lanes) return store(to);
#if defined(__AVX512F__)
    store_masked(to, (1U << count) - 1U, raw);
#else
    T buffer[lanes];
    store(buffer);
    std::memcpy(to, buffer, static_cast<std::size_t>(count) * sizeof(T));
#endif
  }

  friend FASTGRU_INLINE Vec operator+(Vec a, Vec b) { return Eigen::internal::padd(a.raw, b.raw); }
  friend FASTGRU_INLINE Vec operator-(Vec a, Vec b) { return Eigen::internal::psub(a.raw, b.raw); }
  friend FASTGRU_INLINE Vec operator*(Vec a, Vec b) { return Eigen::internal::pmul(a.raw, b.raw); }
  friend FASTGRU_INLINE Vec operator/(Vec a, Vec b) { return Eigen::internal::pdiv(a.raw, b.raw); }
  friend FASTGRU_INLINE Vec operator-(Vec a) { return Eigen::internal::pnegate(a.raw); }
};

// a * b + c, with one rounding if the instruction set has FMA (AVX2 + FMA, AVX-512, NEON), otherwise with two.
template <class T>
FASTGRU_INLINE Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
  return Eigen::internal::pmadd(a.raw, b.raw, c.raw);
}

template <class T>
FASTGRU_INLINE Vec<T> sqrt(Vec<T> a) {
  return Eigen::internal::psqrt(a.raw);
}

// min and max against a bound. A NaN in `x` stays a NaN: Eigen's pmin and pmax return their first operand if the
// comparison is unordered, so the order of the arguments matters.
template <class T>
FASTGRU_INLINE Vec<T> at_most(Vec<T> x, T bound) {
  return Eigen::internal::pmin(x.raw, Vec<T>(bound).raw);
}
template <class T>
FASTGRU_INLINE Vec<T> at_least(Vec<T> x, T bound) {
  return Eigen::internal::pmax(x.raw, Vec<T>(bound).raw);
}

// The larger of two numbers, neither of which is NaN.
template <class T>
FASTGRU_INLINE Vec<T> larger(Vec<T> a, Vec<T> b) {
  return Eigen::internal::pmax(a.raw, b.raw);
}

// `value` in the lanes where low < x, zero in the others.
template <class T>
FASTGRU_INLINE Vec<T> where_above(Vec<T> x, T low, Vec<T> value) {
  return Eigen::internal::pand(Eigen::internal::pcmp_lt(Vec<T>(low).raw, x.raw), value.raw);
}
template <class T>
FASTGRU_INLINE Vec<T> where_below(Vec<T> x, T high, Vec<T> value) {
  return Eigen::internal::pand(Eigen::internal::pcmp_lt(x.raw, Vec<T>(high).raw), value.raw);
}

template <class T>
inline constexpr Index round_up_to_lanes(Index count) {
  return (count + Vec<T>::lanes - 1) / Vec<T>::lanes * Vec<T>::lanes;
}

}  // namespace fastgru
