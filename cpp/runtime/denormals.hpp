// Flushes denormal numbers to zero on the current thread.
//
// An operation on denormals costs about a hundred cycles, and denormals do not affect a kernel's result (sigmoid(-100)
// is one). The calling thread flushes them during a call (bindings/call.hpp), the pool's workers always.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastgru {

// Sets the denormal mode of this thread for its lifetime. `flush=false` restores IEEE behaviour for the program's code.
class FlushDenormals {
 public:
  explicit FlushDenormals(bool flush = true) : saved_(read()) { write(flush ? saved_ | kBits : saved_ & ~kBits); }
  ~FlushDenormals() { write(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__x86_64__)
  using Control = unsigned;
  static constexpr Control kBits = 0x8040U;  // MXCSR: flush to zero, denormals are zero
  static Control read() { return _mm_getcsr(); }
  static void write(Control control) { _mm_setcsr(control); }
#elif defined(__aarch64__)
  using Control = unsigned long;
  static constexpr Control kBits = 1UL << 24;  // FPCR: FZ
  static Control read() {
    Control control;
    asm volatile("mrs %0, fpcr" : "=r"(control));
    return control;
  }
  static void write(Control control) { asm volatile("msr fpcr, %0" ::"r"(control)); }
#else
  using Control = int;
  static constexpr Control kBits = 0;
  static Control read() { return 0; }
  static void write(Control) {}
#endif
  Control saved_;
};

}  // namespace fastgru
