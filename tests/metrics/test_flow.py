import numpy as np
import pytest

from st2v_jax.metrics.flow import flow_length


def test_length_is_the_mean_over_all_pixels():
    flows = np.zeros((2, 4, 5, 2), np.float32)
    flows[1] = 3, 4
    assert list(flow_length(flows)) == [0, 5] and flow_length(flows[1]) == pytest.approx(5)
