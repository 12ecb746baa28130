"""The pages hold what the benchmarks write from the stored JSON."""

import json
import shutil
from pathlib import Path

import full_size
import parity
import pytest
import tpu
import train_step

DOCS = Path(__file__).parents[2] / 'docs'


@pytest.mark.parametrize(
    ('benchmark', 'page', 'numbers'),
    [(train_step, 'training.md', 'train-step.json'), (full_size, 'weights.md', 'full-size.json')],
)
def test_pages_are_written_from_stored_json(benchmark, page, numbers, tmp_path):
    copy = shutil.copy(DOCS / page, tmp_path)
    assert benchmark.main(['--json', str(DOCS / 'performance' / numbers), '--page', str(copy)]) == 0
    assert Path(copy).read_text('utf-8') == (DOCS / page).read_text('utf-8')


def test_the_page_of_parity_is_written_from_stored_json():
    report = json.loads((DOCS / 'parity.json').read_text('utf-8'))
    assert parity.table(report) == (DOCS / 'parity.md').read_text('utf-8')


def test_the_page_about_tpus_is_written_from_stored_json(tmp_path):
    copy = shutil.copy(DOCS / 'tpu.md', tmp_path)
    assert tpu.main(['--json', str(DOCS / 'tpu'), '--page', str(copy)]) == 0
    assert Path(copy).read_text('utf-8') == (DOCS / 'tpu.md').read_text('utf-8')


def test_a_program_that_does_not_fit_is_on_the_page_with_what_helps(tmp_path):
    plan = json.loads((DOCS / 'tpu' / 'train-tiny-v5e-2x4.json').read_text('utf-8'))
    sizes = dict.fromkeys(('arguments', 'outputs', 'temporary'))
    over = {'name': 'step', 'seconds': 9, 'fits': False, 'total': 20 * 2**30, 'collectives': {}, **sizes}
    plan['programs'] = [over | {'helps': '--config.mesh.fsdp=8'}]
    assert '| step | 20 | 15.75 | no; what helps: --config.mesh.fsdp=8 |  |  | 9 |' in tpu.table([plan])
