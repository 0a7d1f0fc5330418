"""Benchmarks of fastgru's speed, memory and size against other libraries; see benchmarks/README.md."""
