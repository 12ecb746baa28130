"""The pages hold what the program writes from the stored JSON."""

import json
from pathlib import Path

import pytest

from st2v_jax.evaluation import model_page, refinement_page

DOCS = Path(__file__).parents[2] / 'docs'


@pytest.mark.parametrize(('name', 'page'), [('small-model', model_page.page), ('refinement', refinement_page.page)])
def test_pages_are_written_from_stored_json(name, page):
    read = lambda file: json.loads(file.read_text('utf-8'))
    training = [read(file) for file in sorted((DOCS / name / 'training').glob('*.json'))]
    assert page(read(DOCS / name / 'results.json'), training, name) == (DOCS / f'{name}.md').read_text('utf-8')
