// Scratch memory for the kernels: 64-byte aligned, uninitialised, reused between calls.
//
// A Workspace is an arena. A kernel takes its memory on the calling thread before it starts a team. The memory is valid
// until the next reset(). reset() keeps one block as large as all memory taken, so that from the second call of the
// same shape on nothing is allocated.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

namespace fastgru {

inline constexpr std::size_t kAlignment = 64;

// a * b; throws std::bad_alloc (MemoryError in Python) on overflow, because the sizes are user input.
template <class Integer>
inline Integer checked_multiply(Integer a, Integer b) {
  if (b != 0 && a > std::numeric_limits<Integer>::max() / b) throw std::bad_alloc();
  return a * b;
}

struct AlignedDelete {
  void operator()(void* memory) const { std::free(memory); }
};
using AlignedMemory = std::unique_ptr<std::byte, AlignedDelete>;

namespace detail {
inline std::atomic<std::size_t> bytes_allocated{0};
}
// Total bytes allocated so far. Constant in a loop that reuses its memory.
inline std::size_t bytes_allocated() { return detail::bytes_allocated.load(std::memory_order_relaxed); }

inline AlignedMemory allocate_aligned(std::size_t bytes) {
  // Large blocks use huge pages: a pass over a long tape misses the TLB on every small page, at twice the cost on a
  // virtual machine.
  constexpr std::size_t kHugePage = std::size_t{2} << 20;
  const std::size_t alignment = bytes >= kHugePage / 2 ? kHugePage : kAlignment;
  if (bytes > std::numeric_limits<std::size_t>::max() - alignment) throw std::bad_alloc();
  const std::size_t whole = (bytes + alignment - 1) / alignment * alignment;
  AlignedMemory memory(static_cast<std::byte*>(std::aligned_alloc(alignment, whole)));
  if (memory == nullptr && whole > 0) throw std::bad_alloc();
#if defined(__linux__)
  if (alignment == kHugePage) madvise(memory.get(), whole, MADV_HUGEPAGE);  // only a hint: failure is harmless
#endif
  detail::bytes_allocated.fetch_add(bytes, std::memory_order_relaxed);
  return memory;
}

class Workspace {
 public:
  template <class T>
  T* take(std::ptrdiff_t count) {
    const std::size_t wanted = checked_multiply(static_cast<std::size_t>(count), sizeof(T));
    if (wanted > std::numeric_limits<std::size_t>::max() / 2) throw std::bad_alloc();
    const std::size_t bytes = (wanted + kAlignment - 1) / kAlignment * kAlignment;
    if (blocks_.empty() || blocks_.back().size - blocks_.back().used < bytes) {
      blocks_.push_back({allocate_aligned(bytes), bytes, 0});
    }
    Block& block = blocks_.back();
    T* result = reinterpret_cast<T*>(block.memory.get() + block.used);
    block.used += bytes;
    return result;
  }

  // Like take(), but aligned to a page, so that neighbours in the arena do not share its first page.
  template <class T>
  T* take_pages(std::ptrdiff_t count) {
    constexpr std::size_t page = 4096;
    const auto address =
        reinterpret_cast<std::uintptr_t>(take<T>(count + static_cast<std::ptrdiff_t>(page / sizeof(T))));
    return reinterpret_cast<T*>((address + page - 1) / page * page);
  }

  std::size_t capacity() const {
    std::size_t total = 0;
    for (const Block& block : blocks_) total += block.size;
    return total;
  }

  void reset() {
    const std::size_t total = capacity();
    if (blocks_.size() > 1) {
      blocks_.clear();
      blocks_.push_back({allocate_aligned(total), total, 0});
    }
    if (!blocks_.empty()) blocks_.back().used = 0;
  }

 private:
  struct Block {
    AlignedMemory memory;
    std::size_t size;
    std::size_t used;
  };
  std::vector<Block> blocks_;
};

// A Workspace for one call, taken from a free list, so that concurrent calls never share one. Large workspaces are
// freed after the call, so that one huge call does not keep its memory.
class BorrowedWorkspace {
 public:
  BorrowedWorkspace() {
    // try_to_lock: a fork can leave the lock held in the child, which then allocates instead of reusing memory.
    const std::unique_lock<std::mutex> lock(mutex(), std::try_to_lock);
    if (lock && !free_list().empty()) {
      workspace_ = std::move(free_list().back());
      free_list().pop_back();
    } else {
      workspace_ = std::make_unique<Workspace>();
    }
  }
  ~BorrowedWorkspace() {
    if (workspace_->capacity() > kLargestKept) return;
    try {
      workspace_->reset();
      const std::unique_lock<std::mutex> lock(mutex(), std::try_to_lock);
      if (lock && free_list().size() < kMostKept) free_list().push_back(std::move(workspace_));
    } catch (const std::bad_alloc&) {  // the workspace is freed instead of kept
    }
  }
  BorrowedWorkspace(const BorrowedWorkspace&) = delete;
  BorrowedWorkspace& operator=(const BorrowedWorkspace&) = delete;

  Workspace& operator*() { return *workspace_; }

 private:
  static constexpr std::size_t kLargestKept = std::size_t{64} << 20;
  static constexpr std::size_t kMostKept = 4;

  // Never destroyed, because kernels can run during interpreter shutdown.
  static std::mutex& mutex() {
    static std::mutex& instance = *new std::mutex;
    return instance;
  }
  static std::vector<std::unique_ptr<Workspace>>& free_list() {
    static auto& instance = *new std::vector<std::unique_ptr<Workspace>>;
    return instance;
  }

  std::unique_ptr<Workspace> workspace_;
};

}  // namespace fastgru
