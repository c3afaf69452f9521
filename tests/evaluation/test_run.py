"""How many neighbours CSLS may take."""

import numpy as np

from c2c_jax.evaluation.material import Captions
from c2c_jax.evaluation.run import _neighbours


def test_csls_takes_fewer_neighbours_than_there_are_candidates():
    captions = Captions(source_NS=np.ones((12, 3), np.float32), target_NE=np.ones((12, 2), np.float32), told="12")
    assert _neighbours(11, captions, None) == (11, []) and _neighbours(None, captions, None) == (None, [])
    for csls in (12, 10**9):
        found, (missing,) = _neighbours(csls, captions, None)
        assert found is None and missing.what == f"CSLS scores with {csls:,} neighbours"
        assert missing.why == "there are only 12 candidates; pass a smaller --csls"
