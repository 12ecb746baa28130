"""What the pages refer to exists: files, tests, golden cases, the figure, and the numbers that the README copies."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / 'README.md'
DIFFERENCES = ROOT / 'docs' / 'paper-and-release.md'
PAGES = (*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md'))
SCREENS, LINES, COLUMNS = 3, 55, 120


def rows(text):
    """The cells of every row of every table, without heads and rules; an escaped bar does not end a cell."""
    lines = text.splitlines()
    heads = {number for number, line in enumerate(lines[1:]) if re.fullmatch(r'[|\s:-]+-[|\s:-]+', line)}
    table = [
        line for number, line in enumerate(lines) if line.startswith('|') and {number, number - 1}.isdisjoint(heads)
    ]
    return [[cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]] for line in table]


def section(text, title):
    """What stands below a heading of the second level."""
    return re.search(rf'^## {title}\n(.*?)(?=^## |\Z)', text, re.M | re.S)[1]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = re.findall(r'\]\(([^)#]*)[^)]*\)', page.read_text('utf-8'))
    missing = [link for link in links if link and '://' not in link and not (page.parent / link).exists()]
    assert not missing


def test_every_difference_from_the_paper_is_proven():
    """By tests, each a link to its file under its name in words, or by golden cases that we handle."""
    differences = rows(DIFFERENCES.read_text('utf-8'))
    assert len(differences) > 30 and {len(row) for row in differences} == {6}
    found = json.loads((ROOT / 'docs' / 'parity.json').read_text('utf-8'))['cases']
    for what, *_, proof in differences:
        tests, cases = re.findall(r'\[([^]]+)\]\(([^)]+)\)', proof), re.findall('`([^`]+)`', proof)
        assert tests or cases, f'nothing proves: {what}'
        for words, file in tests:
            tree = ast.parse((DIFFERENCES.parent / file).read_text('utf-8'))
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert f'test_{words.replace(" ", "_")}' in functions, f'{file} has no such test: {words}'
        for case in cases:
            assert found.get(case), f'no golden case {case}, which should prove: {what}'


def test_numbers_of_the_readme_are_on_the_pages_that_it_links():
    text = README.read_text('utf-8')
    measured = rows(section(text, 'Measured')) + rows(section(text, 'Hardware'))
    assert len(measured) > 12
    for what, result, link in measured:
        page = (ROOT / re.search(r'\((.*)\)', link)[1]).read_text('utf-8')
        numbers = re.findall(r'\d+\.\d+(?:e-\d+)?|\d+(?= m?s\b)', result)
        missing = set(numbers) - set(re.findall(r'\d+(?:\.\d+)?(?:e-\d+)?', page))
        assert not missing, f'{what}: {link} does not have {missing}'


def test_the_readme_ends_within_three_screens():
    lines = README.read_text('utf-8').splitlines()
    assert sum(max(1, -(-len(line) // COLUMNS)) for line in lines) <= SCREENS * LINES


def test_the_figure_of_the_method_is_what_its_script_draws(tmp_path):
    folder = ROOT / 'docs' / 'images'
    script = shutil.copy(folder / 'method.py', tmp_path)  # it draws beside itself
    subprocess.run([sys.executable, script], check=True)
    assert (tmp_path / 'method.svg').read_bytes() == (folder / 'method.svg').read_bytes()
