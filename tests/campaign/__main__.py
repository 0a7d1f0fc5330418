import os
import sys
from pathlib import Path

# NumPy's threads would only interfere, because every process here uses one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# The tests' helper modules are imported by name, as with pytest's setting `pythonpath`.
sys.path.insert(0, str(Path(__file__).parents[1]))

from campaign.command import main

sys.exit(main())
