"""One chunk after true frames: what is measured of the ground, and that every kind of memory can be measured."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from st2v_jax.models import build
from st2v_jax.weights import layout

pytest.importorskip('cv2')
import one_chunk as study


def drifting(step, size=64, frames=9):
    """A soft texture that moves by `step` pixels a frame, behind a grey square in the middle that stands still."""
    import cv2

    noise = np.random.default_rng(0).integers(0, 256, (size, size + 100, 3), dtype=np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    video = np.stack([texture[:, i * step : i * step + size] for i in range(frames)])
    video[:, size // 4 : -(size // 4), size // 4 : -(size // 4)] = 128
    return video


@pytest.mark.parametrize('step', [1, 2, 3])
def test_the_flow_is_that_of_the_ground_around_the_object(step):
    flow, detail = study.ground(drifting(step))
    assert np.abs(flow - step).max() < 0.15 and detail > 1


def test_a_chunk_is_measured_by_the_truth():
    slow, fast = drifting(1), drifting(2)
    assert study.compared(fast, fast) == dict.fromkeys(study.NUMBERS, 1.0)
    found = study.compared(slow, fast)
    assert all(abs(found[name] - 0.5) < 0.05 for name in ('flow', 'border', 'inside'))
    stops = fast.copy()
    stops[2:] = fast[1]
    found = study.compared(stops, fast)
    assert found['inside'] < 0.05 < 0.9 < found['border'] and abs(found['flow'] - 1 / 8) < 0.05


def test_means_are_also_those_of_each_speed():
    row = lambda speed, flow: {'speed': speed} | dict.fromkeys(study.NUMBERS, flow)
    found = study.means([row(2.1, 0.8), row(2.3, 1.0), row(3.2, 0.6)])
    assert found['flow']['mean'] == pytest.approx(0.8) and found['flow']['count'] == 3
    assert [round(some['flow']['mean'], 6) if 'flow' in some else None for some in found['by speed']] == [
        0.9,
        None,
        0.6,
    ]


@pytest.mark.slow
@pytest.mark.usefixtures('unoptimised')
def test_models_of_every_memory_are_put_in_one_table(tiny_config, tiny_params, tiny_folder, tmp_path, capsys):
    from tiny import WORDS

    from st2v_jax.tokenizer import Tokenizer
    from st2v_jax.weights.folder import save

    folders = [tiny_folder]
    for fusion in ('attention', 'concatenation'):
        config = replace(tiny_config, cam=replace(tiny_config.cam, fusion=fusion), apm=None)
        params = tiny_params | build.init(jax.random.key(0), build.denoiser(config))
        folders.append(tmp_path / fusion)
        save(folders[-1], config, {name: params[name] for name in layout.networks(config)},
             tokenizer=Tokenizer.for_words(WORDS))  # fmt: skip
    words = ['--weights', *map(str, folders), '--scenes', '3', '--steps', '1']
    assert study.main([*words, '--json', str(tmp_path / 'found.json')]) == 0
    found = json.loads((tmp_path / 'found.json').read_text())['checkpoints']
    assert [(each['memory'], each['anchor']) for each in found] == [
        ('attention', True),
        ('attention', False),
        ('concatenation', False),
    ]
    for checkpoint in found:
        assert len(checkpoint['scenes']) == 3 and checkpoint['mean']['flow']['count'] == 3
        assert all(2 <= scene['speed'] <= 3.5 for scene in checkpoint['scenes'])
    shown = capsys.readouterr().out
    assert shown.count('| weights |') == 1 and all(str(folder) in shown for folder in folders)
