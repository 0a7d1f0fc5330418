"""python -m benchmarks.peers PROGRAM: serve a contender in this process."""

import sys

from benchmarks.peers.serve import serve

serve(sys.argv[1])
