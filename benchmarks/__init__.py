"""How fast, how big and how frugal fastgru is beside its peers; see benchmarks/README.md."""
