"""FVD: which frames I3D looks at, how they are prepared, and the distance next to its floor."""

import json
import types

import numpy as np
import pytest

pytest.importorskip('cv2')

from known_videos import panning  # noqa: E402

from st2v_jax.cli.run import main  # noqa: E402
from st2v_jax.errors import BadInput  # noqa: E402
from st2v_jax.evaluation import i3d_features, video_distance  # noqa: E402
from st2v_jax.evaluation.instruments import View  # noqa: E402
from st2v_jax.video_io import VideoWriter  # noqa: E402


@pytest.fixture
def i3d(monkeypatch):
    """Instead of the network, the mean of each frame."""
    monkeypatch.setattr(i3d_features, 'read_i3d', lambda file: {})
    monkeypatch.setattr(i3d_features.build, 'network', lambda module: lambda params, clips: clips.mean((2, 3, 4)))
    monkeypatch.setattr(i3d_features, 'jax', types.SimpleNamespace(jit=lambda run: run, device_put=lambda tree: tree))


@pytest.mark.parametrize('start', (0, 3, 8, 24))
@pytest.mark.parametrize('piece', (1, 7, 16, 64))
def test_a_clip_is_16_frames_from_the_first_one_wanted(start, piece, i3d):
    video = np.arange(40, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    look = i3d_features.instrument('file', start).begin(None)
    found = [look(View(video[at : at + piece], None))['i3d'] for at in range(0, 40, piece)]
    np.testing.assert_allclose((np.concatenate(found) + 1) * 127.5, np.arange(start, start + 16), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parity
def test_frames_are_enlarged_and_shrunk_as_torch_does():
    torch = pytest.importorskip('torch')
    for size in ((20, 31), (300, 400)):
        frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(frames).permute(0, 3, 1, 2).float(), (224, 224), mode='bilinear', align_corners=False
        )
        theirs = theirs.permute(0, 2, 3, 1).numpy() / 127.5 - 1
        np.testing.assert_allclose(i3d_features.prepared(frames), theirs, atol=1e-4)


def test_equal_videos_are_at_the_floor_and_others_above_it():
    rng = np.random.default_rng(0)
    real, same = rng.standard_normal((80, 5)), rng.standard_normal((40, 5))
    found = video_distance.distances(real, same)
    assert found['curve']['made'][-1] == pytest.approx(found['curve']['floor'][-1], abs=0.5)
    shifts = [video_distance.distances(real, same + shift)['distance'] for shift in (0, 0.2, 0.5, 1, 2)]
    assert shifts == sorted(set(shifts)) and shifts[-1] > 10 * found['floor']['mean']
    assert found['curve']['sizes'][0] == 2 and found['curve']['sizes'][-1] == 40


def test_too_few_videos_are_refused():
    with pytest.raises(BadInput, match='needs 4 videos of each side at least, got 9 and 3 real ones'):
        video_distance.check(3, 9)


def test_the_distance_to_real_videos_is_written(i3d, tmp_path, capsys):
    for name, bright in (('real', 0), ('made', 60)):
        (tmp_path / name).mkdir()
        for number in range(5):
            with VideoWriter(tmp_path / name / f'{number}.mp4', 8, (32, 32)) as video:
                video.write(panning(18, number, 32, seed=number) // 2 + np.uint8(bright))
    words = [f'--videos={tmp_path}/made', f'--reference={tmp_path}/real', '--i3d=file', f'--output={tmp_path}/out']
    run = lambda *more: main(['evaluate', *words, '--metrics', 'i3d', *more])
    assert run() == 0
    found = json.loads((tmp_path / 'out' / 'fvd.json').read_text())
    assert found['real'] == found['made'] == 5 and found['distance'] > 16 * (2 * 55 / 255) ** 2
    assert found['floor']['mean'] < found['distance'] / 3
    assert '5 videos and 5 real ones' in (tmp_path / 'out' / 'fvd.md').read_text()
    assert capsys.readouterr().out.count('5 measured') == 2
    assert run() == 0 and capsys.readouterr().out.count('5 measured before') == 2
    assert json.loads((tmp_path / 'out' / 'fvd.json').read_text()) == found
    out, both = str(tmp_path / 'out'), str(tmp_path / 'both')
    assert main(['evaluate', '--compare', out, f'{out}/reference', '--output', both]) == 0
    text = (tmp_path / 'both' / 'comparison.md').read_text()
    assert f'| out | {found["distance"]:.4g} | 5 | 5 |' in text and '| reference | ' not in text
    assert run('--start', '3') == 2 and 'i3d needs 19 frames, not 18' in capsys.readouterr().err
    assert run('--metrics', 'steadiness') == 2 and 'by the metric i3d' in capsys.readouterr().err
