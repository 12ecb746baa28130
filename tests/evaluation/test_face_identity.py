"""re-ID of whatever faces the user's function finds, piece by piece as for the whole video."""

import numpy as np
import pytest

from st2v_jax.errors import BadInput
from st2v_jax.evaluation import face_identity
from st2v_jax.evaluation.instruments import View
from st2v_jax.metrics.faces import re_id

FACES = """
import numpy as np

def corners(frame):
    '''The colours of two corners; a frame that begins black has no face.'''
    return frame[[0, -1], [0, -1]].astype(float) if frame[0, 0].any() else np.zeros((0, 3))

def flat(frame):
    return np.zeros(3)

number = 3
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / 'faces.py').write_text(FACES)
    return tmp_path / 'faces.py'


def test_pieces_give_what_the_whole_gives(file):
    video = np.random.default_rng(0).integers(1, 256, (9, 4, 4, 3), np.uint8)
    video[5] = 0
    reid = face_identity.instrument(f'{file}:corners')
    look = reid.begin(None)
    curve = np.concatenate([look(View(video[:4], None))['reid'], look(View(video[4:], video[3]))['reid']])
    whole = re_id([frame[[0, -1], [0, -1]] if frame[0, 0].any() else np.zeros((0, 3)) for frame in video])
    np.testing.assert_allclose(curve, whole['curve'])
    assert reid.numbers({'reid': curve}) == {'reid': pytest.approx(whole['mean']), 'reid_pairs': 6}


def test_a_video_without_faces_has_no_value(file):
    reid = face_identity.instrument(f'{file}:corners')
    curves = reid.begin(None)(View(np.zeros((3, 4, 4, 3), np.uint8), None))
    found = reid.numbers(curves)
    assert np.isnan(found['reid']) and found['reid_pairs'] == 0


def test_another_program_is_another_setting(file):
    before = face_identity.instrument(f'{file}:corners').settings(None)
    assert before == face_identity.instrument(f'{file}:corners').settings(None)
    file.write_text(FACES + '\n')
    assert before != face_identity.instrument(f'{file}:corners').settings(None)


@pytest.mark.parametrize(
    ('name', 'words'),
    [('missing', 'has no function missing'), ('number', 'no function number'), ('a b', 'FILE.py:FUN')],
)
def test_what_is_no_function_is_refused(name, words, file):
    with pytest.raises(BadInput, match=words):
        face_identity.instrument(f'{file}:{name}')


def test_what_a_function_must_return_is_told(file):
    look = face_identity.instrument(f'{file}:flat').begin(None)
    with pytest.raises(BadInput, match=r'faces.py:flat must return numbers \[faces, features\], not float64 \(3,\)'):
        look(View(np.ones((2, 4, 4, 3), np.uint8), None))
