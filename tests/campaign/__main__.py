import os
import sys
from pathlib import Path

# NumPy's threads would only disturb: every process here works alone.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# The helpers of the tests are imported by their plain names, as pytest's setting `pythonpath` does it.
sys.path.insert(0, str(Path(__file__).parents[1]))

from campaign.command import main

sys.exit(main())
