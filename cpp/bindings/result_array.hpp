// Arrays that functions return. Their memory is reused after Python has freed them.
//
// A training loop needs results of the same sizes in every step. The system provides new memory of some hundred KB page
// by page, which takes longer than many kernels need to fill it.
#pragma once

#include <pybind11/numpy.h>

#include <memory>
#include <mutex>
#include <vector>

#include "runtime/workspace.hpp"

namespace fastgru::bindings {

namespace py = pybind11;

class ResultMemory {
 public:
  struct Block {
    AlignedMemory memory;
    std::size_t size;
  };

  static std::unique_ptr<Block> take(std::size_t bytes) {
    {
      const std::unique_lock<std::mutex> lock(mutex(), std::try_to_lock);  // see BorrowedWorkspace
      if (lock) {
        std::vector<std::unique_ptr<Block>>& list = free_list();
        for (std::size_t i = list.size(); i-- > 0;) {  // the newest first: it may still be in a cache
          if (list[i]->size < bytes || list[i]->size / 2 > bytes) continue;
          std::unique_ptr<Block> block = std::move(list[i]);
          list.erase(list.begin() + static_cast<std::ptrdiff_t>(i));
          return block;
        }
      }
    }
    return std::make_unique<Block>(Block{allocate_aligned(bytes), bytes});
  }

  static void give_back(std::unique_ptr<Block> block) {
    if (block->size > kLargestKept) return;
    const std::unique_lock<std::mutex> lock(mutex(), std::try_to_lock);
    if (!lock) return;
    // Drops the oldest block, so that sizes that are no longer needed do not fill the list.
    if (free_list().size() == kMostKept) free_list().erase(free_list().begin());
    free_list().push_back(std::move(block));
  }

 private:
  static constexpr std::size_t kLargestKept = std::size_t{4} << 20;
  static constexpr std::size_t kMostKept = 12;

  // Never destroyed, because the last arrays are freed after the interpreter has ended.
  static std::mutex& mutex() {
    static std::mutex& instance = *new std::mutex;
    return instance;
  }
  static std::vector<std::unique_ptr<Block>>& free_list() {
    static auto& instance = []() -> std::vector<std::unique_ptr<Block>>& {
      auto* list = new std::vector<std::unique_ptr<Block>>;
      list->reserve(kMostKept);
      return *list;
    }();
    return instance;
  }
};

// A new C-contiguous array; its elements are uninitialised.
template <class T>
py::array new_array(const std::vector<py::ssize_t>& shape) {
  constexpr std::size_t kWorthKeeping = 4096;  // the allocators of C and NumPy already reuse smaller blocks
  std::size_t bytes = sizeof(T);
  for (const py::ssize_t size : shape) bytes = checked_multiply(bytes, static_cast<std::size_t>(size));
  if (bytes < kWorthKeeping) return py::array_t<T>(shape);
  std::unique_ptr<ResultMemory::Block> block = ResultMemory::take(bytes);
  T* const data = reinterpret_cast<T*>(block->memory.get());
  const py::capsule owner(block.get(), [](void* pointer) {
    ResultMemory::give_back(std::unique_ptr<ResultMemory::Block>(static_cast<ResultMemory::Block*>(pointer)));
  });
  block.release();
  return py::array_t<T>(shape, data, owner);
}

}  // namespace fastgru::bindings
