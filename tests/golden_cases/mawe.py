"""MAWE's forward warp, the pixels it fills, and its error (g11)."""

import einops
import numpy as np

from golden_cases import arrays
from st2v_jax.metrics import mawe


def check_g11(case):
    """Warped images and masks exactly; the two numbers that MAWE divides."""
    io = {name: a if a.ndim != 4 else einops.rearrange(a, 'n c h w -> n h w c') for name, a in arrays(case).items()}
    found = {}
    for size in sorted(name.removesuffix('_flow') for name in io if name.endswith('_flow')):
        image, flow, following = (io[f'{size}_{what}'] for what in ('img', 'flow', 'next'))
        warped, known = mawe.warp(image, flow)
        error, length = mawe.warp_error(image, flow, following), mawe.flow_length(flow).mean()
        found |= {
            f'{size} warped, largest difference': (float(np.abs(warped - io[f'{size}_warped']).max()), 0.0),
            f'{size} mask, differing pixels': (float((known == io[f'{size}_mask'].astype(bool)).sum()), 0.0),
            f'{size} warp error': (float(abs(error / io[f'{size}_warp_error'].item() - 1)), 1e-6),
            f'{size} mean flow length': (float(abs(length / io[f'{size}_mean_flow_norm'].item() - 1)), 1e-6),
        }
    return found
